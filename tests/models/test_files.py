"""Bytes of model files: where in memory they lie, and which of them are hashed."""

import hashlib
import io

import jax
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidModelError, LimitExceededError
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models import files
from modeldiff_jax.models.files import (
    HashedStream,
    aligned,
    head_of,
    open_model,
    read_exactly,
    read_range,
    size_of,
    to_device,
)

DATA = np.random.default_rng(0).bytes(3 * 2**20 + 17)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 2**20 - 1, 2**20, len(DATA)])
def test_bytes_are_read_into_aligned_memory_that_nobody_may_write_to(size):
    array = read_exactly(io.BytesIO(DATA), size, "file")
    assert array.tobytes() == DATA[:size]
    assert array.ctypes.data % 64 == 0 or not size
    assert not array.flags.writeable


def test_ranges_and_heads():
    stream = io.BytesIO(DATA)
    assert read_range(stream, 1000, 50, "file").tobytes() == DATA[1000:1050]
    assert size_of(stream) == len(DATA)
    assert stream.tell() == 1050
    assert head_of(stream, 5) == DATA[:5]
    assert stream.tell() == 0


def test_an_early_end_is_an_error():
    with pytest.raises(InvalidModelError, match=r"10 of 11 bytes") as caught:
        read_exactly(io.BytesIO(DATA[:10]), 11, "file")
    assert caught.value.where == "file"


@pytest.mark.parametrize("sizes", [[len(DATA)], [1] * 100, [2**21, 5, 2**20], []], ids=len)
def test_the_hash_is_of_the_whole_stream_however_it_is_read(sizes):
    stream = HashedStream(io.BytesIO(DATA))
    position = 0
    for size in sizes:
        assert read_exactly(stream, size, "file").tobytes() == DATA[position : position + size]
        position += size
    assert stream.sha256() == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("size", [10, 2**21])
def test_a_hashed_stream_can_begin_anew(size):
    stream = HashedStream(io.BytesIO(DATA))
    stream.read(size)
    stream.seek(0)
    assert stream.read() == DATA
    assert stream.sha256() == hashlib.sha256(DATA).hexdigest()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="memory is shared with the CPU alone")
def test_a_cpu_device_uses_the_memory_that_was_read():
    array = read_exactly(io.BytesIO(DATA), 4000, "file").view(np.float32)
    assert to_device(array).unsafe_buffer_pointer() == array.ctypes.data


def test_more_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with (tmp_path / "hole").open("wb") as stream:
        stream.truncate(10**9)
    monkeypatch.setattr(files, "_physical_memory", lambda: 10**8)
    with (
        pytest.raises(LimitExceededError, match="1,000,000,000 bytes"),
        open_model(tmp_path / "hole", DEFAULT, "seed_bytes"),
    ):
        pytest.fail("opened")
    with pytest.raises(LimitExceededError, match="memory"):
        aligned(2**62)
    assert files._physical_memory() > 0
