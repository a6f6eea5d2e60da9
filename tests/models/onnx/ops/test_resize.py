"""Resize and Upsample against onnxruntime: modes, coordinates, scales and sizes, opsets."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

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
