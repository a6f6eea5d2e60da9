"""Sizes of blocks for kernels, by device, type and width of rows. Read once; nothing is tried out at run time.

A file holds one kernel: variant -> device kind, or "any" -> dtype -> greatest width -> sizes. `measured` says, for each
variant, which device kinds were timed; what was not are starting points that fit the memory they are for.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax


@cache
def table(kernel: str) -> dict[str, Any]:
    """The whole file of a kernel."""
    return json.loads((Path(__file__).parent / f"{kernel}.json").read_text())


def device_kind() -> str:
    return jax.devices()[0].device_kind


def sizes(kernel: str, variant: str, dtype: str, width: int) -> dict[str, int]:
    """The sizes for rows of a width on this machine's device.

    Raises:
      NotImplementedError: the variant takes no rows so wide, or not this dtype.
    """
    devices = table(kernel)[variant]
    by_width = devices.get(device_kind(), devices["any"]).get(dtype, {})
    for limit in sorted(map(int, by_width)):
        if width <= limit:
            return by_width[str(limit)]
    raise NotImplementedError(f"{variant} of {kernel} has no blocks for rows of {width} entries in {dtype}")
