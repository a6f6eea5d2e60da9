"""What a result was computed with: versions and device, for every report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any


def environment() -> dict[str, Any]:
    """`tool` (name and versions) and `device` (kind and count) as JSON-able data."""
    import jax

    devices = jax.devices()
    return {
        "tool": {
            "name": "modeldiff-jax",
            "version": version("modeldiff-jax"),
            "python": platform.python_version(),
            "jax": version("jax"),
            "jaxlib": version("jaxlib"),
        },
        "device": f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind})",
    }
