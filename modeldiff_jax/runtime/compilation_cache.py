"""JAX's persistent compilation cache in a private folder of the user: a second run on a graph compiles nothing.

Only the command line turns it on; a library leaves its caller's JAX settings alone.

JAX does not check entries: a damaged one causes a warning in every later run, and one under the name of another an
internal error or the other program's results. So entries are written atomically and hold their name and hash; others
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
_JAX_OVERRIDE = "JAX_COMPILATION_CACHE_DIR"
_JAX_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_WORTH_KEEPING = 0.3  # seconds of compilation; JAX's default of 1 s leaves out most of a small model


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
    """Makes the folder if needed, and checks it. Compiled programs are code, so only the user may write there."""
    if os.environ.get(_JAX_OVERRIDE):
        return Cache("on", Path(os.environ[_JAX_OVERRIDE]), f"set by {_JAX_OVERRIDE}")
    try:
        where = folder()
        if where is None:
            return Cache("off", None, f"{OVERRIDE} is empty")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = where.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        return Cache(
            "unusable", None, f"cannot be made: {error}; set {OVERRIDE} to a folder that only you can write to"
        )
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
        if _JAX_LEAST_SECONDS not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    return cache


class CheckedEntries:
    """The entries of a compilation cache, in files that are checked when they are read.

    It has the interface of `jax._src.compilation_cache_interface.CacheInterface`.

    Args:
      folder: the files' folder.
    """

    _FORMAT = b"modeldiff-cache-1\n"

    def __init__(self, folder: Path) -> None:
        self._path = folder

    def get(self, key: str) -> bytes | None:
        """Returns an entry; None where there is none, or where it was damaged or another's and is removed."""
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
        """Returns the header of an entry: the format, and a hash of key and value."""
        return self._FORMAT + hashlib.sha256(key.encode() + b"\0" + value).digest()


def _check_entries(folder: Path) -> None:
    """Lets JAX keep its entries as `CheckedEntries`; a JAX whose cache has another interface is left as it is."""
    with suppress(ImportError, AttributeError):
        from jax._src import compilation_cache as jax_cache

        if jax_cache._cache is None and callable(jax_cache._get_cache):
            entries: Any = CheckedEntries(folder)
            jax_cache._cache = entries
