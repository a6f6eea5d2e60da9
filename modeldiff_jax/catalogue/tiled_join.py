"""Self-joins larger than memory and longer than a process lives: cut in tiles, each kept in a file once it is done.

A folder holds `join.json`, which says what is joined, and `tile-00000.npz` and so on, one for so many rows. Files are
written under another name and renamed, so that a file that is there is whole: a process that dies costs the tile it was
at, and the next call goes on from there. Several processes can share a folder, each doing every so-manieth tile; what
one has left out, a call without shares makes up for.
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


def join_in_tiles(
    x: np.ndarray,
    folder: str | os.PathLike[str],
    k: int,
    metric: str = "cosine",
    *,
    tile: int = 4096,
    share: tuple[int, int] = (0, 1),
) -> list[Path]:
    """Does the tiles of a self-join that the folder does not hold yet.

    Args:
      x: (N, C), real numbers; a `numpy.memmap` is read piece by piece.
      folder: made if it is not there.
      k: how many others of each row, from 1 to N - 1.
      metric: as in `kernels.prepare`.
      tile: rows of one file.
      share: (i, of): do only tiles i, i + of, i + 2 of, and so on.

    Returns:
      The files that this call wrote.

    Raises:
      InvalidInputError: `x` is not a matrix, a number is out of range, or the folder is of another join.
    """
    if x.ndim != 2:
        raise InvalidInputError("`x` is (N, C)", got=f"{x.shape}", where="join_in_tiles")
    check_count(k, x.shape[0] - 1, "join_in_tiles")
    if tile < 1 or not 0 <= share[0] < share[1]:
        raise InvalidInputError("`tile` is positive and `share` (i, of) with i < of", got=f"{tile}, {share}")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    about = {"rows": x.shape[0], "width": x.shape[1], "k": k, "metric": metric, "tile": tile, "sha256": _digest(x)}
    _same_join(path, about)
    done = []
    for number in range(share[0], -(-x.shape[0] // tile), share[1]):
        file = _file(path, number)
        if _whole(file):
            continue
        values, indices = _tile(x, number * tile, min(x.shape[0], (number + 1) * tile), k, metric)
        unfinished = file.with_name(f".{file.stem}.{os.getpid()}.npz")
        try:
            np.savez(unfinished, values=values, indices=indices)
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
        done.append(file)
    return done


def read_join(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Values and indices of a finished join, as `kernels.self_join` returns them.

    Raises:
      InvalidInputError: there is no join in the folder, or tiles are missing.
    """
    path = Path(folder)
    if not (path / "join.json").exists():
        raise InvalidInputError("The folder holds a join", got=str(path), where="read_join")
    about = json.loads((path / "join.json").read_text())
    files = [_file(path, i) for i in range(-(-about["rows"] // about["tile"]))]
    missing = [file.name for file in files if not _whole(file)]
    if missing:
        raise InvalidInputError(
            "All tiles are done",
            got=f"missing: {', '.join(missing[:5])}",
            where=str(path),
            fix="call join_in_tiles again",
        )
    tiles = [np.load(file, allow_pickle=False) for file in files]
    return np.concatenate([t["values"] for t in tiles]), np.concatenate([t["indices"] for t in tiles])


def _file(folder: Path, number: int) -> Path:
    return folder / f"tile-{number:05d}.npz"


def _whole(file: Path) -> bool:
    return file.exists() and zipfile.is_zipfile(file)


def _digest(x: np.ndarray) -> str:
    digest = hashlib.sha256(str(x.dtype).encode())
    for start in range(0, x.shape[0], _CHUNK):
        digest.update(np.ascontiguousarray(x[start : start + _CHUNK]).tobytes())
    return digest.hexdigest()


def _same_join(folder: Path, about: dict[str, Any]) -> None:
    file = folder / "join.json"
    if file.exists():
        found = json.loads(file.read_text())
        if found != about:
            raise InvalidInputError(
                "A folder holds one join", got=f"{found}, now {about}", where=str(folder), fix="use another folder"
            )
        return
    unfinished = folder / f".join.{os.getpid()}.json"
    unfinished.write_text(json.dumps(about))
    os.replace(unfinished, file)


_best = jax.jit(search_shard, static_argnames=("k", "n", "metric"))


@partial(jax.jit, static_argnames=("n", "k"))
def _merged(costs: list[jax.Array], indices: list[jax.Array], n: int, k: int) -> tuple[jax.Array, jax.Array]:
    return merge_shards(jnp.hstack(costs), jnp.hstack(indices), n, k)


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
    return np.asarray(to_values(cost, metric)), np.asarray(index)
