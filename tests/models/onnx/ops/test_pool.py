"""Pooling against onnxruntime."""

import jax
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

RNG = np.random.default_rng(0)
LINE, IMAGE, VOLUME = (RNG.standard_normal(s).astype(np.float32) for s in [(1, 2, 11), (2, 3, 9, 8), (1, 2, 5, 6, 7)])

WINDOWS = [
    (LINE, {"kernel_shape": [3]}),
    (LINE, {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}),
    (IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    (IMAGE, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    (IMAGE, {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 2, 0]}),
    (IMAGE, {"kernel_shape": [2, 3], "strides": [2, 3], "ceil_mode": 1}),
    (IMAGE, {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    (IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    (IMAGE, {"kernel_shape": [2, 4], "strides": [1, 2], "auto_pad": "SAME_LOWER"}),
    (IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    (VOLUME, {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
]
DILATED = [
    (IMAGE, {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 1, 1, 1]}),
    (LINE, {"kernel_shape": [3], "dilations": [4]}),
]


def of(*windows):
    return pytest.mark.parametrize(("x", "attrs"), [*windows], ids=str)


@of(*WINDOWS, *DILATED)
def test_max(x, attrs):
    check_node("MaxPool", [x], attrs, opset=12, concrete=False)


@of(*WINDOWS[::2], *DILATED)
@pytest.mark.parametrize("storage_order", [0, 1])
def test_indices_of_max(x, attrs, storage_order):
    check_node("MaxPool", [x], {**attrs, "storage_order": storage_order}, opset=12, n_outputs=2, concrete=False)


def test_the_first_of_equal_maxima_counts():
    check_node("MaxPool", [np.zeros((1, 1, 6, 6), np.float32)], {"kernel_shape": [3, 3]}, opset=12, n_outputs=2)


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize(("dtype", "low"), [(np.float32, -np.inf), (np.uint8, 0), (np.int8, -128)])
def test_padding_is_never_the_place_of_a_maximum(dtype, low, storage_order):
    x = np.full((2, 2, 5, 4), low, dtype)  # dark pictures with one bright pixel
    x[..., 3, 3] = 1
    attrs = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "storage_order": storage_order}
    check_node("MaxPool", [x], attrs, opset=12, n_outputs=2)
    check_node("MaxPool", [x], {**attrs, "ceil_mode": 1}, opset=12, n_outputs=2)


def test_a_window_of_padding_alone_has_no_place():
    model = convert(
        node_model("MaxPool", [LINE[..., :2]], {"kernel_shape": [2], "dilations": [3], "pads": [1, 1]}, 12, 2)
    )
    _, indices = model(LINE[..., :2])
    np.testing.assert_array_equal(indices, [[[-1], [-1]]])


def test_the_place_of_nan():
    x = np.float32([[[-np.inf, np.nan, 3, 4]]])
    model = convert(node_model("MaxPool", [x], {"kernel_shape": [3], "pads": [1, 1]}, 12, 2))
    np.testing.assert_array_equal(model(x)[1], [[[1, 1, 1, 3]]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_of_small_integers(dtype):
    x = RNG.integers(0, 100, (1, 2, 5, 5)).astype(dtype)
    check_node("MaxPool", [x], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, opset=12)


@of(*WINDOWS)
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average(x, attrs, count_include_pad):
    check_node("AveragePool", [x], {**attrs, "count_include_pad": count_include_pad}, opset=11, concrete=False)


@of(*DILATED)
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_dilated_average(x, attrs, count_include_pad):
    check_node("AveragePool", [x], {**attrs, "count_include_pad": count_include_pad}, opset=19, concrete=False)


def test_pools_before_their_options():
    check_node("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, opset=7)
    check_node("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0]}, opset=7)


@of(*WINDOWS[2:5])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp(x, attrs, p):
    check_node("LpPool", [x], {**attrs, "p": p}, opset=11)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("x", [LINE, IMAGE, VOLUME], ids=["1d", "2d", "3d"])
def test_global(op, x):
    check_node(op, [x], opset=2)


def test_unpooling_puts_values_back():
    x = np.float32([[[[5, 6], [7, 8]]]])
    indices = np.int64([[[[0, 3], [8, 15]]]])
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check_node("MaxUnpool", [x, indices], attrs, opset=11)
    # the indices are those of the natural output, which the asked-for one contains (onnxruntime reads them otherwise)
    want = np.zeros((1, 1, 5, 5), np.float32)
    want[0, 0, [0, 0, 2, 3], [0, 3, 0, 3]] = [5, 6, 7, 8]
    check_node("MaxUnpool", [x, indices, np.int64([1, 1, 5, 5])], attrs, opset=11, want=[want])


@pytest.mark.parametrize(("op", "attrs"), [
    ("MaxPool", WINDOWS[2][1]), ("MaxPool", WINDOWS[6][1]), ("MaxPool", DILATED[0][1]), ("AveragePool", WINDOWS[2][1]),
    ("AveragePool", WINDOWS[6][1]), ("AveragePool", {**WINDOWS[2][1], "count_include_pad": 1}),
    ("LpPool", WINDOWS[2][1]), ("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("GlobalLpPool", {}),
])  # fmt: skip
def test_transforms(op, attrs):
    check_transforms(op, [IMAGE], attrs, opset=19 if "dilations" in attrs else 11)


def test_the_slope_of_a_tie_goes_to_one_place():
    model = convert(node_model("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}))
    slope = jax.grad(lambda x: model.apply(model.params, x).sum())(np.zeros((1, 1, 4, 4), np.float32))
    np.testing.assert_array_equal(slope[0, 0], [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_nan_is_not_lost():
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = np.nan
    model = convert(node_model("MaxPool", [x], {"kernel_shape": [3, 3]}))
    assert np.isnan(model(x)).all()


def test_a_window_larger_than_its_input_is_refused():
    model = convert(node_model("MaxPool", [LINE], {"kernel_shape": [20]}))
    with pytest.raises(InvalidInputError, match="fit"):
        model.apply(model.params, LINE)
