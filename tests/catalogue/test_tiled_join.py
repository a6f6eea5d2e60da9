"""Joins in tiles: results equal those of `self_join`, even if processes die."""

import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from modeldiff_jax.catalogue import tiled_join as joins
from modeldiff_jax.catalogue.tiled_join import join_in_tiles, read_join
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import self_join
from modeldiff_jax.runtime import atomic_file

ABOUT = {"rows": 40, "width": 5, "k": 3, "metric": "cosine", "tile": 20, "sha256": "0" * 64}


@pytest.fixture
def rows():
    rows = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    rows[7::8] = rows[3]  # ties
    return rows


def test_agrees_with_self_join_and_goes_on_where_it_was_stopped(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(joins, "_CHUNK", 20)
    assert len(join_in_tiles(rows, tmp_path, 3, tile=20)) == 2
    values, index = read_join(tmp_path)
    want = self_join(rows, 3)
    np.testing.assert_array_equal(index, want[1])
    np.testing.assert_allclose(values, want[0], atol=1e-6)
    assert join_in_tiles(rows, tmp_path, 3, tile=20) == []
    lost = tmp_path / "tile-00001.npz"
    lost.write_bytes(lost.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="tile-00001"):
        read_join(tmp_path)
    assert join_in_tiles(rows, tmp_path, 3, tile=20, share=(0, 2)) == []
    assert join_in_tiles(rows, tmp_path, 3, tile=20, share=(1, 2)) == [lost]
    np.testing.assert_array_equal(read_join(tmp_path)[1], index)


DAMAGED = {
    "empty": b"",
    "cut": b'{"rows": 40, "wid',
    "another object": b"[1, 2]",
    "nothing in it": b"{}",
    "a number as text": json.dumps({**ABOUT, "rows": "40"}).encode(),
    "no rows": json.dumps({**ABOUT, "rows": 0}).encode(),
    "a tile of none": json.dumps({**ABOUT, "tile": 0}).encode(),
    "a truth value": json.dumps({**ABOUT, "k": True}).encode(),
    "not text": b"\xff\xfe{",
    "deep": b"[" * 9000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_description_is_an_error_with_a_fix(rows, tmp_path, content):
    (tmp_path / "join.json").write_bytes(content)
    for use in (lambda: join_in_tiles(rows, tmp_path, 3, tile=20), lambda: read_join(tmp_path)):
        with pytest.raises(InvalidInputError, match="description") as caught:
            use()
        assert caught.value.where.endswith("join.json")
        assert "delete join.json" in caught.value.fix
    assert [file.name for file in tmp_path.iterdir()] == ["join.json"]


def test_a_description_that_is_no_regular_file_is_refused_by_name(rows, tmp_path):
    os.mkfifo(tmp_path / "join.json")
    with pytest.raises(InvalidInputError, match="named pipe"):
        read_join(tmp_path)


def test_a_tile_of_other_content_is_made_again(rows, tmp_path):
    join_in_tiles(rows, tmp_path, 3, tile=20)
    values, indices = read_join(tmp_path)
    tile = tmp_path / "tile-00000.npz"
    content = bytearray(tile.read_bytes())
    content[content.index(values[0].tobytes())] ^= 1  # one bit
    damages = [bytes(content), b"", b"no tile", npz(values=values, indices=indices), npz(values=values[:20])]
    for damage in damages:
        tile.write_bytes(damage)
        with pytest.raises(InvalidInputError, match="tile-00000"):
            read_join(tmp_path)
        assert join_in_tiles(rows, tmp_path, 3, tile=20) == [tile]
        np.testing.assert_array_equal(read_join(tmp_path)[1], indices)


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("full_at", ["join.json", "tile-00001.npz"])
def test_a_full_disk_costs_the_file_being_written(rows, tmp_path, monkeypatch, full_at):
    real = atomic_file.os.replace

    def replace(source, target):
        if target.name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(atomic_file.os, "replace", replace)
    with pytest.raises(InvalidInputError, match="No space left"):
        join_in_tiles(rows, tmp_path, 3, tile=20)
    left = ["join.json", "tile-00000.npz"]
    assert sorted(file.name for file in tmp_path.iterdir()) == left[: left.index(full_at) if full_at in left else 2]
    monkeypatch.setattr(atomic_file.os, "replace", real)
    assert join_in_tiles(rows, tmp_path, 3, tile=20)[-1].name == "tile-00001.npz"
    assert read_join(tmp_path)[1].shape == (40, 3)


def test_the_last_tile_and_the_last_chunk_are_as_the_others(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(joins, "_CHUNK", 20)
    joins._search.clear_cache()
    join_in_tiles(rows[:33], tmp_path, 3, tile=20)
    np.testing.assert_array_equal(read_join(tmp_path)[1], self_join(rows[:33], 3)[1])
    assert joins._search._cache_size() == 1


def test_other_arrays_than_matrices_of_real_numbers_are_refused(rows, tmp_path):
    for x in (rows[0], rows + 1j):
        with pytest.raises(InvalidInputError, match="of real numbers"):
            join_in_tiles(x, tmp_path, 3)


@pytest.mark.long
def test_a_killed_process_costs_one_tile(rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    program = f"""
import os, numpy as np
from modeldiff_jax.catalogue import tiled_join as joins
real, done = joins._tile, []
def tile(*arguments):
    done.append(1)
    return real(*arguments) if len(done) < 2 else os._exit(9)
joins._tile = tile
joins.join_in_tiles(np.load({str(tmp_path / "rows.npy")!r}), {str(tmp_path / "join")!r}, 3, tile=20)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert [file.name for file in join_in_tiles(rows, tmp_path / "join", 3, tile=20)] == ["tile-00001.npz"]
    np.testing.assert_array_equal(read_join(tmp_path / "join")[1], self_join(rows, 3)[1])


@pytest.mark.long
def test_one_folder_one_join(rows, tmp_path):
    join_in_tiles(rows, tmp_path, 3, tile=40)
    with pytest.raises(InvalidInputError, match="one join"):
        join_in_tiles(rows + 1, tmp_path, 3, tile=40)
    with pytest.raises(InvalidInputError, match="holds a join"):
        read_join(tmp_path / "elsewhere")
