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
from modeldiff_jax.kernels.search import as_value
from modeldiff_jax.kernels.selection import check_count
from modeldiff_jax.kernels.sharded import best_of_shard, merge
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.runtime.atomic_file import write, writing
from modeldiff_jax.runtime.regular_file import open_regular

_CHUNK = 1 << 17
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
      folder: made if it does not exist.
      k: neighbours of each row, from 1 to N - 1.
      metric: as in `kernels.prepare`.
      tile: rows of one file.
      share: (i, n): computes only tiles i, i + n, i + 2n, and so on.

    Returns:
      The files that this call wrote.

    Raises:
      InvalidInputError: `x` is not a matrix, a number is out of range, or the folder holds another join, a damaged
        description of one, or no space.
    """
    if x.ndim != 2:
        raise InvalidInputError("`x` is (N, C)", got=f"{x.shape}", where="join_in_tiles")
    check_count(k, x.shape[0] - 1, "join_in_tiles")
    if tile < 1 or not 0 <= share[0] < share[1]:
        raise InvalidInputError("`tile` is positive and `share` (i, of) with i < of", got=f"{tile}, {share}")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = error.strerror or str(error)
        raise InvalidInputError("A join's folder can be made", got=got, where=str(path)) from error
    about = {"rows": x.shape[0], "width": x.shape[1], "k": k, "metric": metric, "tile": tile, "sha256": _digest(x)}
    _same_join(path, about)
    done = []
    for number in range(share[0], -(-x.shape[0] // tile), share[1]):
        file = _file(path, number)
        if _read_tile(file, min(tile, x.shape[0] - number * tile), k) is not None:
            continue
        values, indices = _tile(x, number * tile, min(x.shape[0], (number + 1) * tile), k, metric)
        with writing(file, "A tile of a join") as stream:
            np.savez(stream, values=values, indices=indices)
        done.append(file)
    return done


def read_join(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Reads values and indices of a finished join, as `kernels.self_join` returns them.

    Raises:
      InvalidInputError: the folder holds no join or a damaged description of one, or tiles are missing or damaged.
    """
    path = Path(folder)
    about = _described(path)
    if about is None:
        raise InvalidInputError("The folder holds a join", got=str(path), where="read_join")
    tiles = {file.name: _read_tile(file, rows, about["k"]) for file, rows in _tiles(path, about)}
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


def _tiles(folder: Path, about: Mapping[str, Any]) -> Iterator[tuple[Path, int]]:
    """The file of each tile, and how many rows it holds."""
    for number, start in enumerate(range(0, about["rows"], about["tile"])):
        yield _file(folder, number), min(about["tile"], about["rows"] - start)


def _read_tile(file: Path, rows: int, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A tile's values and indices; None where the file is missing, damaged or of another size."""
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


def _same_join(folder: Path, about: dict[str, Any]) -> None:
    found = _described(folder)
    if found is None:
        write(folder / _DESCRIPTION, json.dumps(about))
    elif found != about:
        raise InvalidInputError(
            "A folder holds one join", got=f"{found}, now {about}", where=str(folder), fix="use another folder"
        )


def _described(folder: Path) -> dict[str, Any] | None:
    """The description of the join in a folder; None where there is none."""
    file = folder / _DESCRIPTION
    if not file.exists():
        return None
    fix = f"use another folder; or delete {_DESCRIPTION} and all tiles, and join again"
    with open_regular(file, "A join's description") as stream:
        text = stream.read(_LONGEST_DESCRIPTION)
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("A join's description is JSON", got=str(error), where=str(file), fix=fix) from error
    kinds = {name: type(about.get(name)) for name in _KINDS} if isinstance(about, dict) else {}
    if kinds != _KINDS or min(about["rows"], about["k"], about["tile"]) < 1:
        got = text.decode("utf-8", "replace")
        raise InvalidInputError("A join's description says what is joined", got=got, where=str(file), fix=fix)
    return about


_best = jax.jit(best_of_shard, static_argnames=("k", "n", "metric"))


@partial(jax.jit, static_argnames=("n", "k"))
def _merged(costs: list[jax.Array], indices: list[jax.Array], n: int, k: int) -> tuple[jax.Array, jax.Array]:
    return merge(jnp.hstack(costs), jnp.hstack(indices), n, k)


def _tile(x: np.ndarray, start: int, stop: int, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The nearest others of some rows: against one piece of all rows after the other."""
    n = x.shape[0]
    vectors, own = jnp.asarray(x[start:stop], jnp.float32), jnp.arange(start, stop, dtype=jnp.int32)
    cost, index = jnp.zeros((stop - start, 0), jnp.float32), jnp.zeros((stop - start, 0), jnp.int32)
    for first in range(0, n, _CHUNK):
        rows = jnp.asarray(x[first : first + _CHUNK], jnp.float32)
        found = _best(vectors, rows, jnp.asarray(first, jnp.int32), own, k=k, n=n, metric=metric)
        width = min(k, cost.shape[1] + found[0].shape[1])
        cost, index = _merged([cost, found[0]], [index, found[1]], n=n, k=width)
    return np.asarray(as_value(cost, metric)), np.asarray(index)
