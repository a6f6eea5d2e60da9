"""Probe sets: frozen, identified by their content, saved whole or not at all."""

import json
import os

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.inputs.space import generic_space, image_space, signal_space, token_space
from modeldiff_jax.probes.probe_set import ProbeSet, concatenate, load_probes

SPACES = [image_space(8, 9), signal_space(20), token_space(7), generic_space((2, 3)), generic_space(())]

own_error = pytest.mark.types_unchecked("the error is the product's own")


def pairs(space, n=4, seed=0):
    rng = np.random.default_rng(seed)
    if space.kind == "tokens":
        return tuple(rng.integers(0, 256, (2, n, *space.shape)).astype(np.int32))
    return tuple(rng.uniform(space.low, space.high, (2, n, *space.shape)).astype(np.float32))


def probe_set(space=SPACES[0], n=4, seed=0, **more):
    return ProbeSet(*pairs(space, n, seed), space, **more)


def ramp():
    """Returns pairs that depend on no random generator or compiler."""
    values = (np.arange(24, dtype=np.float32) / 24).reshape(2, 3, 2, 2)
    return ProbeSet(values[0], values[1], generic_space((2, 2)), "cosine", {"method": "ramp"})


def test_the_id_is_pinned():
    assert ramp().probe_set_id == "ps1-6102aaee98bc8a3c043bf87a6d74a8a4"


@pytest.mark.parametrize("layout", ["big-endian", "fortran", "strided"])
def test_the_id_is_of_the_values_whatever_their_layout_in_memory(layout):
    p = ramp()
    seeds = {
        "big-endian": lambda a: a.astype(">f4"),
        "fortran": np.asfortranarray,
        "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    }[layout](p.seeds)
    assert ProbeSet(seeds, p.partners, p.space, p.metric).probe_set_id == p.probe_set_id


def test_the_id_is_of_pairs_space_and_metric_and_not_of_the_origin():
    p = ramp()
    other = p.seeds.copy()
    other[0, 0, 0] = np.nextafter(other[0, 0, 0], 1)
    assert ProbeSet(p.seeds, p.partners, p.space, "cosine", {"method": "other"}).probe_set_id == p.probe_set_id
    changed = [
        ProbeSet(other, p.partners, p.space),
        ProbeSet(p.partners, p.seeds, p.space),
        ProbeSet(p.seeds[:2], p.partners[:2], p.space),
        ProbeSet(p.seeds[::-1], p.partners[::-1], p.space),
        ProbeSet(p.seeds, p.partners, generic_space((2, 2), -2, 1)),
        ProbeSet(p.seeds.reshape(3, 4), p.partners.reshape(3, 4), generic_space((4,))),
        ProbeSet(p.seeds, p.partners, p.space, "euclidean"),
    ]
    assert len({p.probe_set_id, *(c.probe_set_id for c in changed)}) == len(changed) + 1


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_save_and_load(tmp_path, space):
    path = tmp_path / "probes.npz"
    p = probe_set(space, metric="euclidean", origin={"method": "pgd", "queries": 7, "made_on": {"sha256": "ab"}})
    p.save(path)
    q = load_probes(path)
    assert q.probe_set_id == p.probe_set_id
    np.testing.assert_array_equal(q.seeds, p.seeds)
    np.testing.assert_array_equal(q.partners, p.partners)
    assert (q.space, q.metric, q.origin, len(q)) == (p.space, p.metric, p.origin, len(p))
    assert os.listdir(tmp_path) == ["probes.npz"]


def test_frozen():
    seeds, partners = pairs(SPACES[0])
    origin = {"method": "pgd", "steps": [1]}
    p = ProbeSet(seeds, partners, SPACES[0], origin=origin)
    before = p.seeds.copy()
    seeds[:] = 0
    origin["steps"].append(2)
    np.testing.assert_array_equal(p.seeds, before)
    assert p.origin["steps"] == [1]
    with pytest.raises(ValueError, match="read-only"):
        p.partners[0] = 0
    with pytest.raises(TypeError):
        p.origin["method"] = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, p: (s[:1], p[:1]), "at least two"),
        (lambda s, p: (s, p[:3]), "one partner"),
        (lambda s, p: (s[..., :1], p), "Seeds are float32 of shape"),
        (lambda s, p: (s, p.reshape(4, -1)), "Partners are float32 of shape"),
        (lambda s, p: (s.astype(np.float64), p), "float64"),
        (lambda s, p: (s, np.where(p == p.max(), np.nan, p)), "NaN"),
        (lambda s, p: (s + np.float32(1), p), r"\[0, 1\]"),
        (lambda s, p: (s, -p), r"\[0, 1\]"),
    ],
)
def test_unsound_pairs_are_refused(change, message):
    with pytest.raises(InvalidInputError, match=message):
        ProbeSet(*change(*pairs(SPACES[0])), SPACES[0])


