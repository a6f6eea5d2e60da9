"""Self-joins larger than memory and longer than a process lives, split into tiles that are kept in files.

A folder holds `join.json`, which describes the join, and `tile-00000.npz` and so on, one for each `tile` rows. They are
written whole or not at all: a process that dies loses the tile it was computing, and the next call goes on from there.
Several processes can share a folder, each computing every n-th tile; a call without shares computes the missing ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.largest import check_count
from modeldiff_jax.kernels.sharded import merge_shards, search_shard
from modeldiff_jax.kernels.top_k.exact import to_values
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.runtime.atomic_file import write, writing
from modeldiff_jax.runtime.regular_file import open_regular

_CHUNK = 1 << 17
"""Rows that a tile is compared with at once."""
_DESCRIPTION = "join.json"
_LONGEST_DESCRIPTION = 10_000  # bytes
_KINDS = {"rows": int, "width": int, "k": int, "metric": str, "tile": int, "sha256": str}


def join_in_tiles(
    x: np.ndarray,
    folder: str | os.PathLike[str],
    k: int,
    metric: str = "cosine",
    *,
    tile: int = 4096,
    share: tuple[int, int] = (0, 1),
) -> list[Path]:
    """Computes the missing tiles of a self-join.

    Args:
      x: (N, C), real numbers; a `numpy.memmap` is read piece by piece.
      folder: created if it does not exist.
      k: number of other rows per row, from 1 to N - 1.
      metric: as in `kernels.prepare`.
      tile: rows per file.
      share: (i, n) to compute only tiles i, i + n, i + 2 n, and so on.

    Returns:
      The files that this call wrote.

    Raises:
      InvalidInputError: `x` is no matrix of real numbers, a number is out of range, or the folder holds another join,
        a damaged description of one, or no space.
    """
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise InvalidInputError(
            "`x` is (N, C), of real numbers", got=f"{x.dtype} of shape {x.shape}", where="join_in_tiles"
        )
    check_count(k, x.shape[0] - 1, "join_in_tiles")
    if tile < 1 or not 0 <= share[0] < share[1]:
        raise InvalidInputError(
            "`tile` is positive, and `share` is (i, n) with 0 <= i < n", got=f"{tile}, {share}", where="join_in_tiles"
        )
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = error.strerror or str(error)
        raise InvalidInputError("A join's folder can be made", got=got, where=str(path)) from error
    description = {
        "rows": x.shape[0],
        "width": x.shape[1],
        "k": k,
        "metric": metric,
        "tile": tile,
        "sha256": _digest(x),
    }
    _check_description(path, description)
    written = []
    for number in range(share[0], -(-x.shape[0] // tile), share[1]):
        file = _file(path, number)
        if _read_tile(file, min(tile, x.shape[0] - number * tile), k) is not None:
            continue
        values, indices = _tile(x, number * tile, tile, k, metric)
        with writing(file, "A tile of a join") as stream:
            np.savez(stream, values=values, indices=indices)
        written.append(file)
    return written


def read_join(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Returns values (N, k), float32, and indices (N, k), int32, of a finished join, as `kernels.self_join` does.

    Raises:
      InvalidInputError: the folder holds no join or a damaged description of one, or tiles are missing or damaged.
    """
    path = Path(folder)
    description = _read_description(path)
    if description is None:
        raise InvalidInputError("The folder holds a join", got=str(path), where="read_join")
    tiles = {file.name: _read_tile(file, rows, description["k"]) for file, rows in _tiles(path, description)}
    missing = [name for name, tile in tiles.items() if tile is None]
    if missing:
        raise InvalidInputError(
            "All tiles are there and whole",
            got=f"missing or damaged: {', '.join(missing[:5])}",
            where=str(path),
            fix="call join_in_tiles again",
        )
    values, indices = zip(*(tile for tile in tiles.values() if tile is not None), strict=True)
    return np.concatenate(values), np.concatenate(indices)


def _file(folder: Path, number: int) -> Path:
    return folder / f"tile-{number:05d}.npz"


