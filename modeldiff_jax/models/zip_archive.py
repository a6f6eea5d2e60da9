"""Reads untrusted zip archives: PyTorch's weights, NumPy's `.npz`, app packages and wheels.

Python's `zipfile` reads the directory; entries are read here. The directory is checked before any entry is read: the
number of entries, the lengths of their names, the sum of their sizes, and that no two of them share bytes, by which a
small archive can unpack to petabytes.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BufferedIOBase
from itertools import pairwise

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, UnsafeModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import Bytes, aligned, read_exactly, size_of

LONGEST_NAME = 1024
"""Most characters of an entry's name."""
_SIGNATURE = b"PK\x03\x04"
_LOCAL = struct.Struct("<4s2xHH16xHH")  # signature, flags, method, lengths of name and extra field
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _UTF8 = 1, 0x800  # flags
_CHUNK = 2**20


def is_zip(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a zip archive that begins with an entry."""
    return head[:4] == _SIGNATURE


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """A file in an archive, as the directory declares it.

    Attributes:
      name: any text, which may be a path to anywhere.
      size: bytes, unpacked.
      compressed_size: bytes in the archive.
      method: 0 for stored, 8 for deflated.
      encrypted: whether it needs a password.
      crc: CRC-32 of the unpacked bytes.
      start, end: the bytes of the archive that the entry may occupy, its local header included.
      raw_name: the name that its local header must have, with null characters and the system's separators.
    """

    name: str
    size: int
    compressed_size: int
    method: int
    encrypted: bool
    crc: int
    start: int
    end: int
    raw_name: str


class ZipArchive:
    """A zip archive whose entries are read one by one.

    Args:
      stream: seekable; other bytes may precede the archive.
      limits: `header_bytes` limits the directory, `archive_entries` its entries, and `archive_ratio` the unpacked size
        of all entries as a multiple of the archive's.
      bound: name of the limit on the unpacked size of all entries, in bytes.
      where: the file, for messages.

    Attributes:
      entries: all entries but folders, in order of the directory.

    Raises:
      InvalidModelError: damaged, or with too long a name.
      UnsafeModelError: entries share bytes.
      LimitExceededError: a limit was exceeded.
    """

    def __init__(self, stream: BufferedIOBase, limits: Limits, bound: str, where: str) -> None:
        self._stream, self._where = stream, where
        try:
            with zipfile.ZipFile(_BoundedReads(stream, limits, where)) as archive:
                infos, directory = archive.infolist(), archive.start_dir
        except LimitExceededError:
            raise
        # zipfile raises these for damaged directories
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
            raise InvalidModelError("An archive is a whole zip file", got=str(error), where=where) from error
        limits.check("archive_entries", len(infos), where=where)
        ends = self._ends(infos, directory)
        size = sum(info.file_size for info in infos if info.compress_type in _METHODS)  # no others are read
        limits.check(bound, size, where=where)
        limits.check("archive_ratio", size // max(1, size_of(stream)), where=where)
        # only the names of folders end with a slash; `is_dir` fails on an empty name
        self.entries = tuple(
            self._entry(info, ends[info.header_offset]) for info in infos if not info.filename.endswith("/")
        )

    @cached_property
    def by_name(self) -> dict[str, ZipEntry]:
        """The entries by name.

        Raises:
          InvalidModelError: two entries have one name, so that readers would disagree which of them it means.
        """
        by_name: dict[str, ZipEntry] = {}
        for entry in self.entries:
            if by_name.setdefault(entry.name, entry) is not entry:
                raise self._invalid("An archive has each name once", f"`{entry.name}` twice", self._where)
        return by_name

    def read(self, entry: ZipEntry, first: int | None = None, *, check_crc: bool = True) -> Bytes:
        """Reads and unpacks an entry into new memory, aligned as `files.read_exactly` does.

        Args:
          entry: one of `entries`.
          first: number of bytes to read from its start; all if None.
          check_crc: whether the checksum of a whole entry must match; PyTorch can leave it out.
        Raises:
          InvalidModelError: damaged.
          UnsupportedModelError: encrypted, or compressed by another method than deflate.
        """
        where = f"{self._where}, entry `{entry.name}`"
        if entry.encrypted or entry.method not in _METHODS:
            got = "an encrypted one" if entry.encrypted else f"compression method {entry.method}"
            raise UnsupportedModelError("An archive's entry is stored or deflated", got=got, where=where)
        self._stream.seek(self._data_start(entry, where))
        size = entry.size if first is None else min(first, entry.size)
        if entry.method == zipfile.ZIP_DEFLATED:
            data = self._inflated(entry, size, where)
        elif entry.size != entry.compressed_size:
            raise self._invalid("A stored entry has one size", f"{entry.size} and {entry.compressed_size}", where)
        else:
            data = read_exactly(self._stream, size, where, "An archive")
        if check_crc and size == entry.size and zlib.crc32(data.data) != entry.crc:
            raise self._invalid("An entry's bytes have the checksum the archive declares", "another checksum", where)
        return data

    def _entry(self, info: zipfile.ZipInfo, end: int) -> ZipEntry:
        if len(info.filename) > LONGEST_NAME:
            where = f"{self._where}, entry `{info.filename}`"
            raise self._invalid(f"A name has at most {LONGEST_NAME} characters", f"{len(info.filename)}", where)
        return ZipEntry(
            name=info.filename,
            size=info.file_size,
            compressed_size=info.compress_size,
            method=info.compress_type,
            encrypted=bool(info.flag_bits & _ENCRYPTED),
            crc=info.CRC,
            start=info.header_offset,
            end=end,
            raw_name=info.orig_filename,
        )

    def _ends(self, infos: list[zipfile.ZipInfo], directory: int) -> dict[int, int]:
        """Returns the largest possible end of each entry, by its start: the start of the next one or the directory."""
        extents = sorted((info.header_offset, info.compress_size) for info in infos)
        if extents and extents[0][0] < 0:  # zipfile corrects offsets for bytes that seem to precede the archive
            raise self._invalid("An archive's entries lie within it", "a negative offset", self._where)
        for (start, size), (end, _) in pairwise([*extents, (directory, 0)]):
            if start + _LOCAL.size + size > end:
                raise UnsafeModelError(
                    "No two entries of an archive share bytes",
                    got=f"{size} bytes in the {end - start} from position {start}",
                    where=self._where,
                    fix="do not trust this file: such archives unpack to far more than they seem to hold",
                )
        return {start: end for (start, _), (end, _) in pairwise([*extents, (directory, 0)])}

    def _data_start(self, entry: ZipEntry, where: str) -> int:
        """Returns the position of an entry's data, after its local header, which must agree with the directory."""
        self._stream.seek(entry.start)
        header = self._stream.read(_LOCAL.size)
        if len(header) == _LOCAL.size:
            signature, flags, method, name_size, extra_size = _LOCAL.unpack(header)
            start: int = entry.start + _LOCAL.size + name_size + extra_size
            name = self._stream.read(name_size).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            same = (signature, method, name) == (_SIGNATURE, entry.method, entry.raw_name)
            if same and start + entry.compressed_size <= entry.end:
                return start
        raise self._invalid("An entry's local header agrees with the archive's directory", "another header", where)

    def _inflated(self, entry: ZipEntry, size: int, where: str) -> Bytes:
        """Unpacks the first bytes of a deflated entry, whose data begin at the stream's position."""
        inflater = _Inflater(self._stream, entry.compressed_size)
        data, filled = aligned(size), 0
        try:
            while filled < size and (chunk := inflater.take(min(_CHUNK, size - filled))):
                data[filled : filled + len(chunk)] = memoryview(chunk)
                filled += len(chunk)
            ends = size < entry.size or (not inflater.take(1) and inflater.eof)
        except zlib.error as error:
            raise self._invalid("A deflated entry can be unpacked", str(error), where) from error
        if filled < size or not ends:
            raise self._invalid("An entry unpacks to the size that the archive declares", "another size", where)
        data.flags.writeable = False
        return data

    def _invalid(self, rule: str, got: str, where: str) -> InvalidModelError:
        return InvalidModelError(rule, got=got, where=where, fix="the file is damaged: fetch or save it again")


class _Inflater:
    """Unpacks deflated bytes of a stream, chunk by chunk.

    Args:
      stream: at the position where they begin.
      size: number of packed bytes.
    """

    def __init__(self, stream: BufferedIOBase, size: int) -> None:
        self._stream, self._unread, self._packed = stream, size, b""
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        """Returns whether the end that the data themselves mark was reached."""
        return self._unpacker.eof

    def take(self, size: int) -> bytes:
        """Returns at most `size` unpacked bytes; none only at the end."""
        while not self.eof:
            if not self._packed and self._unread:
                self._packed = self._stream.read(min(_CHUNK, self._unread))
                self._unread = self._unread - len(self._packed) if self._packed else 0  # 0 in a truncated file
            chunk = self._unpacker.decompress(self._packed, size)
            self._packed = self._unpacker.unconsumed_tail
            if chunk:
                return chunk
            if not self._packed and not self._unread:
                break
        return b""


class _BoundedReads(io.RawIOBase):
    """A stream that limits how much is read at once: `zipfile` reads a directory of any length into memory."""

    def __init__(self, stream: BufferedIOBase, limits: Limits, where: str) -> None:
        self._stream, self._limits, self._where = stream, limits, where
        self._size = size_of(stream)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        available = max(0, self._size - self.tell())
        size = available if size is None or size < 0 else min(size, available)
        self._limits.check("header_bytes", size, where=f"{self._where}, directory")
        return self._stream.read(size)
