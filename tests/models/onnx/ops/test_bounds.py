"""Sizes that a model's values ask for are refused before anything of that size is made."""

import io
import time

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


IMAGE = np.ones((1, 1, 8, 8), np.float32)
FILTER = np.ones((1, 1, 3, 3), np.float32)
INTEGERS = np.ones((1, 1, 8), np.uint8)
AXES = 12  # of space


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "limit"),
    [
        ("Conv", [IMAGE, FILTER], {"pads": [2**20] * 4}, "made_elements"),
        ("Conv", [IMAGE, FILTER], {"pads": [2**20] * 4, "strides": [2**19] * 2}, "made_elements"),
        ("Conv", [IMAGE, FILTER], {"pads": [HUGE] * 4, "dilations": [HUGE] * 2}, "made_elements"),
        ("Conv", [IMAGE, FILTER], {"auto_pad": "SAME_UPPER", "dilations": [2**20] * 2}, "made_elements"),
        ("ConvInteger", [INTEGERS, INTEGERS[..., :3]], {"pads": [HUGE] * 2, "dilations": [HUGE]}, "made_elements"),
        ("ConvTranspose", [IMAGE, FILTER], {"strides": [2**20] * 2}, "tensor_elements"),
        ("ConvTranspose", [IMAGE, FILTER], {"strides": [2**12] * 2, "pads": [14_000] * 4}, "made_elements"),
        ("ConvTranspose", [IMAGE, FILTER], {"dilations": [2**20] * 2}, "tensor_elements"),
        ("ConvTranspose", [IMAGE, FILTER], {"output_padding": [2**20] * 2}, "made_elements"),
        ("ConvTranspose", [IMAGE, FILTER], {"output_shape": [2**20] * 2}, "made_elements"),
        ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "pads": [2**20] * 4}, "made_elements"),
        ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "dilations": [2**20] * 2},
         "made_elements"),
        ("AveragePool", [IMAGE], {"kernel_shape": [2**13] * 2, "pads": [2**13 - 1] * 4}, "made_elements"),
        ("LpPool", [IMAGE], {"kernel_shape": [HUGE] * 2, "pads": [HUGE] * 4}, "made_elements"),
        ("MaxUnpool", [IMAGE, np.zeros(IMAGE.shape, np.int64)], {"kernel_shape": [2, 2], "strides": [HUGE] * 2},
         "made_elements"),
        ("MaxUnpool", [IMAGE, np.zeros(IMAGE.shape, np.int64), np.asarray([1, 1, 2**20, 2**20])],
         {"kernel_shape": [2, 2], "strides": [2, 2]}, "made_elements"),
        ("Pad", [IMAGE, np.asarray([0, 0, 0, HUGE, 0, 0, 0, -HUGE])], {}, "made_elements"),
        ("LRN", [np.ones((1, 2**10, 1), np.float32)], {"size": 2**10}, "written_out"),
        ("GridSample", [np.ones((1,) * (AXES + 2), np.float32), np.zeros((1,) * (AXES + 1) + (AXES,), np.float32)],
         {"mode": "linear"}, "written_out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_windows_and_pads_are_bounded(op, inputs, attributes, limit):
    names = [f"x{i}" for i in range(len(inputs))]
    start = time.process_time()
    with pytest.raises(LimitExceededError, match=limit):
        backend.run_node(helper.make_node(op, names, ["y"], **attributes), inputs)
    assert time.process_time() - start < 1


POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "limit", "bound"),
    [
        ("Conv", [IMAGE, FILTER], {"pads": [1, 1, 1, 1]}, "window_reads", 8 * 8 * 9),
        ("ConvTranspose", [IMAGE, FILTER], {}, "window_reads", 10 * 10 * 9),
        ("MaxPool", [IMAGE], POOL, "window_reads", 8 * 8 * 9),
        ("LRN", [IMAGE], {"size": 5}, "window_reads", 64 * 3),  # one channel, and zeros beside it
        ("Conv", [IMAGE, FILTER], {"pads": [1, 1, 1, 1]}, "made_elements", 10 * 10 - 8 * 8),
        ("AveragePool", [IMAGE], POOL, "made_elements", 10 * 10 - 8 * 8),
        ("ConvTranspose", [IMAGE, FILTER], {"pads": [1, 1, 1, 1]}, "made_elements", 10 * 10 - 8 * 8),
        ("Conv", [IMAGE, FILTER], {"pads": [1, 1, 1, 1]}, "tensor_elements", 10 * 10),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bounds_on_windows_and_pads_are_exact(op, inputs, attributes, limit, bound):
    node = helper.make_node(op, [f"x{i}" for i in range(len(inputs))], ["y"], **attributes)
    backend.run_node(node, inputs, limits=Limits(**{limit: bound}))
    with pytest.raises(LimitExceededError, match=limit):
        backend.run_node(node, inputs, limits=Limits(**{limit: bound - 1}))


def test_images_are_bounded_before_they_are_decoded():
    encoded = io.BytesIO()
    Image.new("L", (300, 200)).save(encoded, "PNG")
    node = helper.make_node("ImageDecoder", ["x"], ["y"])
    data = np.frombuffer(encoded.getvalue(), np.uint8)
    assert backend.run_node(node, [data])[0].shape == (200, 300, 3)
    with pytest.raises(LimitExceededError, match="image_pixels"):
        backend.run_node(node, [data], limits=Limits(image_pixels=59_999))
