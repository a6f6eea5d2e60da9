"""Resize and Upsample against onnxruntime: modes, coordinates, scales and sizes, opsets."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from tests.models.onnx.helpers import check_node, check_transforms, convert, expected, node_model

IMAGE = np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
SCALES = [(2.0, 2.0), (0.5, 0.6), (1.7, 2.4), (3.0, 1.0), (0.25, 0.2)]


def f32(*values):
    return np.float32(values)


def scaled(scales):
    return [IMAGE, None, f32(1, 1, *scales)]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_by_scales(mode, coordinates, scales):
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check_node("Resize", scaled(scales), attrs, opset=13, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_by_scales(coordinates, nearest, scales):
    attrs = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    check_node("Resize", scaled(scales), attrs, opset=13)


@pytest.mark.parametrize("sizes", [(10, 12), (3, 4), (7, 6), (1, 1), (5, 6)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_sizes(mode, sizes):
    inputs = [IMAGE, None, None, np.int64([1, 2, *sizes])]
    check_node("Resize", inputs, {"mode": mode}, opset=13, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attrs", [{"cubic_coeff_a": -0.5}, {"exclude_outside": 1}])
def test_cubic_options(attrs):
    check_node("Resize", scaled((1.7, 0.6)), {"mode": "cubic", **attrs}, opset=13, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("roi", [(0, 0, 0.2, 0.3, 1, 1, 0.9, 0.8), (0, 0, -0.3, 0.2, 1, 1, 1.2, 0.9)])
def test_crop(mode, roi):
    attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
    inputs = [IMAGE, f32(*roi), None, np.int64([1, 2, 4, 5])]
    check_node("Resize", inputs, attrs, opset=13, rtol=1e-4, atol=1e-5)


def test_tf_half_pixel_for_nn():
    attrs = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    check_node("Resize", [IMAGE, f32(), f32(1, 1, 2, 0.6)], attrs, opset=11)


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_opset_10(mode, scales):
    check_node("Resize", [IMAGE, f32(1, 1, *scales)], {"mode": mode}, opset=10, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_policies(policy):
    attrs = {"keep_aspect_ratio_policy": policy, "axes": [2, 3], "mode": "linear"}
    check_node("Resize", [IMAGE, None, None, np.int64([8, 7])], attrs, opset=18, rtol=1e-4, atol=1e-5)


def test_axes_in_any_order():
    attrs = {"axes": [3, 2], "mode": "linear"}
    check_node("Resize", [IMAGE, None, f32(1.5, 0.6)], attrs, opset=18, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(0.5, 0.6), (0.4, 1.0), (2.0, 1.5)])
def test_antialias(mode, scales):
    attrs = {"mode": mode, "antialias": 1}
    check_node("Resize", scaled(scales), attrs, opset=18, rtol=1e-4, atol=1e-5)


def test_half_pixel_symmetric():
    attrs = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    check_node("Resize", scaled((0.7, 1.3)), attrs, opset=19, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (3.0, 2.0), (1.5, 2.0)])
def test_upsample(mode, scales):
    check_node("Upsample", [IMAGE], {"mode": mode, "scales": [1.0, 1.0, *scales]}, opset=7, rtol=1e-4, atol=1e-5)
    check_node("Upsample", [IMAGE, f32(1, 1, *scales)], {"mode": mode}, opset=9, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scales", [(2.0, 3.0), (1.6, 0.5)])
def test_transforms(mode, scales):
    check_transforms("Resize", scaled(scales), {"mode": mode}, opset=13)


def test_a_scale_must_be_positive():
    inputs = scaled((0.0, 1.0))
    model = convert(node_model("Resize", inputs, opset=13))
    with pytest.raises(InvalidInputError, match="positive"):
        model.apply(model.params, inputs[0], inputs[2])


def integers(dtype, shape=(1, 2, 7, 9)):
    info = np.iinfo(dtype)
    return np.random.default_rng(0).integers(max(info.min, -1000), min(info.max, 1000), shape).astype(dtype)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_linear_values_of_integers_are_cut_off(dtype, coordinates):
    """Where the exact value is whole, the last bit of a float32 decides: two in a hundred may differ, by 1."""
    x, sizes = integers(dtype), np.int64([1, 2, 17, 13])
    proto = node_model(
        "Resize", [x, None, None, sizes], {"mode": "linear", "coordinate_transformation_mode": coordinates}, 19
    )
    (want,) = expected(proto, {"x0": x, "x3": sizes})
    off = np.abs(np.asarray(convert(proto).bind(x3=sizes)(x)).astype(int) - want)
    assert off.max() <= 1
    assert np.mean(off) < 0.02


def test_an_area_of_one_value_keeps_it():
    x = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None, None], (1, 256, 7, 9)).copy()
    scales = f32(1, 1, 17 / 7, 1.7)
    model = convert(node_model("Resize", [x, None, scales], {"mode": "linear"}, 19)).bind(x2=scales)
    y = np.asarray(model(x))
    np.testing.assert_array_equal(y, np.broadcast_to(x[:, :, :1, :1], y.shape))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_cubic_values_of_integers_stay_in_range(dtype):
    info, scales = np.iinfo(dtype), f32(1, 1, 1, 3)
    x = np.where(np.arange(12) % 6 < 3, info.min, info.max).astype(dtype).reshape(1, 1, 1, 12)
    wide = node_model("Resize", [x.astype(np.float32), None, scales], {"mode": "cubic"}, 19)
    (want,) = expected(wide, {"x0": x.astype(np.float32), "x2": scales})
    assert want.min() < info.min
    assert want.max() > info.max
    model = convert(node_model("Resize", [x, None, scales], {"mode": "cubic"}, 19)).bind(x2=scales)
    np.testing.assert_array_equal(model(x), np.clip(np.rint(want), info.min, info.max))


def test_a_length_is_computed_in_float32():
    x = IMAGE[..., :1].repeat(9, -1)
    check_node("Resize", [x, None, f32(1, 1, 1, 13 / 9)], {"mode": "nearest"}, opset=13)
