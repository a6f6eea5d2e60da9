"""Versions and device that a result was computed with, and the date, for every report."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SCHEMA_VERSION = "2.0"
"""Version of `report/schema.json`, for all JSON output: a new minor adds fields, a new major changes them."""


def tool() -> dict[str, str | None]:
    """Returns name and versions as JSON-able data, without importing JAX; None for a package that is not installed."""
    return {
        "name": "modeldiff-jax",
        "version": installed("modeldiff-jax"),
        "python": platform.python_version(),
        "jax": installed("jax"),
        "jaxlib": installed("jaxlib"),
    }


def environment() -> dict[str, Any]:
    """Returns `created`, `tool` and `device` (kind and count) as JSON-able data."""
    import jax

    devices = jax.devices()
    device = f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind})"
    return {"created": now(), "tool": tool(), "device": device}


def now() -> str:
    """Returns the date and time in UTC, to the second, by ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
