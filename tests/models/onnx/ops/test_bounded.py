"""Data-dependent operators with a given number of rows, under jit and vmap, against onnxruntime."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.onnx.helpers import convert, expected, node_model

SIZES = [2, 40]  # mostly too few; more than there can be


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.integers(-1, 2, shape).astype(np.float32) for shape in shapes]


def boxes_and_scores(seed, batch=2, classes=2, count=9):
    rng = np.random.default_rng(seed)
    corner, extent = rng.uniform(0, 1, (2, batch, count, 2))
    boxes = np.concatenate([corner, corner + extent], -1)
    return [boxes.astype(np.float32), rng.uniform(0, 1, (batch, classes, count)).astype(np.float32)]


CASES = {
    "NonZero": (lambda seed: arrays(seed, (3, 4)), {}, [], [1]),
    "Compress": (lambda seed: [*arrays(seed, (5, 4)), arrays(seed + 9, (5,))[0] > 0], {"axis": 0}, [], [0]),
    "Compress, last axis": (lambda seed: [*arrays(seed, (3, 4)), arrays(seed, (3,))[0] > 0], {"axis": -1}, [], [-1]),
    "Compress, flat": (lambda seed: [*arrays(seed, (3, 2)), arrays(seed, (6,))[0] > 0], {}, [], [0]),
    "Unique": (lambda seed: arrays(seed, (2, 3)), {}, [], [0, 0, None, 0]),
    "Unique, as they come": (lambda seed: arrays(seed, (7,)), {"sorted": 0}, [], [0, 0, None, 0]),
    "Unique, columns": (lambda seed: arrays(seed, (2, 6)), {"axis": 1}, [], [1, 0, None, 0]),
    "Unique, rows as they come": (lambda seed: arrays(seed, (5, 1)), {"axis": 0, "sorted": 0}, [], [0, 0, None, 0]),
    "NonMaxSuppression": (
        boxes_and_scores, {}, [np.int64([3]), np.float32([0.3]), np.float32([0.2])], [0],
    ),
    "NonMaxSuppression, all": (boxes_and_scores, {}, [np.int64([100]), np.float32([0.6])], [0]),
    "NonMaxSuppression, none": (boxes_and_scores, {}, [], [0]),
    "NonMaxSuppression, centres": (
        boxes_and_scores, {"center_point_box": 1}, [np.int64([4]), np.float32([0.1]), np.float32([0.5])], [0],
    ),
}  # fmt: skip


def rows(array, axis, start, stop):
    return np.take(np.asarray(array), np.arange(start, stop), axis)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_as_many_rows_as_there_are_then_zeros(case, size):
    make, attrs, fixed, axes = CASES[case]
    op = case.split(",")[0].split(" ")[0]
    examples = [make(seed) for seed in range(3)]
    proto = node_model(op, [*examples[0], *fixed], attrs, opset=13, n_outputs=len(axes))
    names = [f"x{i}" for i in range(len(examples[0]) + len(fixed))]
    free = len(examples[0])
    model = convert(proto).bind(**dict(zip(names[free:], fixed, strict=True))).bounded(size)
    assert [spec.name for spec in model.outputs[-2:]] == ["y0.mask", "y0.count"]
    batch = [jnp.stack([example[i] for example in examples]) for i in range(free)]
    together = jax.jit(jax.vmap(lambda *xs: model.apply(model.params, *xs)))(*batch)
    for i, example in enumerate(examples):
        want = expected(proto, dict(zip(names, [*example, *fixed], strict=True)))
        count = want[0].shape[axes[0]]
        *outputs, mask, result = (part[i] for part in together)
        assert result == count
        np.testing.assert_array_equal(mask, np.arange(size) < count)
        for output, reference, axis in zip(outputs, want, axes, strict=True):
            if axis is None:
                np.testing.assert_array_equal(output, reference)
                continue
            assert output.shape[axis] == size
            n_real = min(count, size)
            np.testing.assert_array_equal(rows(output, axis, 0, n_real), rows(reference, axis, 0, n_real))
            assert not rows(output, axis, n_real, size).any()


def test_what_is_kept_has_a_derivative():
    x, condition = np.float32([[1, 2], [3, 4], [5, 6]]), np.array([True, False, True])
    model = convert(node_model("Compress", [x, condition], {"axis": 0})).bounded(5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(model.apply(model.params, x, condition)[0] ** 2)))(x)
    np.testing.assert_array_equal(slope, 2 * x * condition[:, None])


def test_a_condition_longer_than_its_axis_is_refused():
    model = convert(node_model("Compress", [np.float32([1, 2]), np.array([True] * 3)], {"axis": 0})).bounded(5)
    with pytest.raises(ValueError, match="no longer than its axis"):
        model(np.float32([1, 2]), np.array([True] * 3))
