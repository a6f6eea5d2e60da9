"""Normalisation against onnxruntime."""

import numpy as np
import pytest

from modeldiff_jax.errors import UnsupportedModelError
from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

RNG = np.random.default_rng(0)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


IMAGE, SCALE, BIAS, MEAN = f32(2, 6, 4, 5), f32(6), f32(6), f32(6)
VARIANCE = np.abs(f32(6)) + np.float32(0.1)
STATISTICS = [SCALE, BIAS, MEAN, VARIANCE]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("x", [IMAGE, IMAGE[..., 0, 0], IMAGE[..., 0]], ids=["4d", "2d", "3d"])
def test_batch_normalization(x, opset):
    check_node("BatchNormalization", [x, *STATISTICS], {"epsilon": 1e-3}, opset)


def test_batch_normalization_before_opset_7():
    column = [v[:, None, None] for v in STATISTICS]
    want = (IMAGE - column[2]) / np.sqrt(column[3] + 1e-5) * column[0] + column[1]
    check_node("BatchNormalization", [IMAGE, *STATISTICS], {"is_test": 1}, 6, want=[want.astype(np.float32)])


def test_batch_normalization_in_training_mode():
    check_node("BatchNormalization", [IMAGE, *STATISTICS], {"training_mode": 1}, 15, n_outputs=3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [6, 22])
def test_instance_normalization(opset):
    check_node("InstanceNormalization", [IMAGE, SCALE, BIAS], {}, opset, atol=1e-5)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (5,)), (2, (4, 5)), (1, (6, 4, 5))])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_normalization(axis, shape, biased):
    inputs = [IMAGE, f32(*shape)] + ([f32(*shape)] if biased else [])
    check_node("LayerNormalization", inputs, {"axis": axis}, 17, n_outputs=3, atol=1e-5)


def test_layer_normalization_of_small_floats():
    inputs = [v.astype(np.float16) for v in (IMAGE, f32(5), f32(5))]
    check_node("LayerNormalization", inputs, {}, 17, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_normalization(groups):
    grouped = IMAGE.reshape(2, groups, -1).astype(np.float64)
    y = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    y = y.reshape(IMAGE.shape).astype(np.float32)
    per_group = f32(groups), f32(groups)
    wide = [np.repeat(v, 6 // groups)[:, None, None] for v in per_group]
    attrs = {"num_groups": groups}
    check_node("GroupNormalization", [IMAGE, *per_group], attrs, 18, want=[y * wide[0] + wide[1]], atol=1e-5)
    want = y * SCALE[:, None, None] + BIAS[:, None, None]
    check_node("GroupNormalization", [IMAGE, SCALE, BIAS], attrs, 21, want=[want], atol=1e-5)


def test_rms_normalization():
    scale = f32(5)
    want = IMAGE / np.sqrt((IMAGE**2).mean(-1, keepdims=True) + 1e-5) * scale
    check_node("RMSNormalization", [IMAGE, scale], {}, 23, want=[want])


def test_mean_variance_normalization():
    check_node("MeanVarianceNormalization", [IMAGE], {}, 13, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p):
    x = IMAGE.copy()
    x[0, :, 0, 0] = 0
    check_node("LpNormalization", [x], {"axis": 1, "p": p}, 1)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size):
    check_node("LRN", [IMAGE], {"size": size, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, 13)


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_drops_nothing(opset):
    check_node("Dropout", [IMAGE], {}, opset, n_outputs=1)


def test_dropout_in_training_mode_is_refused():
    inputs = [IMAGE, np.float32(0.5), np.array(True)]
    model = convert(node_model("Dropout", inputs, opset=13))
    with pytest.raises(UnsupportedModelError, match="inference"):
        model.apply(model.params, *inputs)


@pytest.mark.parametrize(("op", "inputs", "attrs", "opset"), [
    ("BatchNormalization", [IMAGE, SCALE, BIAS, MEAN, VARIANCE + 2], {}, 15), ("LRN", [IMAGE], {"size": 3}, 13),
    ("InstanceNormalization", [IMAGE, SCALE, BIAS], {}, 6), ("LayerNormalization", [IMAGE, f32(5), f32(5)], {}, 17),
    ("GroupNormalization", [IMAGE, SCALE, BIAS], {"num_groups": 2}, 21), ("RMSNormalization", [IMAGE, f32(5)], {}, 23),
    ("LpNormalization", [IMAGE], {"axis": 1}, 1), ("Dropout", [IMAGE], {}, 13),
])  # fmt: skip
def test_transforms(op, inputs, attrs, opset):
    if op == "BatchNormalization":  # flipped statistics must stay positive
        inputs = [*inputs[:4], np.float32([3, 2, 4, 5, 2, 3])]
    check_transforms(op, inputs, attrs, opset)
