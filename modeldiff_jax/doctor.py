"""Diagnoses the installation: devices, versions, kernels, and lines that install missing packages."""

from __future__ import annotations

import re
import shlex
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from modeldiff_jax.runtime.compilation_cache import Cache, enable
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, installed, now, tool

_NEEDED_FOR = {
    "bench": "the benchmarks",
    "check": "modeldiff convert --check",
    "cuda12": "NVIDIA GPUs, CUDA 12",
    "cuda13": "NVIDIA GPUs, CUDA 13",
    "tpu": "Google TPUs",
    "dev": "the tests and checks of this project",
    "docs": "the documentation's site",
    "fuzz": "the fuzz targets of this project",
    "roundtrip": "the tests of models that jax2onnx exports",
}
# `jax[cuda12]` is jax, which is always installed; these are the distributions that the extra adds.
_ADDED_BY = {"jax[cuda12]": "jax-cuda12-plugin", "jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+(\[[\w,-]+\])?)(?P<version>[^;]*)(;.*extra\s*==\s*['\"](?P<extra>[\w-]+))?")


def diagnose() -> dict[str, Any]:
    """Checks everything `modeldiff` needs, and returns the findings as JSON-able data.

    It never raises: `problems` names all that is broken, and then `ok` is False.
    """
    problems: list[str] = []
    required, extras = _requirements()
    packages = [{"name": name, "version": installed(name)} for name in required]
    missing = [requirement for name, requirement in required.items() if installed(name) is None]
    if missing:
        problems.append(f"Packages are missing; install them: {_install(missing)}")
    if not required:
        problems.append("The package is not installed; in the folder of its source, run: pip install -e .")
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "doctor",
        "created": now(),
        "tool": tool(),
        "executable": sys.executable,
        "devices": _devices(problems),
        "packages": packages,
        "extras": [_extra(name, requirements) for name, requirements in extras.items()],
        "kernels": _kernels(problems),
        "cache": _cache(),
        "problems": problems,
        "ok": not problems,
    }


def _requirements() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Returns distribution -> requirement, for those always needed and for those of each extra."""
    required: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = defaultdict(dict)
    try:
        lines = requires("modeldiff-jax") or []
    except PackageNotFoundError:
        lines = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match and not match["name"].startswith("modeldiff-jax"):
            group = extras[str(match["extra"])] if match["extra"] else required
            group[_ADDED_BY.get(match["name"], match["name"])] = match["name"] + match["version"].strip()
    return required, dict(extras)


def _extra(name: str, requirements: dict[str, str]) -> dict[str, Any]:
    versions = {distribution: installed(distribution) for distribution in requirements}
    missing = [distribution for distribution, version in versions.items() if version is None]
    return {
        "name": name,
        "needed_for": _NEEDED_FOR.get(name, ""),
        "present": [{"name": d, "version": v} for d, v in versions.items() if v is not None],
        "missing": missing,
        "install": _install([requirements[distribution] for distribution in missing]) if missing else None,
    }


def _install(requirements: list[str]) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    try:
        import jax

        return [{"id": d.id, "platform": d.platform, "kind": d.device_kind} for d in jax.devices()]
    except Exception as error:  # a broken JAX fails in many ways, and this command must report them
        problems.append(f"JAX cannot start: {type(error).__name__}: {error}")
        return []


def _kernels(problems: list[str]) -> dict[str, Any]:
    try:
        from modeldiff_jax import kernels

        return {"ok": True, "folder": str(Path(kernels.__path__[0]).resolve())}
    except Exception as error:  # likewise
        problems.append(
            f"modeldiff_jax.kernels cannot be imported: {type(error).__name__}: {error}. In a git checkout it is a "
            "link to ../kernels; clone with symbolic links on (git config core.symlinks true)"
        )
        return {"ok": False, "folder": None}


def _cache() -> dict[str, Any]:
    try:
        cache = enable()
        files = [path for path in cache.folder.rglob("*") if path.is_file()] if cache.folder else []
        size = sum(path.stat().st_size for path in files)
    except Exception as error:  # JAX may be missing
        cache, files, size = Cache("unusable", None, f"{type(error).__name__}: {error}"), [], 0
    return {
        "state": cache.state,
        "folder": str(cache.folder) if cache.folder else None,
        "files": len(files),
        "bytes": size,
        "reason": cache.reason,
    }
