"""Versions and device that a result was computed with, for every report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SCHEMA_VERSION = "1.0"
"""Of all JSON the command line prints, by `report/schema.json`: a new minor adds fields, a new major changes them."""


def tool() -> dict[str, str | None]:
    """Name and versions as JSON-able data, without importing JAX; None for a package that is not installed."""
    return {
        "name": "modeldiff-jax",
        "version": installed("modeldiff-jax"),
        "python": platform.python_version(),
        "jax": installed("jax"),
        "jaxlib": installed("jaxlib"),
    }


def environment() -> dict[str, Any]:
    """`tool` and `device` (kind and count) as JSON-able data."""
    import jax

    devices = jax.devices()
    return {"tool": tool(), "device": f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind})"}


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
