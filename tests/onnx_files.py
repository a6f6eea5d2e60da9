"""Small ONNX classifiers written to disk, for tests that start from files."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def classifier(path: Path, seed: int = 0, features: int = 16, classes: int = 5, noise: float = 0.0) -> Path:
    """Writes Gemm, Relu, Gemm with weights from `seed`, and Gaussian `noise` on top: a stand-in for a child."""
    rng, width = np.random.default_rng(seed), 32
    weights = {
        "w1": rng.normal(size=(features, width)) * (2 / features) ** 0.5,
        "b1": rng.normal(size=width),
        "w2": rng.normal(size=(width, classes)) / width**0.5,
    }
    if noise:
        jitter = np.random.default_rng(seed + 1)
        weights = {name: w + noise * jitter.normal(size=w.shape) * w.std() for name, w in weights.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2"], ["y"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
