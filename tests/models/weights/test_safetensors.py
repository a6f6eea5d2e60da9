"""safetensors: values, and every way in which a header can lie."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, ModelDiffError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.weights import load_weights

NAMES = {
    "F32": np.float32,
    "F64": np.float64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("padding", [0, 1, 7], ids="padding {}".format)
def test_values_of_every_type(tmp_path, padding):
    arrays = {name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in NAMES.items()}
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        header[name] = entry(name, array.shape, position, position + array.nbytes)
        position += array.nbytes
    text = json.dumps(header).encode() + b" " * padding  # data need not be aligned
    file = written(tmp_path / "w.safetensors", text, b"".join(a.tobytes() for a in arrays.values()))
    result = load_weights(file)
    assert list(result) == list(arrays)
    for name, array in arrays.items():
        assert result[name].dtype == array.dtype
        assert not result[name].flags.writeable
        np.testing.assert_array_equal(result[name], array)


def test_scalars_and_empty_tensors(tmp_path):
    file = written(tmp_path / "w", {"s": entry(shape=(), end=4), "e": entry(shape=(0, 5), begin=4, end=4)}, bytes(4))
    assert [array.shape for array in load_weights(file).values()] == [(), (0, 5)]


LIES = {
    "no header": (b"{", b""),
    "not JSON": (b"{nothing}", b""),
    "half a surrogate": (b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', b""),
    "not UTF-8": (b'{"\xff": 1}', b""),
    "deep": (b'{"a":' + b"[" * 10**6, b""),
    "long number": (b'{"a":' + b"1" * 10**5 + b"}", b""),
    "a name twice": (b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "an entry of numbers": ({"a": 3}, b""),
    "a missing field": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "one field more": ({"a": {**entry(), "code": "x"}}, bytes(8)),
    "negative size": ({"a": entry(shape=(-2,))}, bytes(8)),
    "two negative sizes": ({"a": entry(shape=(-2, -1))}, bytes(8)),
    "size of a truth value": ({"a": entry(shape=(True, 2))}, bytes(8)),
    "size of a fraction": ({"a": entry(shape=(2.0,))}, bytes(8)),
    "size of text": ({"a": entry(shape=("2",))}, bytes(8)),
    "sizes beyond 64 bits": ({"a": entry(shape=(2**64, 0), end=0)}, b""),
    "negative offset": ({"a": entry(begin=-8, end=0)}, bytes(8)),
    "offsets reversed": ({"a": entry(begin=8, end=0)}, bytes(8)),
    "one offset": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8]}}, bytes(8)),
    "beyond the file": ({"a": entry(shape=(4,), end=16)}, bytes(8)),
    "offset of 2**62": ({"a": entry(begin=2**62, end=2**62 + 8)}, bytes(8)),
    "too few bytes": ({"a": entry(shape=(3,))}, bytes(8)),
    "too many bytes": ({"a": entry(shape=(1,))}, bytes(8)),
    "overlap": ({"a": entry(), "b": entry()}, bytes(8)),
    "gap": ({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)),
    "rest": ({"a": entry()}, bytes(9)),
    "65 axes": ({"a": entry(shape=(1,) * 65, end=4)}, bytes(4)),
}


@pytest.mark.parametrize(("header", "data"), LIES.values(), ids=LIES.keys())
def test_lies_are_refused(tmp_path, header, data):
    with pytest.raises(InvalidModelError) as caught:
        load_weights(written(tmp_path / "w.safetensors", header, data))
    assert str(tmp_path) in caught.value.where


def test_unknown_types_are_named(tmp_path):
    with pytest.raises(UnsupportedModelError, match="F6_E2M3"):
        load_weights(written(tmp_path / "w", {"a": entry("F6_E2M3")}, bytes(8)))


@pytest.mark.parametrize(
    ("limits", "header", "data", "named"),
    [
        (Limits(header_bytes=50), {"a": entry()}, bytes(8), "header_bytes"),
        (Limits(tensor_elements=1), {"a": entry()}, bytes(8), "tensor_elements"),
        (Limits(tensors=1), {"a": entry(), "b": entry(begin=8, end=16)}, bytes(16), "tensors"),
        (Limits(external_bytes=50), {"a": entry()}, bytes(8), "external_bytes"),
        (Limits(), {"a": entry(shape=(2**20, 2**20), end=2**42)}, b"", "tensor_elements"),
    ],
)
def test_limits(tmp_path, limits, header, data, named):
    with pytest.raises(LimitExceededError, match=named):
        load_weights(written(tmp_path / "w", header, data), limits=limits)


def test_truncated_anywhere(tmp_path):
    whole = written(tmp_path / "w", {"a": entry()}, bytes(8)).read_bytes()
    for length in range(1, len(whole)):
        (tmp_path / "w").write_bytes(whole[:length])
        with pytest.raises(ModelDiffError):
            load_weights(tmp_path / "w")


def test_a_header_longer_than_the_file(tmp_path):
    (tmp_path / "w").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ModelDiffError):
        load_weights(tmp_path / "w")
