"""Block sizes of kernels by device, dtype and row width, read from files; nothing is tuned at run time.

Each file is for one kernel: variant -> device kind, or "any" -> dtype -> greatest width -> sizes. `measured` lists, for
each variant, the device kinds that were timed; sizes for others are first choices that fit their memory.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax


@cache
def table(kernel: str) -> dict[str, Any]:
    """Returns the table of a kernel."""
    return json.loads((Path(__file__).parent / f"{kernel}.json").read_text())


def device_kind() -> str:
    """Returns the kind of the default device."""
    return jax.devices()[0].device_kind


def sizes(kernel: str, variant: str, dtype: str, width: int) -> dict[str, int]:
    """Returns the sizes for rows of a width on the default device.

    Raises:
      NotImplementedError: the variant does not support rows this wide, or this dtype.
    """
    devices = table(kernel)[variant]
    by_width = devices.get(device_kind(), devices["any"]).get(dtype, {})
    for limit in sorted(map(int, by_width)):
        if width <= limit:
            return by_width[str(limit)]
    raise NotImplementedError(f"{variant} of {kernel} has no blocks for rows of {width} entries in {dtype}")