@pytest.mark.parametrize("more", [{"metric": ""}, {"origin": {"a": object()}}, {"origin": {"a": float("nan")}}])
def test_unsound_facts_are_refused(more):
    with pytest.raises(InvalidInputError):
        probe_set(**more)


def _rewrite(path, **changes):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays["header"].tobytes())
    for name, value in changes.items():
        if name in arrays and name != "header":
            arrays[name] = value
        else:
            header[name] = value
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": np.full((4, 8, 9, 3), 0.5, np.float32)}, "matches its id"),
        ({"metric": "euclidean"}, "matches its id"),
        ({"id": "ps1-" + "0" * 32}, "matches its id"),
        ({"space": {**image_space(8, 9).to_dict(), "high": 2.0}}, "matches its id"),
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "format"),
        ({"space": 3}, "header"),
        ({"space": image_space(9, 9).to_dict()}, "shape"),
        pytest.param({"metric": ["cosine"]}, "metric", marks=own_error),
        pytest.param({"origin": 3}, "origin", marks=own_error),
    ],
)
def test_an_altered_file_is_refused(tmp_path, changes, message):
    path = tmp_path / "probes.npz"
    probe_set().save(path)
    _rewrite(path, **changes)
    with pytest.raises(InvalidInputError, match=message):
        load_probes(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x00\x00", b"\x01\x00", 40)),
        lambda path: np.savez(path, seeds=np.zeros(3)),
        lambda path: np.savez(path, header=np.zeros(3, np.uint8), seeds=np.zeros(3), partners=np.zeros(3)),
        lambda path: np.savez(path, header=np.array([{}], object), seeds=np.zeros(3), partners=np.zeros(3)),
        lambda path: np.savez(path, header=np.zeros(3), seeds=np.zeros(3), partners=np.zeros(3)),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "probes.npz"
    probe_set().save(path)
    damage(path)
    with pytest.raises(InvalidInputError):
        load_probes(path)


def test_a_large_file_is_refused(tmp_path):
    path = tmp_path / "probes.npz"
    probe_set().save(path)
    with pytest.raises(LimitExceededError, match="probe_bytes"):
        load_probes(path, Limits(probe_bytes=1000))


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "probes.npz"
    path.mkdir()
    (path / "kept").write_text("")
    with pytest.raises(InvalidInputError, match="can be written"):
        probe_set().save(path)
    with pytest.raises(InvalidInputError, match="can be written"):
        probe_set().save(tmp_path / "nowhere" / "probes.npz")
    assert os.listdir(tmp_path) == ["probes.npz"]


def test_saving_replaces(tmp_path):
    path = tmp_path / "probes.npz"
    probe_set(seed=0).save(path)
    probe_set(seed=1).save(str(path))
    assert load_probes(path).probe_set_id == probe_set(seed=1).probe_set_id


def test_sets_are_joined_over_one_space_and_metric():
    a, b = probe_set(seed=0), probe_set(seed=1, n=3)
    both = concatenate(a, b)
    assert len(both) == 7
    np.testing.assert_array_equal(both.seeds[4:], b.seeds)
    np.testing.assert_array_equal(both.partners[:4], a.partners)
    for other in (probe_set(SPACES[1]), probe_set(metric="euclidean")):
        with pytest.raises(InvalidInputError, match="one space"):
            concatenate(a, other)