def _tiles(folder: Path, description: Mapping[str, Any]) -> Iterator[tuple[Path, int]]:
    """Yields the file of each tile, and how many rows it holds."""
    for number, start in enumerate(range(0, description["rows"], description["tile"])):
        yield _file(folder, number), min(description["tile"], description["rows"] - start)


def _read_tile(file: Path, rows: int, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns a tile's values and indices; None where the file is missing, damaged or of another size."""
    try:
        arrays = read_arrays(file, DEFAULT, "seed_bytes")
    except InvalidInputError:
        return None
    if arrays.keys() != {"values", "indices"} or any(array.shape != (rows, k) for array in arrays.values()):
        return None
    return arrays["values"], arrays["indices"]


def _digest(x: np.ndarray) -> str:
    digest = hashlib.sha256(str(x.dtype).encode())
    for start in range(0, x.shape[0], _CHUNK):
        digest.update(np.ascontiguousarray(x[start : start + _CHUNK]).tobytes())
    return digest.hexdigest()


def _check_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes the description of the join, or compares it with that of the join which the folder holds."""
    existing = _read_description(folder)
    if existing is None:
        write(folder / _DESCRIPTION, json.dumps(description))
    elif existing != description:
        raise InvalidInputError(
            "A folder holds one join", got=f"{existing}, now {description}", where=str(folder), fix="use another folder"
        )


def _read_description(folder: Path) -> dict[str, Any] | None:
    """Returns the description of the join in a folder; None where there is none."""
    file = folder / _DESCRIPTION
    if not file.exists():
        return None
    fix = f"use another folder; or delete {_DESCRIPTION} and all tiles, and join again"
    with open_regular(file, "A join's description") as stream:
        text = stream.read(_LONGEST_DESCRIPTION)
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("A join's description is JSON", got=str(error), where=str(file), fix=fix) from error
    kinds = {name: type(description.get(name)) for name in _KINDS} if isinstance(description, dict) else {}
    if kinds != _KINDS or min(description["rows"], description["k"], description["tile"]) < 1:
        got = text.decode("utf-8", "replace")
        raise InvalidInputError(
            "A join's description has rows, width, k, metric, tile and hash", got=got, where=str(file), fix=fix
        )
    return description


_search = jax.jit(search_shard, static_argnames=("k", "n", "metric"))


@partial(jax.jit, static_argnames=("n", "k"))
def _merged(costs: list[jax.Array], rows: list[jax.Array], n: int, k: int) -> tuple[jax.Array, jax.Array]:
    return merge_shards(jnp.hstack(costs), jnp.hstack(rows), n, k)


def _tile(x: np.ndarray, start: int, size: int, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and indices of the nearest other rows of some rows, computed chunk by chunk."""
    n = x.shape[0]
    chunk, valid = min(_CHUNK, n), min(size, n - start)
    # All tiles, and all chunks, have one size and so share compiled programs: the last tile repeats its last row, the
    # last chunk ends in rows of NaN, which are never found.
    numbers = np.minimum(np.arange(start, start + min(size, n), dtype=np.int32), n - 1)
    vectors = jax.device_put(_padded(x[start : start + valid], len(numbers), mode="edge"))
    size, numbers = len(numbers), jax.device_put(numbers)
    costs = jax.device_put(np.zeros((size, 0), np.float32))
    rows = jax.device_put(np.zeros((size, 0), np.int32))
    for first in range(0, n, chunk):
        offset = jax.device_put(np.int32(first))
        shard = jax.device_put(_padded(x[first : first + chunk], chunk, constant_values=np.nan))
        results = _search(vectors, shard, offset, numbers, k=k, n=n, metric=metric)
        kept = min(k, costs.shape[1] + results[0].shape[1])
        costs, rows = _merged([costs, results[0]], [rows, results[1]], n=n, k=kept)
    return np.asarray(to_values(costs, metric))[:valid], np.asarray(rows)[:valid]


def _padded(x: np.ndarray, size: int, **how: Any) -> np.ndarray:
    """Converts rows to float32 and pads them to `size` rows."""
    with np.errstate(over="ignore"):
        return np.pad(x.astype(np.float32), ((0, size - len(x)), (0, 0)), **how)
