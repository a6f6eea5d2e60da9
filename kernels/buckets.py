"""Sizes that shapes are rounded up to, so that calls of nearby sizes share one compiled program.

XLA compiles a program for every new shape, which for a search takes seconds. Rounding up costs run time for the padding
instead, so each rule below bounds the padding by the work it adds.
"""

from __future__ import annotations

_LARGEST_QUERY_STEP = 256
_MOST_ROWS = 2**14
"""Databases above this size keep their size: scanning padding would cost more than a compilation saves."""
_LEAST_ROWS = 32
_COUNTS = (1, 2, 3, 5, 7)


def round_up(size: int, steps: int = 4) -> int:
    """Rounds up to one of `steps` evenly spaced sizes between two powers of two; below 2 `steps`, keeps the size.

    Padding is at most 1 / `steps` of the size. With four steps the sizes are 1 to 8, 10, 12, 14, 16, 20, 24, ...
    """
    step = max(1, (1 << max(0, (size - 1).bit_length() - 1)) // steps)
    return -(-size // step) * step


def query_bucket(queries: int) -> int:
    """Rounds a number of queries up: powers of two up to 16, then by at most an eighth, and never by 256 or more.

    A search for a few queries takes the time of reading the database, whatever their number. A lone query is searched
    for as two, because XLA fuses a matrix-vector product with what follows it, at ten times the cost.
    """
    if queries <= 16:
        return max(2, 1 << max(0, queries - 1).bit_length())
    return min(round_up(queries, 8), -(-queries // _LARGEST_QUERY_STEP) * _LARGEST_QUERY_STEP)


def row_bucket(rows: int) -> int:
    """Rounds a number of database rows up: powers of two up to 256, then by at most an eighth up to 16384 rows."""
    if rows > _MOST_ROWS:
        return rows
    return max(_LEAST_ROWS, 1 << (rows - 1).bit_length()) if rows <= 256 else round_up(rows, 8)


def count_bucket(k: int) -> int:
    """Rounds a number of neighbours up to one of 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, ..."""
    if k <= 7:
        return next(count for count in _COUNTS if count >= k)
    scale = 10 ** (len(str(k - 1)) - 1)
    return next(int(scale * head) for head in (1, 1.5, 2, 3, 5, 7, 10) if scale * head >= k)
