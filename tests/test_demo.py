"""Parts of the demo; a long test runs all of it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from flax import linen as nn

import modeldiff_jax
from modeldiff_jax.demo import data, derive, run_demo, story, zoo

SCHEMA = json.loads((Path(modeldiff_jax.__file__).parent / "report" / "schema.json").read_text())


@pytest.fixture(scope="module")
def images():
    return data.load_images(np.random.default_rng(0))


@pytest.fixture(scope="module")
def teacher(images):
    """Trains a teacher for long enough to be accurate."""
    (network,) = zoo.train([derive.trained(data.DIGIT, images[1], np.random.default_rng(1))], 150)
    return network


@pytest.fixture(scope="module")
def copies(images, teacher):
    _, pool, _ = images
    rng = np.random.default_rng(2)
    recipes = {
        "tuned": derive.fine_tuned(teacher, data.REMAINDER, pool, rng),
        "pruned": derive.pruned(teacher, 0.5, pool, rng),
        "distilled": derive.distilled(teacher, pool, rng),
        "stolen": derive.stolen(teacher, pool, rng),
        "unrelated": derive.unrelated(data.REMAINDER, pool, rng),
    }
    return recipes, dict(zip(recipes, zoo.train(list(recipes.values()), 150), strict=True))


@partial(jax.jit, static_argnums=0)
def run(module, params, pixels):
    logits, features = module.apply({"params": params}, pixels, method="with_features")
    return jax.nn.softmax(logits), features


def outputs_and_features(network, pixels):
    """Returns probabilities of all ten outputs, and features."""
    return map(np.asarray, run(zoo.DigitNet(int8=network.int8), network.params, pixels))


def probabilities(network, pixels):
    return next(outputs_and_features(network, pixels))


def test_test_images_are_not_trained_on(images):
    train, pool, test = images
    assert (len(train), len(pool), len(test)) == (data.N_TRAIN, data.POOL, data.N_TEST)
    np.testing.assert_array_equal(pool.pixels[: data.N_TRAIN], train.pixels)
    np.testing.assert_array_equal(pool.digits, np.tile(train.digits, data.POOL // data.N_TRAIN))
    assert data.POOL % zoo.BATCH == 0
    seen = {image.tobytes() for image in train.pixels}
    assert sum(image.tobytes() in seen for image in test.pixels) <= 2  # the data set has a few equal images


def test_distortion_moves_little_and_stays_in_range(images):
    train, _, _ = images
    distorted = data.distort(train.pixels, np.random.default_rng(0))
    assert distorted.dtype == np.float32
    assert distorted.min() >= 0
    assert distorted.max() <= 1 + 1e-6
    near = np.mean(np.abs(distorted - train.pixels))
    far = np.mean(np.abs(distorted - np.roll(train.pixels, 1, axis=0)))
    assert 0 < near < far / 2


def test_no_distortion_changes_nothing(images):
    class Still(np.random.Generator):
        def normal(self, mean, spread, size):
            return np.zeros(size)

    train, _, _ = images
    np.testing.assert_allclose(data.distort(train.pixels, Still(np.random.PCG64())), train.pixels, atol=1e-5)


def test_the_network_is_a_convolutional_one():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name, width in (("conv1", zoo.WIDTH), ("conv2", 2 * zoo.WIDTH)):
                x = nn.relu(nn.Conv(width, (3, 3), (2, 2), padding=((1, 1), (1, 1)), name=name)(x))
            x = nn.relu(nn.Dense(zoo.HIDDEN, name="dense")(x.reshape(len(x), -1)))
            return nn.Dense(zoo.HEAD, name="head")(x)

    rng = np.random.default_rng(0)
    params, x = zoo.fresh(rng), rng.random((5, 8, 8, 1), np.float32)
    kernels = {
        name: {**layer, "kernel": layer["kernel"].reshape(3, 3, -1, layer["kernel"].shape[1])}
        for name, layer in params.items()
        if name.startswith("conv")
    }
    wanted = jax.jit(Plain().apply)({"params": {**params, **kernels}}, x)
    given = jax.jit(zoo.DigitNet().apply)({"params": params}, x)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("xp", [np, jnp])
def test_rounding_to_int8(xp):
    values = xp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32))
    rounded = np.asarray(zoo.round_to_int8(values, xp))
    largest = np.abs(values).max((1, 2), keepdims=True)
    levels = rounded / largest * 127
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(rounded - values).max() <= largest.max() / 254 + 1e-6
    np.testing.assert_array_equal(zoo.round_to_int8(xp.zeros((2, 3)), xp), np.zeros((2, 3)))


def test_training_learns_the_task_of_each_network(images, teacher, copies):
    _, _, test = images
    _, networks = copies
    for name, network in {"teacher": teacher, **networks}.items():
        outputs = probabilities(network, test.pixels)[:, : network.task.classes]
        accuracy = np.mean(np.argmax(outputs, 1) == network.task.labels(test.digits))
        assert accuracy > (0.6 if name == "tuned" else 0.8), name  # its body moves slowly


def test_a_network_trains_alike_alone_and_in_a_group(images, copies):
    recipes, networks = copies
    (separate,) = zoo.train([recipes["unrelated"]], 150)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        separate.params,
        networks["unrelated"].params,
    )


def test_pruned_weights_stay_zero(copies):
    _, networks = copies
    kernels = [layer["kernel"] for layer in networks["pruned"].params.values()]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    assert zeros / sum(kernel.size for kernel in kernels) == pytest.approx(0.5, abs=1e-3)


def test_outputs_that_do_not_count_are_never_trained(copies):
    recipes, networks = copies
    before, after = recipes["tuned"].start["head"], networks["tuned"].params["head"]
    np.testing.assert_array_equal(before["kernel"][:, 5:], after["kernel"][:, 5:])
    assert np.abs(before["kernel"][:, :5] - after["kernel"][:, :5]).max() > 0.01


def test_the_fine_tuned_begins_with_the_teachers_body(teacher, copies):
    recipes, _ = copies
    np.testing.assert_array_equal(recipes["tuned"].start["conv1"]["kernel"], teacher.params["conv1"]["kernel"])
    assert np.abs(recipes["tuned"].start["head"]["kernel"] - teacher.params["head"]["kernel"]).max() > 0.1


@pytest.mark.parametrize("student", ["distilled", "stolen"])
def test_students_begin_with_random_weights(teacher, copies, student):
    recipes, _ = copies
    for layer, values in recipes[student].start.items():
        kernels = values["kernel"].ravel(), teacher.params[layer]["kernel"].ravel()
        assert abs(np.corrcoef(*kernels)[0, 1]) < 0.3


def test_a_thief_gets_no_label_and_approximates_the_teachers_outputs(images, teacher, copies):
    _, _, test = images
    recipes, networks = copies
    np.testing.assert_allclose(recipes["stolen"].targets, probabilities(teacher, recipes["stolen"].pixels), atol=1e-5)
    assert recipes["stolen"].features is None
    wanted = probabilities(teacher, test.pixels)
    stolen = np.abs(probabilities(networks["stolen"], test.pixels) - wanted).mean()
    assert stolen < np.abs(wanted - np.roll(wanted, 1, axis=0)).mean() / 3


def test_distillation_imitates_features(images, teacher, copies):
    recipes, networks = copies
    pixels = images[2].pixels
    features = {n: list(outputs_and_features(m, pixels))[1] for n, m in {"teacher": teacher, **networks}.items()}
    distance = {n: np.mean((f - features["teacher"]) ** 2) for n, f in features.items()}
    assert distance["distilled"] < distance["stolen"] / 2
    np.testing.assert_allclose(recipes["distilled"].targets.sum(1), 1)


def test_quantised_is_near_but_not_the_teacher(images, teacher):
    quantised = derive.quantised(teacher)
    for layer in quantised.params.values():
        assert all(len(np.unique(column)) <= 255 for column in layer["kernel"].T)
    one, two = (probabilities(network, images[2].pixels) for network in (teacher, quantised))
    assert 0 < np.abs(one - two).max() < 0.2


def test_models_of_one_label_space_share_one_function(images, teacher, copies):
    _, networks = copies
    pixels = images[2].pixels[:3]
    outputs = np.asarray(networks["tuned"].model("a")(pixels))
    assert outputs.shape == (3, 5)
    np.testing.assert_array_equal(outputs.argmax(1), probabilities(networks["tuned"], pixels)[:, :5].argmax(1))
    assert networks["pruned"].model("a").apply is teacher.model("b").apply
    assert networks["tuned"].model("a").apply is networks["unrelated"].model("b").apply
    assert networks["tuned"].model("a").apply is not teacher.model("b").apply


@pytest.fixture(scope="module")
def small_story():
    """Runs the whole demo with few references and short training; its verdicts are meaningless."""
    sizes = {"N_REFERENCES": 3, "N_UNRELATED": 1, "_STEPS": 60, "_DERIVED_STEPS": 60, "_N_PAIRS": 20}
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(story, name, value)
        return run_demo(key=3, progress=lambda step, done, total: seen.append((step, done, total))), seen


def test_the_result_has_a_row_for_each_model(small_story):
    result, _ = small_story
    names = [row.name for row in result.rows]
    assert names == [
        "teacher", "fine-tuned", "pruned", "quantised", "distilled", "stolen", "unrelated 1", "unrelated 2",
    ]  # fmt: skip
    first, *others = result.rows
    assert (first.similarity, first.p_value, first.verdict) == (None, None, None)
    for row in others:
        assert -1 <= row.similarity <= 1 + 1e-6
        assert row.p_value in (0.25, 0.5, 0.75, 1.0)
        assert row.verdict == "inconclusive"  # three references cannot reach 0.05
    assert {row.name: row.classes for row in others if row.classes != 10} == {"fine-tuned": 5, "unrelated 2": 5}


def test_the_record_fits_its_schema(small_story):
    jsonschema.validate(json.loads(json.dumps(small_story[0].to_dict())), SCHEMA)


def test_progress_only_grows_and_ends_at_the_end(small_story):
    _, seen = small_story
    done = [d for _, d, _ in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 100)
    assert {total for *_, total in seen} == {100}


def test_every_wrong_verdict_has_a_note():
    row = story.Row("x", "derived", "", 10, 0.9, 0.5, 0.04, "reused")
    right = [row, replace(row, kind="unrelated", p_value=0.5, verdict="no_evidence")]
    wrong = [
        replace(right[0], name="m", p_value=0.2, verdict="no_evidence"),
        replace(right[1], name="f", verdict="reused"),
    ]
    plain = story._notes(right)
    missed, accused = story._notes(wrong)[len(plain) :]
    assert "Missed: m" in missed
    assert "0.2" in missed
    assert "False alarm: f" in accused


@pytest.mark.long
def test_the_whole_demo():
    result = run_demo(key=0)
    verdicts = {row.name: row.verdict for row in result.rows}
    assert all(row.accuracy > 0.9 for row in result.rows)
    for name in ("pruned", "quantised"):
        assert verdicts[name] == "reused", result
    assert len(result.rows) == 10
