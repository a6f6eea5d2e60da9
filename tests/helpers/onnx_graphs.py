"""Small ONNX graphs, well-formed or broken on purpose, and classifiers written to files."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def value(name, shape=("n",), dtype=FLOAT):
    """Returns the spec of a graph's input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def tensor(name, array):
    """Returns an initializer."""
    return numpy_helper.from_array(np.asarray(array), name)


def external(name, shape, location, dtype=FLOAT, **entries):
    """Returns an initializer whose data are in another file."""
    proto = TensorProto(name=name, dims=shape, data_type=dtype, data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": location, **entries}.items():
        proto.external_data.add(key=key, value=str(entry))
    return proto


def model(nodes, inputs=None, outputs=None, initializers=(), opset=17, domains=(), functions=()):
    """Returns a ModelProto; by default `x` in and `y` out."""
    inputs = [value("x")] if inputs is None else inputs
    outputs = [value("y")] if outputs is None else outputs
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    proto = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    proto.ir_version = 8
    return proto


def node(op, inputs, outputs, **attributes):
    """Returns one node; names are given as one string, separated by spaces."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def branch(nodes, outputs, name="branch"):
    """Returns a nested graph without inputs."""
    return helper.make_graph(list(nodes), name, [], [value(o) for o in outputs.split()])


def dense():
    """Returns y = relu(x @ w + b), with 8 inputs and 3 outputs."""
    rng = np.random.default_rng(0)
    return model(
        [node("MatMul", "x w", "h"), node("Add", "h b", "s"), node("Relu", "s", "y")],
        inputs=[value("x", ("n", 8))],
        outputs=[value("y", ("n", 3))],
        initializers=[
            tensor("w", rng.standard_normal((8, 3)).astype(np.float32)),
            tensor("b", np.float32([0.1, 0.2, 0.3])),
        ],
    )


def classifier(path: Path, seed: int = 0, features: int = 16, classes: int = 5, noise: float = 0.0) -> Path:
    """Writes Gemm, Relu, Gemm with weights from `seed`, and Gaussian `noise` added, as a substitute for a child."""
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
