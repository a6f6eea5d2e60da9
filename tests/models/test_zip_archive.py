"""Zip archives: entries as Python's `zipfile` reads them, and bounds on what hostile ones may ask for."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldiff_jax.errors import (
    InvalidModelError,
    LimitExceededError,
    ModelDiffError,
    UnsafeModelError,
    UnsupportedModelError,
)
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.zip_archive import LONGEST_NAME, ZipArchive, is_zip

RANDOM, EVEN = np.random.default_rng(0).bytes(3_000_000), b"even " * 600_000
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def opened(data, limits=DEFAULT):
    return ZipArchive(io.BytesIO(data), limits, "seed_bytes", "a.zip")


def made(entries, method=DEFLATED, stream=None, **options):
    """An archive of (name, bytes) pairs."""
    stream = stream or io.BytesIO()
    with zipfile.ZipFile(stream, "w", method, **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


class Unseekable(io.BytesIO):
    """Makes `zipfile` write sizes after the data, as streams of archives do."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation

    def tell(self):
        raise io.UnsupportedOperation


def zip64():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", DEFLATED) as archive, archive.open("large", "w", force_zip64=True) as entry:
        entry.write(EVEN)
    return stream.getvalue()


SOUND = {
    "stored": made([("a", RANDOM), ("b/c", b"")], STORED),
    "deflated": made([("a", RANDOM), ("even", EVEN), ("none", b""), ("one", b"x")]),
    "in a folder": made([("folder/", b""), ("folder/a", b"x")]),
    "names of many scripts": made([("模型/θ.bin", b"x"), ("\u202egnp.exe", b"y")]),
    "after other bytes": b"\0\0" + made([("a", RANDOM)], STORED),
    "with a comment": made([("a", b"x")])[:-2] + struct.pack("<H", 7) + b"comment",
    "sizes after the data": made([("a", RANDOM), ("even", EVEN)], stream=Unseekable()),
    "zip64": zip64(),
    "no entries": made([]),
}


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND)
def test_entries_are_those_that_zipfile_reads(data):
    archive = opened(data)
    with zipfile.ZipFile(io.BytesIO(data)) as oracle:
        files = [info for info in oracle.infolist() if not info.filename.endswith("/")]
        assert [(e.name, e.size) for e in archive.entries] == [(info.filename, info.file_size) for info in files]
        for entry, info in zip(archive.entries, files, strict=True):
            content = oracle.read(info)
            assert archive.read(entry).tobytes() == content
            for first in (0, 1, 1000, 2**21, len(content), 10**9):
                assert archive.read(entry, first).tobytes() == content[:first]


def test_the_first_bytes_tell_an_archive():
    assert is_zip(SOUND["stored"])
    assert not is_zip(SOUND["after other bytes"])


def test_read_entries_are_aligned_and_read_only():
    archive = opened(SOUND["deflated"])
    for entry in archive.entries:
        array = archive.read(entry)
        assert array.ctypes.data % 64 == 0 or not array.size
        assert not array.flags.writeable


# Hostile archives


def patched(data, position, form, *values):
    """Bytes with some of them written over."""
    changed = bytearray(data)
    struct.pack_into(form, changed, position, *values)
    return bytes(changed)


def directory_at(data):
    return data.index(b"PK\x01\x02")


def twice(name="a"):
    with pytest.warns(UserWarning, match="Duplicate"):
        return made([(name, b"one"), (name, b"two")])


def overlapping():
    """Two directory entries for one local header: each unpacks the same bytes."""
    data = made([("a", EVEN)])
    position, end = directory_at(data), data.index(b"PK\x05\x06")
    entry = data[position:end]
    tail = data[:position] + entry * 2 + data[end:]
    end += len(entry)
    return patched(tail, end + 8, "<HHI", 2, 2, 2 * len(entry))


def quoting():
    """An entry whose data reach over the next entry's header."""
    data = made([("a", b"x" * 100), ("b", b"y" * 100)], STORED)
    return patched(patched(data, 18, "<II", 150, 150), directory_at(data) + 20, "<II", 150, 150)


