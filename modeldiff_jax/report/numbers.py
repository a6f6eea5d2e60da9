"""Numbers as text."""

from __future__ import annotations

import math


def decimal(value: float | None, digits: int = 4) -> str:
    """Returns a number in fixed point, a tiny one in powers of ten, an absent one as a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"


def with_prefix(value: float | None, unit: str = "") -> str:
    """Returns three digits, a decimal prefix and the unit: `12.3 ms`, `40.1 GB/s`; an absent number as a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    power = max(-4, min(5, math.floor(math.log10(abs(value)) / 3 + 1e-9))) if value else 0
    return f"{value / 1000.0**power:.3g} {'pnum kMGTP'[power + 4].strip()}{unit}".strip()


def p_value(value: float | None) -> str:
    """Returns a p-value in three digits, an absent one as a dash."""
    return "-" if value is None else f"{value:.3g}"
