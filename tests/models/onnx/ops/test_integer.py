"""Convolutions of integers are exact, whatever the number of products and however they are cut up."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node


def integers(shape, dtype, seed):
    """Numbers at both ends of the type's range, whose products are the largest."""
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).choice([info.min, info.min + 1, info.max], shape).astype(dtype)


@pytest.mark.parametrize(
    ("channels", "taps", "attributes"),
    [
        (4, (3, 3), {}),
        (100, (3, 3), {"strides": [2, 2], "pads": [1, 0, 1, 2]}),
        (2, (17, 17), {}),
        (12, (3, 3), {"group": 3, "auto_pad": "SAME_UPPER"}),
    ],
    ids=["few", "more channels than float32 holds", "more taps than float32 holds", "groups"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_conv_integer_is_exact(channels, taps, attributes, dtype):
    x = integers((1, channels, 18, 18), np.uint8, 0)
    w = integers((6, channels // attributes.get("group", 1), *taps), dtype, 1)
    xz, wz = np.asarray(3, np.uint8), np.asarray(np.iinfo(dtype).min, dtype)
    terms = [x, w, xz, wz]
    check_node("ConvInteger", terms, attributes, want=[reference(*terms, **attributes)])


def reference(x, w, xz, wz, group=1, strides=(1, 1), pads=(0, 0, 0, 0), auto_pad=""):
    """In int64, tap by tap."""
    x, w = x.astype(np.int64) - int(xz), w.astype(np.int64) - int(wz)
    if auto_pad:
        pads = (1, 1, 1, 1)
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    out = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], w.shape[2:], strides, strict=True)]
    total = np.zeros((1, group, w.shape[0] // group, *out), np.int64)
    x, w = x.reshape(1, group, -1, *x.shape[2:]), w.reshape(group, -1, *w.shape[1:])
    for i, j in np.ndindex(w.shape[3:]):
        rows = slice(i, i + strides[0] * (out[0] - 1) + 1, strides[0])
        columns = slice(j, j + strides[1] * (out[1] - 1) + 1, strides[1])
        total += np.einsum("ngchw,goc->ngohw", x[:, :, :, rows, columns], w[..., i, j])
    return total.reshape(1, -1, *out).astype(np.int32)


def test_qlinear_conv_is_onnxruntimes():
    """With filters of 7 bits: on some processors onnxruntime lets the sums of longer ones overflow 16 bits."""
    rng = np.random.default_rng(2)
    x, w = rng.integers(0, 255, (2, 5, 8, 8)).astype(np.uint8), rng.integers(-64, 64, (6, 5, 3, 3)).astype(np.int8)
    scale = rng.uniform(0.001, 0.01, 6).astype(np.float32)
    b = rng.integers(-1000, 1000, 6).astype(np.int32)
    check_node(
        "QLinearConv",
        [x, np.float32(0.02), np.uint8(120), w, scale, np.zeros(6, np.int8), np.float32(0.05), np.uint8(100), b],
        {"pads": [1, 1, 1, 1]},
    )
