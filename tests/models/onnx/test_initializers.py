"""Weights are split from a file before protobuf parses it, and nothing else changes."""

import hashlib
import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.models.files import HashedStream
from modeldiff_jax.models.load import load
from modeldiff_jax.models.onnx import initializers
from modeldiff_jax.models.onnx.initializers import SMALLEST, split_initializers
from modeldiff_jax.models.onnx.reader import read_graph
from tests.fuzz.seeds import onnx_files
from tests.fuzz.targets import same_when_put_back
from tests.helpers.onnx_graphs import model, node, tensor, value

RNG = np.random.default_rng(0)


def split(data):
    """The two parts of a serialised model in memory."""
    return split_initializers(io.BytesIO(data), len(data), "test")


def one_weight(array, data_type=None):
    """y = x + w with `w` stored raw; of another element type where `data_type` says so."""
    w = tensor("w", array)
    if data_type is not None:
        w.data_type = data_type
    return model([node("Add", "x w", "y")], initializers=[w])


@pytest.mark.parametrize("data", onnx_files())
def test_both_parts_make_the_model(data):
    assert same_when_put_back(data)
    for end in range(len(data)):
        same_when_put_back(data[:end])


def test_every_byte_changed():
    data = onnx_files()[0]
    for i in range(len(data)):
        for byte in (0, 0x7F, 0x80, 0xFF):
            same_when_put_back(data[:i] + bytes([byte]) + data[i + 1 :])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"])
def test_large_weights_are_read_into_memory_that_a_device_can_use(dtype):
    array = RNG.integers(0, 2, (300, 300)).astype(dtype)
    data = one_weight(array).SerializeToString()
    assert len(split(data).message) < 200
    result = read_graph(data).constants["w"]
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert result.ctypes.data % 64 == 0
    assert not result.flags.writeable


@pytest.mark.parametrize("data", [*onnx_files(), one_weight(np.zeros(SMALLEST, np.float32)).SerializeToString()])
@pytest.mark.parametrize("damage", [b"", b"\xff"], ids=["plain", "not plain"])
def test_the_hash_is_of_the_whole_file(data, damage):
    stream = HashedStream(io.BytesIO(data + damage))
    split_initializers(stream, len(data + damage), "test")
    assert stream.sha256() == hashlib.sha256(data + damage).hexdigest()


def test_packed_types_are_unpacked():
    array = RNG.integers(-8, 8, 2 * SMALLEST).astype(onnx.helper.tensor_dtype_to_np_dtype(TensorProto.INT4))
    proto = one_weight(array)
    assert split(proto.SerializeToString()).raw_data
    np.testing.assert_array_equal(read_graph(proto.SerializeToString()).constants["w"], array)


@pytest.mark.parametrize("change", [lambda w: w.dims.append(2), lambda w: w.dims.append(-1)])
def test_data_must_fill_their_shape(change):
    proto = one_weight(np.zeros((300, 300), np.float32))
    change(proto.graph.initializer[0])
    with pytest.raises(InvalidModelError):
        read_graph(proto.SerializeToString())


def test_raw_data_written_twice_are_left_to_protobuf():
    """Which takes the last."""
    first, last = (np.full(2**15, i, np.float32) for i in (1, 2))
    proto = model([node("Add", "x w", "y")], initializers=[tensor("w", first), tensor("v", first)])
    repeated = TensorProto(raw_data=last.tobytes()).SerializeToString()
    whole = proto.graph.initializer[0].SerializeToString() + repeated
    proto.graph.ClearField("initializer")
    header = b"\x2a" + initializers._varint(len(whole))
    graph = proto.graph.SerializeToString() + header + whole
    proto.ClearField("graph")
    data = proto.SerializeToString() + b"\x3a" + initializers._varint(len(graph)) + graph
    assert split(data).raw_data == {}
    np.testing.assert_array_equal(read_graph(data).constants["w"], last)


def test_tiny_fields_without_end_are_left_to_protobuf(monkeypatch):
    monkeypatch.setattr(initializers, "_FIELDS", 100)
    data = one_weight(np.zeros((300, 300), np.float32)).SerializeToString() + b"\x28\x01" * 100
    assert split(data).raw_data == {}


def test_a_file_in_place(tmp_path):
    array = RNG.standard_normal((300, 300)).astype(np.float32)
    proto = model(
        [node("MatMul", "x w", "y")],
        inputs=[value("x", ("n", 300))],
        outputs=[value("y", ("n", 300))],
        initializers=[tensor("odd", np.zeros(3, np.int8)), tensor("w", array)],
    )
    x = RNG.standard_normal((2, 300)).astype(np.float32)
    for name in ("m", "mo", "mod", "mode"):  # names of all lengths: the data begin at any address
        proto.graph.name = name
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        loaded = load(tmp_path / "m.onnx")
        (tmp_path / "m.onnx").write_bytes(b"")  # the model no longer needs it
        np.testing.assert_allclose(loaded(x), x @ array, rtol=1e-4, atol=1e-4)
