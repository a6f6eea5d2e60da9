"""Array files: NumPy's values, bounds before anything is read, and files that change meanwhile."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models import array_file
from modeldiff_jax.models.array_file import is_npy, read_arrays

ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big-endian": np.arange(3, dtype=">i4"),
    "text": np.array(["a", "longer"]),
    "a number": np.array(3),
    "none": np.zeros((0, 5)),
    "records": np.zeros(2, [("x", "f4"), ("y", "i8")]),
    "empty strings": np.array(["", ""], "S1"),
}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_arrays_are_those_that_numpy_reads(tmp_path, array, version):
    with (tmp_path / "a").open("wb") as stream:
        np.lib.format.write_array(stream, array, version)
    assert is_npy((tmp_path / "a").read_bytes()[:8])
    result = read_arrays(tmp_path / "a", DEFAULT, "seed_bytes")[""]
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_those_that_numpy_reads(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    result = read_arrays(tmp_path / "a.npz", DEFAULT, "seed_bytes")
    assert result.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(result[name], array)


def header(text):
    padded = text.encode() + b" " * (-len(text) - 11 & 63) + b"\n"
    return b"\x93NUMPY\x01\0" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    "shape",
    ["(-4,)", "(-2, -2)", "(0, 2**70)", "(1180591620717411303424, 0)", "[4]", "(True,)", "(4.0,)", "None", "("],
)
def test_lying_shapes_are_refused(tmp_path, shape):
    data = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}") + bytes(16)
    (tmp_path / "a").write_bytes(data)
    try:
        result = read_arrays(tmp_path / "a", DEFAULT, "seed_bytes")[""]
    except (InvalidInputError, LimitExceededError):
        return
    np.testing.assert_array_equal(result, np.load(io.BytesIO(data)))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_while_it_is_read_is_an_error(tmp_path, monkeypatch, compressed):
    path = tmp_path / "a"
    path.write_bytes(npy(np.zeros(10**5)))
    if compressed:
        np.savez(path, a=np.zeros(10**5))
        path = tmp_path / "a.npz"
    real = array_file._header

    def cut(stream):
        result = real(stream)
        os.truncate(path, 1000)
        return result

    monkeypatch.setattr(array_file, "_header", cut)
    with pytest.raises(InvalidInputError, match="must not change while it is read"):
        read_arrays(path, DEFAULT, "seed_bytes")


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**3), st.integers(0, 255)), min_size=1, max_size=4),
    archive=st.booleans(),
)
def test_whatever_is_changed_only_our_errors_come_out(tmp_path_factory, changes, archive):
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(4.0)) if archive else np.save(stream, np.arange(4.0))
    data = bytearray(stream.getvalue())
    for start, byte in changes:
        data[start % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(data)
    try:
        arrays = read_arrays(path, Limits(seed_bytes=10**6), "seed_bytes")
    except (InvalidInputError, LimitExceededError):
        return
    assert sum(array.nbytes for array in arrays.values()) <= 10**6
