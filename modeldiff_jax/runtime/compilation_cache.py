"""JAX's persistent compilation cache in a folder of the user's own: the second run on a graph compiles nothing.

Only the command line turns it on; a library leaves its caller's JAX settings alone.

JAX runs an entry as it finds it: a damaged one brings a warning in every later run, and one under another's name an
internal error or the other program's results. So entries are written whole and hold their own name and hash; others
are removed, and compiled again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime.atomic_file import writing
from modeldiff_jax.runtime.regular_file import open_regular

OVERRIDE = "MODELDIFF_CACHE_DIR"
_JAX_OWN = "JAX_COMPILATION_CACHE_DIR"
_JAX_OWN_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_WORTH_KEEPING = 0.3  # seconds of compilation; JAX's own default of 1 s leaves out most of a small model


@dataclass(frozen=True, slots=True)
class Cache:
    """State of the cache: whether compiled programs are kept, in which folder, and if not, why."""

    state: Literal["on", "off", "unusable"]
    folder: Path | None
    reason: str = ""


def folder() -> Path | None:
    """Returns the folder of compiled programs, `$MODELDIFF_CACHE_DIR` or one in the user's cache; None for no cache."""
    override = os.environ.get(OVERRIDE)
    if override is not None:
        return Path(override).absolute() if override else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification ignores relative paths
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "modeldiff"


def prepare() -> Cache:
    """Makes the folder if needed. Compiled programs are code, so nobody else may be able to write there."""
    if os.environ.get(_JAX_OWN):
        return Cache("on", Path(os.environ[_JAX_OWN]), f"as {_JAX_OWN} says")
    try:
        where = folder()
        if where is None:
            return Cache("off", None, f"{OVERRIDE} is empty")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = where.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        return Cache("unusable", None, f"cannot be made: {error}; set {OVERRIDE} to a folder of your own")
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return Cache("unusable", where, f"others can write there; chmod 700 it, or set {OVERRIDE}")
    return Cache("on", where)


def enable() -> Cache:
    """Turns the cache on, if the folder can be used."""
    cache = prepare()
    if cache.state == "on" and not cache.reason:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(cache.folder))
        _check_entries(Path(str(cache.folder)))
        if _JAX_OWN_LEAST not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    return cache


class CheckedEntries:
    """The entries of a compilation cache, in files that are checked when they are read.

    It has the interface of `jax._src.compilation_cache_interface.CacheInterface`.

    Args:
      folder: where the files are.
    """

    _FORMAT = b"modeldiff-cache-1\n"

    def __init__(self, folder: Path) -> None:
        self._path = folder

    def get(self, key: str) -> bytes | None:
        """Returns an entry; None where there is none, or it was damaged or another's and is removed."""
        file = self._file(key)
        if not file.exists():
            return None
        try:
            with open_regular(file) as stream:
                content = stream.read()
        except InvalidInputError:
            content = b""
        start = self._seal(key, b"")
        value = content[len(start) :]
        if content == self._seal(key, value) + value:
            return value
        with suppress(OSError):
            file.unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry; where it cannot be written, the next run compiles again."""
        with suppress(InvalidInputError), writing(self._file(key)) as stream:
            stream.write(self._seal(key, value) + value)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}-cache"

    def _seal(self, key: str, value: bytes) -> bytes:
        """What stands before an entry's value: the format, and a hash of key and value."""
        return self._FORMAT + hashlib.sha256(key.encode() + b"\0" + value).digest()


def _check_entries(folder: Path) -> None:
    """Lets JAX keep its entries as `CheckedEntries`; a JAX whose cache has another interface keeps its own."""
    with suppress(ImportError, AttributeError):
        from jax._src import compilation_cache as of_jax

        if of_jax._cache is None and callable(of_jax._get_cache):
            entries: Any = CheckedEntries(folder)
            of_jax._cache = entries
