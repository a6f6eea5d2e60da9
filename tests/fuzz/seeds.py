"""Small files to start fuzzing from: one of each kind that a reader takes."""

import io
import json
import struct

import numpy as np
from onnx import TensorProto, helper

from tests.helpers.onnx_graphs import branch, dense, external, model, node, tensor, value
from tests.models.weights.files import legacy_file, state_dict_pickle, zip_file_of


def onnx_files():
    """Returns models with weights, shape arithmetic, nested graphs, a loop, external data and a function."""
    body = helper.make_graph(
        [node("Identity", "c", "d"), node("Add", "v one", "w")],
        "body",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("v", (1,))],
        [value("d", (), TensorProto.BOOL), value("w", (1,))],
    )
    function = helper.make_function("f", "F", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 17)])
    protos = [
        dense(),
        model(
            [
                node("Shape", "x", "s"),
                node("Concat", "s two", "shape", axis=0),
                node("ConstantOfShape", "shape", "c", value=tensor("v", np.float32([0.5]))),
                node("Cast", "c", "d", to=TensorProto.FLOAT),
                node("Transpose", "d", "y", perm=[1, 0, 2]),
            ],
            inputs=[value("x", (3, 4))],
            initializers=[tensor("two", np.int64([2]))],
        ),
        model(
            [
                node(
                    "If",
                    "t",
                    "y",
                    then_branch=branch([node("Relu", "x", "a")], "a"),
                    else_branch=branch([node("Constant", "", "k", value_float=1.0), node("Add", "x k", "b")], "b"),
                ),
                node("Tile", "w sizes", "w2"),
            ],
            initializers=[
                tensor("t", np.array(True)),
                tensor("sizes", np.int64([2, 3])),
                tensor("w", np.ones((1, 2), np.float16)),
            ],
        ),
        model(
            [node("Loop", "m t x", "y", body=body)],
            inputs=[value("x", (1,))],
            initializers=[
                tensor("m", np.int64(3)),
                tensor("t", np.array(True)),
                tensor("one", np.float32([1])),
            ],
        ),
        model([node("Add", "x w", "y")], initializers=[external("w", (2,), "w.bin", offset=0, length=8)]),
        model([node("F", "x", "y", domain="f")], domains=["f"], functions=[function]),
    ]
    return [proto.SerializeToString() for proto in protos]


def weight_files():
    """Returns a safetensors file and both of PyTorch's formats."""
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "np"}}
    text = json.dumps(header).encode()
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64(3)}
    pickle = state_dict_pickle(arrays)
    return [
        struct.pack("<Q", len(text)) + text + bytes(16),
        zip_file_of(
            {"archive/data.pkl": pickle, **{f"archive/data/{i}": a.tobytes() for i, a in enumerate(arrays.values())}}
        ),
        legacy_file(pickle, list(arrays.values())),
    ]


def archive_files():
    """Returns arrays alone, in an archive, and in a compressed one after other bytes."""
    streams = [io.BytesIO() for _ in range(3)]
    np.save(streams[0], np.arange(6.0).reshape(2, 3))
    np.savez(streams[1], a=np.arange(6.0), b=np.array(["x", "yz"]))
    np.savez_compressed(streams[2], a=np.zeros(100))
    return [streams[0].getvalue(), streams[1].getvalue(), b"\0\0" + streams[2].getvalue()]
