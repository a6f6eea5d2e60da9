"""Sizes that a model's values ask for are refused before anything of that size is made."""

import io

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from modeldiff_jax.errors import LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx import backend

X = np.ones((1, 1, 4, 4), np.float32)
HUGE = 2**40
ROI = np.asarray([[0, 0, 1e9, 1e9]], np.float32)


def text(*values):
    return np.asarray(values, object)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("CenterCropPad", [X, np.asarray([HUGE])], {"axes": [2]}),
        ("Col2Im", [np.ones((1, 4, 4), np.float32), np.asarray([HUGE, 2]), np.asarray([2, 2])], {}),
        ("AffineGrid", [np.ones((1, 2, 3), np.float32), np.asarray([1, 1, HUGE, HUGE])], {}),
        ("RoiAlign", [X, ROI, np.asarray([0])], {}),
        ("RoiAlign", [X, ROI, np.asarray([0])], {"sampling_ratio": 2**30}),
        ("MaxRoiPool", [X, np.zeros((1, 5), np.float32)], {"pooled_shape": [HUGE, 1]}),
        ("DFT", [np.ones((1, 4, 1), np.float32), np.asarray(HUGE)], {}),
        ("STFT", [np.ones((1, 2**16, 1), np.float32), np.asarray(1), None, np.asarray(2**15)], {}),
        ("HannWindow", [np.asarray(HUGE)], {}),
        ("MelWeightMatrix", [np.asarray(v) for v in (HUGE, 512, 8000, 0.0, 4000.0)], {}),
        ("RandomNormal", [], {"shape": [HUGE]}),
        ("RandomUniform", [], {"shape": [2**20, 2**20]}),
        ("Multinomial", [np.ones((1, 4), np.float32)], {"sample_size": 2**30}),
        ("TfIdfVectorizer", [np.asarray([1])],
         {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0],
          "ngram_indexes": [HUGE], "pool_int64s": [1]}),
        ("RegexFullMatch", [text("a")], {"pattern": r"(?:\pL{500}){2}" * 20}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_sizes_out_of_a_model_are_bounded(op, inputs, attributes):
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    with pytest.raises(LimitExceededError):
        backend.run_node(helper.make_node(op, names, ["y"], **attributes), [v for v in inputs if v is not None])


def test_images_are_bounded_before_they_are_decoded():
    encoded = io.BytesIO()
    Image.new("L", (300, 200)).save(encoded, "PNG")
    node = helper.make_node("ImageDecoder", ["x"], ["y"])
    data = np.frombuffer(encoded.getvalue(), np.uint8)
    assert backend.run_node(node, [data])[0].shape == (200, 300, 3)
    with pytest.raises(LimitExceededError, match="image_pixels"):
        backend.run_node(node, [data], limits=Limits(image_pixels=59_999))
