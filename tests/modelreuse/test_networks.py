"""Networks train, and their ONNX files compute the same."""

import jax
import numpy as np
import onnxruntime
import pytest

import modeldiff_jax as md
from bench.modelreuse.export import export
from bench.modelreuse.networks import ARCHITECTURES, Network, fresh, units
from bench.modelreuse.training import Job, train

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 4, 64)


def job(arch, steps=4, seed=0, **more):
    return Job(arch, 4, fresh(arch, 4, seed), IMAGES, LABELS, steps, seed, **more)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request):
    """A network whose batch statistics have changed."""
    return request.param, train([job(request.param)])[0]


def native(n):
    return RNG.normal(size=(n, 3, 32, 32)).astype(np.float32)


def flax_logits(arch, variables, x):
    return np.asarray(Network(arch, 4).apply(variables, x.transpose(0, 2, 3, 1))[0])


def test_the_file_computes_what_the_network_computes(trained, tmp_path):
    arch, variables = trained
    path = tmp_path / "m.onnx"
    path.write_bytes(export(arch, 4, variables))
    x = native(5)
    wanted = flax_logits(arch, variables, x)
    runtime = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(runtime.run(None, {"image": x})[0], wanted, atol=1e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(md.load(path)(x), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("precision", "share"), [("float16", 0.01), ("int8", 0.2)])
def test_quantised_files_differ_a_little(trained, tmp_path, precision, share):
    arch, variables = trained
    watched, path = tmp_path / "w.onnx", tmp_path / "m.onnx"
    watched.write_bytes(export(arch, 4, variables, watch=True))
    x = native(8)
    model = md.load(watched)
    ranges = {s.name: (float(v.min()), float(v.max())) for s, v in zip(model.outputs, model(x), strict=True)}
    path.write_bytes(export(arch, 4, variables, precision, ranges))
    wanted = flax_logits(arch, variables, x)
    error = np.abs(np.asarray(md.load(path)(x)) - wanted).max() / np.ptp(wanted)
    assert 0 < error < share


def test_units_cover_every_layer(trained):
    arch, variables = trained
    assert {layer.split("_")[0] for layer in variables["params"]} == set(units(arch))


@pytest.mark.long
def test_stacked_training_equals_separate_training():
    jobs = [job("resnet", 2, seed) for seed in (0, 1)]
    separate, stacked = train(jobs, stacked=False), train(jobs, stacked=True)
    for one, other in zip(separate, stacked, strict=True):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_frozen_layers_stay_and_pruned_weights_are_zero():
    start = fresh("resnet", 4, 0)
    keep = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), start["params"])
    keep["head"] = jax.tree.map(np.ones_like, keep["head"])
    alive = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), start["params"])
    alive["stem"]["kernel"][0] = 0
    params = train([job("resnet", keep=keep, alive=alive)])[0]["params"]
    np.testing.assert_array_equal(params["block1_a"]["kernel"], start["params"]["block1_a"]["kernel"])
    assert (params["head"]["kernel"] != start["params"]["head"]["kernel"]).any()
    assert not params["stem"]["kernel"][0].any()


@pytest.mark.long
@pytest.mark.parametrize("lesson", ["distil", "soft", "hard", "adversarial"])
def test_a_student_comes_nearer_to_its_teacher(lesson):
    teacher = fresh("resnet", 4, 7)
    before = fresh("resnet", 4, 0)
    after = train([job("resnet", 30, lesson=lesson, teacher=("resnet", teacher))])[0]
    x = ((IMAGES / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)

    def agreement(variables):
        return np.mean(flax_logits("resnet", variables, x).argmax(1) == flax_logits("resnet", teacher, x).argmax(1))

    if lesson == "distil":  # the labels are random, and weigh more than the teacher's outputs
        assert np.isfinite(flax_logits("resnet", after, x)).all()
    else:
        assert agreement(after) > agreement(before)
