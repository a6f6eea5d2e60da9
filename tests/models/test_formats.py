"""Formats are recognised by content: the head of a file, and its size."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from modeldiff_jax.models.formats import FORMATS, HEAD, recognise
from tests.helpers.onnx_graphs import model, node, tensor, value
from tests.model_packages import MODELS


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", b"1")
    return stream.getvalue()


def onnx_file(weights=0, **fields):
    proto = model(
        [node("Relu", "x", "y")],
        [value("x", (2, 3))],
        initializers=[tensor("w", np.zeros(weights, np.float32))] if weights else [],
    )
    for name, text in fields.items():
        setattr(proto, name, text)
    return proto.SerializeToString()


def name_of(data):
    result = recognise(data[:HEAD], len(data))
    return None if result is None else result.name


@pytest.mark.parametrize(
    "data",
    [
        onnx_file(),
        onnx_file(weights=10_000),
        onnx_file(producer_name="p" * 2 * HEAD),
        onnx_file(doc_string="PK\x03\x04", producer_name="TFL3"),
    ],
    ids=["small", "larger than the head", "a long first field", "words of others"],
)
def test_onnx_is_recognised(data):
    assert name_of(data) == "onnx"


def test_a_graph_cut_short_is_still_onnx():
    whole = onnx_file(weights=10_000)
    assert name_of(whole[: HEAD // 2]) == name_of(whole[: 2 * HEAD]) == "onnx"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(), "zip"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "TFLite"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        ((2).to_bytes(8, "little") + b"{}", "safetensors"),
    ],
)
def test_files_that_hold_no_readable_model_are_named(data, words):
    assert words in name_of(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", bytes(100), b"# Models\n", b'{"a": 1}', b"\x93NUMPY\x01\0" + bytes(50), b"\x7fELF\x02", b"GIF89a"],
)
def test_other_files_are_of_no_format(data):
    assert name_of(data) is None


def test_random_bytes_are_of_no_format():
    rng = np.random.default_rng(0)
    result = [name_of(rng.bytes(int(rng.integers(1, 300)))) for _ in range(5000)]
    assert sum(name is not None for name in result) <= 20  # a length that fits and a brace, or one valid field


def test_names_differ():
    assert len({known.name for known in FORMATS}) == len(FORMATS)


@pytest.mark.packages
@pytest.mark.parametrize("file", [file for file in MODELS if file.path.suffix == ".onnx"], ids=lambda file: file.name)
def test_real_files_are_recognised(file):
    if not file.present:
        pytest.skip("not on disk: python tests/model_packages.py")
    assert name_of(file.path.read_bytes()) == "onnx"
