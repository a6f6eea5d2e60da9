"""Large models, one of them larger than protobuf allows: run in little more memory than they take on disk."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers.onnx_graphs import external, model, node, tensor, value

WIDTH = 4096
LAYER = WIDTH * WIDTH * 4  # bytes: 64 MiB
ROWS = 2

# In a process of its own, so that the peak is this model's
PROGRAM = """
import json, pathlib, re, sys
import numpy as np
import modeldiff_jax as md
import jax, onnx
jax.block_until_ready(jax.jit(lambda x: x @ x.T)(np.ones((2, 2), np.float32)))
def peak():  # of this program; `resource` counts what its parent was, too
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
model = md.load(sys.argv[1])
y = np.asarray(model(np.load(sys.argv[2])))
np.save(sys.argv[3], y)
print(json.dumps({"before": before, "after": peak()}))
"""


@pytest.fixture
def large(tmp_path, request):
    """The model file, its data inside or beside it, and an input with the outputs numpy gives for it."""
    layers, inside, op = request.param
    weights, names = [], ["x"]
    spatial = (1, 1) if op == "Conv" else ()  # the filters of a convolution are kept in another order than the file's
    x = y = np.random.default_rng(1).standard_normal((ROWS, WIDTH), np.float32)
    block = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
    with (tmp_path / "weights.bin").open("wb") as stream:
        for i in range(layers):
            array = np.roll(block, 7919 * i, axis=0)  # cheap to make, and all different
            if inside:
                stored = array.T if op == "Conv" else array
                weights.append(tensor(f"w{i}", stored.reshape(WIDTH, WIDTH, *spatial)))
            else:
                array.tofile(stream)
                weights.append(external(f"w{i}", (WIDTH, WIDTH), "weights.bin", TensorProto.FLOAT, offset=i * LAYER))
            y = np.maximum(y @ array, 0) if i % 2 else y @ array
    nodes = []
    for i in range(layers):
        nodes.append(node(op, f"{names[-1]} w{i}", f"h{i}"))
        names.append(f"h{i}")
        if i % 2:
            nodes.append(node("Relu", f"h{i}", f"r{i}"))
            names.append(f"r{i}")
    outputs = [value(names[-1], ("n", WIDTH, *spatial))]
    proto = model(nodes, [value("x", ("n", WIDTH, *spatial))], outputs, weights)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    np.save(tmp_path / "x.npy", x.reshape(ROWS, WIDTH, *spatial))
    yield tmp_path, y.reshape(ROWS, WIDTH, *spatial)
    for name in ("weights.bin", "m.onnx"):
        (tmp_path / name).unlink()


@pytest.mark.long
@pytest.mark.parametrize(
    "large",
    [(48, False, "MatMul"), (8, True, "MatMul"), (8, True, "Conv")],
    ids=["3 GiB beside", "512 MiB inside", "512 MiB of filters"],
    indirect=True,
)
def test_a_model_takes_little_more_memory_than_disk(large):
    folder, expected = large
    files = [str(folder / name) for name in ("m.onnx", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)
    size = sum((folder / name).stat().st_size for name in ("m.onnx", "weights.bin"))
    given = np.load(folder / "y.npy")
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4 * np.ptp(expected))
    used = peak["after"] - peak["before"]  # without what Python and JAX take for any model
    print(f"peak {used / size:.2f} of {size / 2**30:.1f} GiB")
    assert used <= 1.3 * size, peak
