"""Joins in tiles: as `self_join`, whatever dies on the way."""

import subprocess
import sys

import numpy as np
import pytest

from modeldiff_jax.catalogue import tiled_join as joins
from modeldiff_jax.catalogue.tiled_join import join_in_tiles, read_join
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import self_join


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


def test_the_last_tile_and_the_last_chunk_are_as_the_others(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(joins, "_CHUNK", 20)
    joins._search.clear_cache()
    join_in_tiles(rows[:33], tmp_path, 3, tile=20)
    np.testing.assert_array_equal(read_join(tmp_path)[1], self_join(rows[:33], 3)[1])
    assert joins._search._cache_size() == 1


def test_refuses_what_is_no_matrix_of_real_numbers(rows, tmp_path):
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
