"""The fuzz targets take their seeds, and pass on changed ones without the fuzzer."""

import random

import pytest
from onnx import ModelProto

from tests.fuzz import seeds, targets
from tests.fuzz.protobuf_mutator import mutated


def flipped(data):
    """Replaces a third of the bytes, in place of a fuzzer."""
    rng = random.Random(len(data))
    return bytes(rng.randrange(256) if rng.random() < 0.3 else byte for byte in data) or b"\0"


def test_seeds_are_whole_files():
    assert sum(targets.reader(data) is not None for data in seeds.onnx_files()) >= 4
    assert sum(targets.conversion(data) is not None for data in seeds.onnx_files()) >= 3
    assert all(targets.weights(data) for data in seeds.weight_files())
    array, archive, both = map(targets.archives, seeds.archive_files())
    assert array[0] is None
    assert array[1]
    assert all(archive)
    assert both[0]


@pytest.mark.parametrize("seed", range(len(seeds.onnx_files())))
def test_changed_messages_give_a_graph_or_an_error_of_ours(seed):
    data = seeds.onnx_files()[seed]
    changed = {mutated(ModelProto.FromString(data), i, flipped).SerializeToString() for i in range(60)}
    assert len(changed) > 20
    for message in changed:
        targets.reader(message)
    for message in sorted(changed)[:4]:
        targets.conversion(message)


OTHERS = [(targets.weights, data) for data in seeds.weight_files()]
OTHERS += [(targets.archives, data) for data in seeds.archive_files()]


@pytest.mark.parametrize("seed", range(len(OTHERS)))
def test_changed_files_give_arrays_or_an_error_of_ours(seed):
    target, data = OTHERS[seed]
    rng = random.Random(seed)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        target(bytes(changed))
