"""JAX's persistent compilation cache in a folder of the user's own: the second run on a graph compiles nothing.

Only the command line turns it on; a library leaves its caller's JAX settings alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OVERRIDE = "MODELDIFF_CACHE_DIR"
_JAX_OWN = "JAX_COMPILATION_CACHE_DIR"
_JAX_OWN_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_WORTH_KEEPING = 0.3  # seconds of compilation; JAX's own default of 1 s leaves out most of a small model


@dataclass(frozen=True, slots=True)
class Cache:
    """Whether compiled programs are kept, where, and why not."""

    state: Literal["on", "off", "unusable"]
    folder: Path | None
    reason: str = ""


def folder() -> Path | None:
    """Where compiled programs go: `$MODELDIFF_CACHE_DIR`, or a folder in the user's cache; None for nowhere."""
    override = os.environ.get(OVERRIDE)
    if override is not None:
        return Path(override).absolute() if override else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification ignores relative paths
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "modeldiff"


def prepare() -> Cache:
    """Finds or makes the folder. Compiled programs are code, so nobody else may be able to write there."""
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
    """Points JAX at the folder, if it can be used."""
    cache = prepare()
    if cache.state == "on" and not cache.reason:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(cache.folder))
        if _JAX_OWN_LEAST not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    return cache
