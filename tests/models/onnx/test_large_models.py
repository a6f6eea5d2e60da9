"""A model larger than protobuf allows: loaded, run and compared in little more memory than it takes on disk."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto

from tests.onnx_protos import external, model, node, value

WIDTH = 4096
LAYERS = 48  # of 64 MiB each: 3 GiB
ROWS = 2

# In a process of its own, so that the peak is this model's
PROGRAM = """
import json, resource, sys
import numpy as np
import modeldiff_jax as md
import jax, onnx
jax.block_until_ready(jax.jit(lambda x: x @ x.T)(np.ones((2, 2), np.float32)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = md.load(sys.argv[1])
y = np.asarray(model(np.load(sys.argv[2])))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
np.save(sys.argv[3], y)
print(json.dumps({"before": before * 1024, "after": after * 1024}))
"""


@pytest.fixture
def large(tmp_path):
    """The model file, its data beside it, and an input with the outputs numpy gives for it."""
    weights, names = [], ["x"]
    size = WIDTH * WIDTH * 4
    x = y = np.random.default_rng(1).standard_normal((ROWS, WIDTH), np.float32)
    block = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
    with (tmp_path / "weights.bin").open("wb") as stream:
        for i in range(LAYERS):
            array = np.roll(block, 7919 * i, axis=0)  # cheap to make, and all different
            array.tofile(stream)
            weights.append(external(f"w{i}", (WIDTH, WIDTH), "weights.bin", TensorProto.FLOAT, offset=i * size))
            y = np.maximum(y @ array, 0) if i % 2 else y @ array
    nodes = []
    for i in range(LAYERS):
        nodes.append(node("MatMul", f"{names[-1]} w{i}", f"h{i}"))
        names.append(f"h{i}")
        if i % 2:
            nodes.append(node("Relu", f"h{i}", f"r{i}"))
            names.append(f"r{i}")
    outputs = [value(names[-1], ("n", WIDTH))]
    proto = model(nodes, [value("x", ("n", WIDTH))], outputs, weights)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    np.save(tmp_path / "x.npy", x)
    yield tmp_path, y
    (tmp_path / "weights.bin").unlink()


@pytest.mark.long
def test_three_gigabytes_take_little_more_memory_than_disk(large):
    folder, expected = large
    files = [str(folder / name) for name in ("m.onnx", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)
    size = (folder / "weights.bin").stat().st_size
    assert size >= 3 * 2**30
    given = np.load(folder / "y.npy")
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4 * np.ptp(expected))
    assert peak["after"] <= 1.3 * size, peak
    print(f"peak {peak['after'] / size:.2f} of {size / 2**30:.1f} GiB")
