"""Self-joins larger than memory and longer than a process lives: cut into tiles, each kept in a file once computed.

A folder holds `join.json`, which identifies the join, and `tile-00000.npz` and so on, each with the results of a fixed
number of rows. Files are written under another name and renamed, so a file that exists is complete. A process that dies
costs the tile it was computing, and the next call continues from there. Several processes can share a folder, each
taking every n-th tile; a call without a share computes whatever they left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
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

_CHUNK = 1 << 17
"""Rows that a tile is compared with at once."""


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
      InvalidInputError: `x` is not a matrix, a number is out of range, or the folder holds another join.
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
    path.mkdir(parents=True, exist_ok=True)
    identity = {"rows": x.shape[0], "width": x.shape[1], "k": k, "metric": metric, "tile": tile, "sha256": _digest(x)}
    _check_identity(path, identity)
    written = []
    for number in range(share[0], -(-x.shape[0] // tile), share[1]):
        file = _file(path, number)
        if _is_complete(file):
            continue
        values, indices = _tile(x, number * tile, tile, k, metric)
        unfinished = file.with_name(f".{file.stem}.{os.getpid()}.npz")
        try:
            np.savez(unfinished, values=values, indices=indices)
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
        written.append(file)
    return written


def read_join(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Returns values (N, k), float32, and indices (N, k), int32, of a finished join, as `kernels.self_join` does.

    Raises:
      InvalidInputError: the folder holds no join, or tiles are missing.
    """
    path = Path(folder)
    if not (path / "join.json").exists():
        raise InvalidInputError("The folder holds a join", got=str(path), where="read_join")
    identity = json.loads((path / "join.json").read_text())
    files = [_file(path, number) for number in range(-(-identity["rows"] // identity["tile"]))]
    missing = [file.name for file in files if not _is_complete(file)]
    if missing:
        raise InvalidInputError(
            "All tiles are computed",
            got=f"missing: {', '.join(missing[:5])}",
            where=str(path),
            fix="call join_in_tiles again",
        )
    tiles = [np.load(file, allow_pickle=False) for file in files]
    return np.concatenate([t["values"] for t in tiles]), np.concatenate([t["indices"] for t in tiles])


def _file(folder: Path, number: int) -> Path:
    return folder / f"tile-{number:05d}.npz"


def _is_complete(file: Path) -> bool:
    return file.exists() and zipfile.is_zipfile(file)


def _digest(x: np.ndarray) -> str:
    digest = hashlib.sha256(str(x.dtype).encode())
    for start in range(0, x.shape[0], _CHUNK):
        digest.update(np.ascontiguousarray(x[start : start + _CHUNK]).tobytes())
    return digest.hexdigest()


def _check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Writes the identity of the join, or compares it with that of the join which the folder holds."""
    file = folder / "join.json"
    if file.exists():
        existing = json.loads(file.read_text())
        if existing != identity:
            raise InvalidInputError(
                "A folder holds one join",
                got=f"{existing}, now {identity}",
                where=str(folder),
                fix="use another folder",
            )
        return
    unfinished = folder / f".join.{os.getpid()}.json"
    unfinished.write_text(json.dumps(identity))
    os.replace(unfinished, file)


_search = jax.jit(search_shard, static_argnames=("k", "n", "metric"))


@partial(jax.jit, static_argnames=("n", "k"))
def _merged(costs: list[jax.Array], rows: list[jax.Array], n: int, k: int) -> tuple[jax.Array, jax.Array]:
    return merge_shards(jnp.hstack(costs), jnp.hstack(rows), n, k)


def _tile(x: np.ndarray, start: int, size: int, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and indices of the nearest other rows of some rows, from one chunk of all rows after another."""
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
