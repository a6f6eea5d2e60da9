"""Public functions under the settings with which strict JAX programs run: results are those without them."""

from contextlib import ExitStack

import flax.linen as nn
import jax
import numpy as np
import pytest

import modeldiff_jax as md
from tests.helpers.onnx_graphs import classifier

long = pytest.mark.long
X = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
SETTINGS = {
    "strict": lambda: [
        jax.transfer_guard("disallow"),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.debug_nans(True),
    ],
    "x64": lambda: [jax.enable_x64(True)],
}


def flax_model():
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(4)])
    return md.from_flax(module, module.init(jax.random.key(0), X), [("n", 16)])


def ddvs(files):
    owner = md.load(files[0])
    return md.ddv([owner, md.load(files[1])], md.make_probes(owner, n_pairs=4, n_steps=2))


CALLS = {  # name: function of three classifiers, of a model, its child and an unrelated one
    "call": lambda files: md.load(files[0])(X),
    "eager": lambda files: md.load(files[0]).eager(X),
    "specialise": lambda files: md.load(files[0]).specialise(X)(X),
    "from_callable": lambda files: md.from_callable(lambda x: x @ np.ones((16, 3), np.float32), [("n", 16)])(X),
    "ddv": ddvs,
    "compare": lambda files: md.compare(files[0], files[1], references=files[2:], n_pairs=4).similarity,
    "black box": lambda files: md.compare(files[0], files[1], n_pairs=4, black_box=True).similarity,
    "screen": lambda files: [row.verdict for row in md.screen(files[0], files[1:], n_pairs=4).findings],
    "lineage": lambda files: md.lineage(files, n_pairs=4).to_dict()["rows"],
    "profile": lambda files: [str(md.profile("paired_distances", shape=(5, 8)))[:5]],
}
NOW = [("call", "strict"), ("specialise", "strict"), ("ddv", "strict"), ("ddv", "x64"), ("compare", "strict")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    child = classifier(folder / "child.onnx", noise=0.02)
    return [classifier(folder / "owner.onnx"), child, classifier(folder / "unrelated.onnx", seed=7)]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        pytest.param(name, setting, marks=[] if (name, setting) in NOW else [long])
        for name in CALLS
        for setting in SETTINGS
    ],
)
def test_results_do_not_depend_on_the_programs_settings(name, setting, files):
    want = CALLS[name](files)
    with ExitStack() as stack:
        for context in SETTINGS[setting]():
            stack.enter_context(context)
        got = CALLS[name](files)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if isinstance(theirs, str):
            assert ours == theirs
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_flax_module_is_called_without_implicit_transfers():
    model = flax_model()
    want = model(X)
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        np.testing.assert_allclose(model(X), want, rtol=1e-6)
