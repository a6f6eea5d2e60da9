"""Derivatives and `vmap` of operators whose values ONNX's own suite checks."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_transforms

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


IMAGE, GRID = floats(1, 2, 5, 6), RNG.uniform(-1.2, 1.2, (1, 3, 4, 2)).astype(np.float32)
ROIS = np.asarray([[0.3, 0.4, 4.1, 3.7], [1.2, 0.1, 3.3, 4.4]], np.float32)
LABELS = np.asarray([[0, 2, 1]])
HEADS = {"q_num_heads": 4, "kv_num_heads": 2}


@pytest.mark.long
@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "opset"),
    [
        ("GridSample", [IMAGE, GRID], {}, 20),
        ("GridSample", [IMAGE, GRID], {"mode": "cubic", "padding_mode": "border"}, 20),
        ("GridSample", [IMAGE, GRID], {"padding_mode": "reflection", "align_corners": 1}, 20),
        ("AffineGrid", [floats(1, 2, 3), np.asarray([1, 2, 3, 4])], {}, 20),
        ("RoiAlign", [floats(2, 2, 6, 6), ROIS, np.asarray([0, 1])],
         {"output_height": 2, "output_width": 3, "sampling_ratio": 2}, 16),
        ("DeformConv",
         [floats(1, 4, 5, 5), floats(4, 2, 2, 2), 0.3 * floats(1, 16, 4, 4), floats(4), floats(1, 8, 4, 4)],
         {"group": 2, "offset_group": 2}, 19),
        ("CenterCropPad", [IMAGE, np.asarray([3, 9])], {"axes": [2, 3]}, 18),
        ("Col2Im", [floats(1, 8, 12), np.asarray([4, 5]), np.asarray([2, 2])], {}, 18),
        ("DFT", [floats(1, 6, 2), np.asarray(8)], {}, 20),
        ("STFT", [floats(1, 16, 1), np.asarray(4), floats(8)], {}, 17),
        ("SoftmaxCrossEntropyLoss", [floats(1, 4, 3), LABELS, np.abs(floats(4))], {"ignore_index": 1}, 13),
        ("NegativeLogLikelihoodLoss", [floats(1, 4, 3), LABELS], {"reduction": "sum"}, 13),
        ("RotaryEmbedding", [floats(1, 2, 3, 4), floats(1, 3, 2), floats(1, 3, 2)], {"interleaved": 1}, 23),
        ("Attention", [floats(1, 3, 8), floats(1, 3, 4), floats(1, 3, 4)], {"is_causal": 1, **HEADS}, 23),
        # the derivative for a query without keys is zero
        ("Attention", [floats(1, 1, 2, 4), floats(1, 1, 3, 4), floats(1, 1, 3, 4),
                       np.asarray([[True, False, True], [False] * 3])[None, None]], {"softcap": 2.0}, 23),
        ("LinearAttention", [floats(1, 3, 8), floats(1, 3, 4), floats(1, 3, 4), None, floats(1, 3, 2), floats(1, 3, 2)],
         HEADS, 27),
        ("CausalConvWithState", [floats(1, 2, 5), floats(2, 1, 3), floats(2)], {"activation": "silu"}, 27),
        ("TensorScatter", [floats(1, 1, 4, 2), floats(1, 1, 2, 2), np.asarray([1])], {}, 24),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_derivatives_and_vmap(op, inputs, attributes, opset):
    check_transforms(op, inputs, attributes, opset)