ONE, ONE_STORED = made([("a", EVEN)]), made([("a", RANDOM)], STORED)
SIZE, PACKED_SIZE = 24, 20  # where in a directory entry
HOSTILE = {
    "shared bytes": (overlapping(), UnsafeModelError),
    "an entry within another": (quoting(), UnsafeModelError),
    "more than it unpacks to": (
        patched(ONE, directory_at(ONE) + SIZE, "<I", len(EVEN) + 1),
        InvalidModelError,
    ),
    "less than it unpacks to": (
        patched(ONE, directory_at(ONE) + SIZE, "<I", len(EVEN) - 1),
        InvalidModelError,
    ),
    "nothing, but it unpacks": (patched(ONE, directory_at(ONE) + SIZE, "<I", 0), InvalidModelError),
    "stored in two sizes": (
        patched(ONE_STORED, directory_at(ONE_STORED) + SIZE, "<I", len(RANDOM) - 1),
        InvalidModelError,
    ),
    "too short": (patched(ONE, directory_at(ONE) + PACKED_SIZE, "<I", 10), InvalidModelError),
    "another checksum": (patched(ONE, directory_at(ONE) + 16, "<I", 1), InvalidModelError),
    "damaged": (patched(ONE, 40, "<I", 0xFFFFFFFF), InvalidModelError),
    "another name in its own header": (patched(ONE, 30, "<c", b"b"), InvalidModelError),
    "another method in its own header": (patched(ONE, 8, "<H", 0), InvalidModelError),
    "no header of its own": (patched(ONE, 0, "<I", 0), InvalidModelError),
    "a longer extra field than there is room": (patched(ONE, 28, "<H", 60_000), InvalidModelError),
    "encrypted": (patched(ONE, directory_at(ONE) + 8, "<H", 1), UnsupportedModelError),
    "an unknown method": (patched(ONE, directory_at(ONE) + 10, "<H", 99), UnsupportedModelError),
    "bzip2": (made([("a", EVEN)], zipfile.ZIP_BZIP2), UnsupportedModelError),
    "lzma": (made([("a", EVEN)], zipfile.ZIP_LZMA), UnsupportedModelError),
    "before its start": (patched(ONE[5:], directory_at(ONE) - 5 + 42, "<I", 2), InvalidModelError),
    "a name too long": (made([("n" * (LONGEST_NAME + 1), b"")]), InvalidModelError),
    "no archive": (b"PK\x03\x04" + bytes(100), InvalidModelError),
    "nothing": (b"", InvalidModelError),
}


@pytest.mark.parametrize(("data", "error"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused(data, error):
    with pytest.raises(ModelDiffError) as caught:
        [archive.read(entry) for archive in [opened(data)] for entry in archive.entries]
    assert type(caught.value) is error, repr(caught.value)
    assert "a.zip" in caught.value.where
    assert caught.value.got


def test_a_name_twice_is_refused_where_names_count():
    archive = opened(twice())
    assert len(archive.entries) == 2
    with pytest.raises(InvalidModelError, match="`a` twice"):
        _ = archive.by_name


def test_a_checksum_may_be_left_out():
    data = patched(ONE, directory_at(ONE) + 16, "<I", 0)
    archive = opened(data)
    assert archive.read(archive.entries[0], check_crc=False).tobytes() == EVEN


def lying(ratio):
    """A stored entry that declares to be deflated and to unpack to `ratio` times the archive."""
    data = made([("a", b"x" * 100)], STORED)
    position = directory_at(data)
    return patched(data, position + SIZE, "<I", ratio * len(data))


@pytest.mark.parametrize(
    ("data", "limits", "named"),
    [
        (made([(str(i), b"") for i in range(11)]), Limits(archive_entries=10), "archive_entries"),
        (made([("a", EVEN)]), Limits(seed_bytes=len(EVEN) - 1), "seed_bytes"),
        (made([(str(i), EVEN[:1000]) for i in range(11)]), Limits(seed_bytes=10_999), "seed_bytes"),
        (made([("a", EVEN)]), Limits(archive_ratio=100), "archive_ratio"),
        (lying(1033), Limits(), "archive_ratio"),
        (made([("n" * 900 + str(i), b"") for i in range(100)]), Limits(header_bytes=80_000), "header_bytes"),
    ],
    ids=["entries", "one large entry", "many entries", "ratio", "a ratio no deflate reaches", "directory"],
)
def test_limits(data, limits, named):
    with pytest.raises(LimitExceededError, match=named):
        opened(data, limits)


def test_zeros_pass_the_default_ratio():
    data = made([("a", bytes(2**26))], compresslevel=9)
    assert len(data) < 2**26 / 1000
    archive = opened(data)
    assert archive.read(archive.entries[0], 5).tobytes() == bytes(5)


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_truncated_anywhere(method):
    data = made([("a", b"content" * 9), ("b", b"")], method)
    for length in range(len(data)):
        with pytest.raises(ModelDiffError):
            opened(data[:length])


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["stored", "in a folder", "with a comment", "names of many scripts"]),
    changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_whatever_is_changed_entries_are_whole_or_refused(name, changes):
    data = bytearray({**SOUND, "stored": made([("a", RANDOM[:300]), ("b", EVEN[:300])])}[name])
    for position, byte in changes:
        data[-1 - position % len(data)] = byte
    try:
        archive = opened(bytes(data), Limits(seed_bytes=10**6))
        for entry in archive.entries:
            content = archive.read(entry).tobytes()
            assert (len(content), zlib.crc32(content)) == (entry.size, entry.crc)
    except ModelDiffError:
        pass
