"""Malicious models: each asks for something no model may have.

python -m tests.models.hostile_corpus FOLDER     writes them, opens each, prints how it was refused and what that took
"""

import json
import os
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from tests.helpers.onnx_graphs import branch, dense, external, model, node, tensor, value
from tests.models.weights import files as w


def made_of(op, *arrays, opset=17, **attributes):
    """One node that makes a tensor out of constants."""
    names = [f"i{i}" for i in range(len(arrays))]
    stored = [tensor(name, array) for name, array in zip(names, arrays, strict=True)]
    return model([helper.make_node(op, names, ["y"], **attributes)], [], initializers=stored, opset=opset)


def function_bomb():
    """Thirty functions, each of which calls the one before twice: 2**30 nodes."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [node("Relu", "a", "b")], imports)]
    for i in range(1, 31):
        calls = [node(f"F{i - 1}", "a", "m", domain="f"), node(f"F{i - 1}", "m", "b", domain="f")]
        functions.append(helper.make_function("f", f"F{i}", ["a"], ["b"], calls, imports))
    return model([node("F30", "x", "y", domain="f")], domains=["f"], functions=functions)


def function_that_calls_itself():
    """Recursion without an end."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    function = helper.make_function("f", "F", ["a"], ["b"], [node("F", "a", "b", domain="f")], imports)
    return model([node("F", "x", "y", domain="f")], domains=["f"], functions=[function])


def loop(trips, inner=None):
    """A loop; `inner` is a node in its body from `v` to `w`."""
    body = helper.make_graph(
        [node("Identity", "c", "d"), inner or node("Add", "v one", "w")],
        "body",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("v", ("n",))],
        [value("d", (), TensorProto.BOOL), value("w", ("n",))],
    )
    stored = [tensor("m", np.int64(trips)), tensor("t", np.array(True)), tensor("one", np.float32([1]))]
    return model([node("Loop", "m t x", "y", body=body)], [value("x", (1,))], initializers=stored)


def growing_loop():
    """Returns a Loop whose carried tensor doubles in each iteration."""
    return loop(1000, helper.make_node("Concat", ["v", "v"], ["w"], axis=0))


def record(number, content):
    """A field of a protobuf message."""
    length, varint = len(content), bytearray()
    while length > 127:
        varint.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 & 127 | 2]) + bytes([*varint, length]) + content


def deep_if(depth):
    """A branch in a branch and so on, more deeply than the library that writes such files can be made to write."""
    graph = branch([node("Identity", "x", "z")], "z").SerializeToString()
    for i in range(depth):
        attributes = b""
        for name in (b"then_branch", b"else_branch")[: 1 if i else 2]:
            # AttributeProto: name, g, and type GRAPH (field 20)
            attributes += record(5, record(1, name) + record(6, graph) + b"\xa0\x01\x05")
        call = record(1, b"t") + record(2, b"z%d" % i) + record(4, b"If") + attributes
        graph = record(1, call) + record(2, b"b") + record(12, record(1, b"z%d" % i))
    whole = model([node("Relu", "x", "y")], initializers=[tensor("t", np.array(True))]).SerializeToString()
    return whole + record(7, graph)  # protobuf merges a repeated field


def weights(**tensor_fields):
    """A model with one weight whose record says what it likes."""
    record = TensorProto(name="w", data_type=TensorProto.FLOAT)
    for field, content in tensor_fields.items():
        if isinstance(content, list):
            getattr(record, field).extend(content)
        else:
            setattr(record, field, content)
    return model([node("Add", "x w", "y")], initializers=[record])


def outside(location, **entries):
    """A model whose weight lies in another file."""
    return model([node("Add", "x w", "y")], initializers=[external("w", (4,), location, **entries)])


def chained(op, steps, **attributes):
    """Each node reads the one before twice or more."""
    nodes = [helper.make_node(op, [f"c{i}"] * 64, [f"c{i + 1}"], **attributes) for i in range(steps)]
    return model(nodes, [], [value(f"c{steps}")], [tensor("c0", np.zeros(64, np.float32))])


def many_made():
    """Tensors of half a gigabyte, forty of them, each below what one may have."""
    nodes = [node("ConstantOfShape", "s", f"c{i}") for i in range(40)]
    nodes.append(helper.make_node("Sum", [f"c{i}" for i in range(40)], ["y"]))
    return model(nodes, [], initializers=[tensor("s", np.int64([2**27]))])


def sparse():
    """A sparse weight of 4 TiB beside the graph."""
    stored = helper.make_sparse_tensor(tensor("v", np.float32([1])), tensor("i", np.int64([0])), [2**40])
    proto = dense()
    proto.graph.sparse_initializer.add().CopyFrom(stored)
    return proto


def small(*nodes, **options):
    """A model of one-dimensional `x` and `y`."""
    return model(list(nodes), **options)


def resized(**inputs):
    """A Resize of a small image: by sizes or by scales."""
    none = np.zeros(0, np.float32)
    image = np.zeros((1, 1, 2, 2), np.float32)
    if "sizes" in inputs:
        return made_of("Resize", image, none, none, np.int64(inputs["sizes"]))
    return made_of("Resize", image, none, np.float32(inputs["scales"]))


ONNX = {
    "function bomb": function_bomb,
    "function that calls itself": function_that_calls_itself,
    "ConstantOfShape of 4 TiB": lambda: made_of("ConstantOfShape", np.int64([2**20, 2**20])),
    "ConstantOfShape beyond 64 bits": lambda: made_of("ConstantOfShape", np.int64([2**40] * 4)),
    "ConstantOfShape of 2 GiB": lambda: made_of(
        "ConstantOfShape", np.int64([2**28]), value=tensor("v", np.float64([1]))
    ),
    "ConstantOfShape of negative sizes": lambda: made_of("ConstantOfShape", np.int64([-(2**40), -(2**40)])),
    "ConstantOfShape forty times": many_made,
    "Expand": lambda: made_of("Expand", np.float32([0]), np.int64([2**20, 2**20])),
    "Tile": lambda: made_of("Tile", np.zeros((2, 2), np.float32), np.int64([2**19, 2**19])),
    "Tile beyond 64 bits": lambda: made_of("Tile", np.zeros((2, 2), np.float32), np.int64([2**62, 2**62])),
    "Range": lambda: made_of("Range", np.int64(0), np.int64(2**62), np.int64(1)),
    "Range of floats": lambda: made_of("Range", np.float32(0), np.float32(1), np.float32(1e-38)),
    "Range to infinity": lambda: made_of("Range", np.float32(0), np.float32(np.inf), np.float32(1)),
    "Range by nothing": lambda: made_of("Range", np.float32(0), np.float32(1), np.float32(0)),
    "Range by NaN": lambda: made_of("Range", np.float32(0), np.float32(1), np.float32(np.nan)),
    "Pad": lambda: made_of("Pad", np.zeros((2, 2), np.float32), np.int64([2**19, 2**19, 0, 0])),
    "Pad beyond 64 bits": lambda: made_of("Pad", np.zeros((2, 2), np.float32), np.int64([2**62, 2**62, 2**62, 2**62])),
    "OneHot": lambda: made_of("OneHot", np.zeros(2**10, np.int64), np.int64(2**40), np.float32([0, 1])),
    "Resize by sizes": lambda: resized(sizes=[1, 1, 2**20, 2**20]),
    "Resize by scales": lambda: resized(scales=[1, 1, 1e30, 1e30]),
    "Resize by infinity": lambda: resized(scales=[1, 1, np.inf, 1]),
    "Concat chain": lambda: chained("Concat", 8, axis=0),
    "outer product": lambda: made_of("MatMul", np.zeros((2**17, 1), np.float32), np.zeros((1, 2**17), np.float32)),
    "broadcast": lambda: made_of("Add", np.zeros((2**17, 1), np.float32), np.zeros((1, 2**17), np.float32)),
    "Gather of much": lambda: made_of("Gather", np.zeros((1, 2**16), np.float32), np.zeros(2**16, np.int64)),
    "endless Loop": lambda: loop(2**62),
    "Loop that doubles": growing_loop,
    "deep If": lambda: deep_if(28),
    "deeper If": lambda: deep_if(45),
    "negative dims": lambda: weights(dims=[-1], float_data=[1.0]),
    "negative dims whose product is right": lambda: weights(dims=[-2, -2], float_data=[1.0] * 4),
    "dims beyond 64 bits": lambda: weights(dims=[2**62, 2**62, 2**62], raw_data=b"1234"),
    "dims of nothing and much": lambda: weights(dims=[0, 2**62, 2**62, 2**62], raw_data=b"1"),
    "short data": lambda: weights(dims=[1000], raw_data=b"1234"),
    "long data": lambda: weights(dims=[1], raw_data=bytes(4000)),
    "short numbers": lambda: weights(dims=[1000], float_data=[1.0]),
    "65 axes": lambda: weights(dims=[1] * 65, float_data=[1.0]),
    "unknown element type": lambda: weights(dims=[1], data_type=99, raw_data=b"1234"),
    "sparse weights": sparse,
    "names defined twice": lambda: small(node("Relu", "x", "y"), node("Neg", "x", "y")),
    "a weight's name as an output": lambda: small(node("Relu", "x", "w"), initializers=[tensor("w", np.float32([1]))]),
    "a cycle": lambda: small(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")),
    "a node that reads itself": lambda: small(node("Add", "x y", "y")),
    "an output that no node computes": lambda: small(node("Relu", "x", "z")),
    "an exponent beyond floats": lambda: made_of("ConstantOfShape", np.float32([1e38, 1e38])),
    "data above": lambda: outside("../secret.bin"),
    "data above, from below": lambda: outside("inner/../../secret.bin"),
    "data at an absolute path": lambda: outside("/etc/hostname"),
    "data behind a link": lambda: outside("link.bin"),
    "data behind a linked folder": lambda: outside("linked/secret.bin"),
    "data behind a hard link": lambda: outside("hard.bin"),
    "data in a pipe": lambda: outside("pipe"),
    "data in a device": lambda: outside("/dev/zero"),
    "data at an offset beyond the file": lambda: outside("w.bin", offset=2**62),
    "data at an offset beyond 64 bits": lambda: outside("w.bin", offset=2**64),
    "data at a negative offset": lambda: outside("w.bin", offset=-8),
    "data with too short a length": lambda: outside("w.bin", length=8),
    "data with a length beyond the file": lambda: outside("w.bin", length=2**62),
    "data with a number of a million digits": lambda: outside("w.bin", offset="1" * 10**6),
    "attribute by a key": lambda: outside("w.bin", __class__="x"),
    "attribute by a nested key": lambda: outside("w.bin", **{"__init__.__globals__": "x"}),
    "attribute that exists": lambda: outside("w.bin", basepath="/", _file_path="/etc/passwd"),
}


def header_of(entries, data=b""):
    """A safetensors file."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def state_dict(value_, storages=(b"1234",)):
    """A zip file of weights with one entry."""
    return w.zip_file(w.whole(w.dictionary({"a": value_})), [np.frombuffer(s, np.uint8) for s in storages])


def repeated(shape):
    """A tensor that shows one element many times."""
    return state_dict(w.rebuilt(w.storage("0", "float32", 1), 0, shape, (0,) * len(shape)))


def many_entries():
    """A zip archive with a directory of 40 MB."""
    name = b"n" * 60_000
    directory = (
        struct.pack("<4s4B4H3L5H2L", b"PK\x01\x02", *bytes(4), *[0] * 4, *[0] * 3, len(name), *[0] * 4, 0, 0) + name
    )
    whole = directory * 700
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 700, 700, len(whole), 4, 0)
    return b"PK\x03\x04" + whole + end


def code(module, name_):
    """A state dict that calls something."""
    return state_dict(w.name(module, name_) + w.MARK + w.text("touch ran") + w.TUPLE + w.REDUCE)


WEIGHTS = {
    "safetensors: header of 16 EiB": lambda: struct.pack("<Q", 2**63) + b"{}",
    "safetensors: header of 40 MB": lambda: header_of(b'{"a":[' + b"{}," * 13_000_000 + b"{}]}"),
    "safetensors: header of 4 MB of dictionaries": lambda: header_of(b'{"a":[' + b"{}," * 1_390_000 + b"{}]}"),
    "safetensors: deep header": lambda: header_of(b'{"a":' + b"[" * 10**6),
    "safetensors: tensor of 4 TiB": lambda: header_of(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "safetensors: sizes beyond 64 bits": lambda: header_of(
        {"a": {"dtype": "F32", "shape": [2**40] * 60, "data_offsets": [0, 4]}}, b"1234"
    ),
    "safetensors: overlap": lambda: header_of(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, b"1234"
    ),
    "pth: os.system": lambda: code("os", "system"),
    "pth: builtins.eval": lambda: code("builtins", "eval"),
    "pth: a class of torch": lambda: code("torch.storage", "_load_from_bytes"),
    "pth: repeated to 4 TiB": lambda: repeated((2**20, 2**20)),
    "pth: repeated to 1 GiB": lambda: repeated((2**14, 2**14 + 1)),
    "pth: four million empty dictionaries": lambda: w.zip_file(w.whole(b"}" * (2**22 - 100)), []),
    "pth: four million marks": lambda: w.zip_file(w.whole(w.MARK * (2**22 - 100)), []),
    "pth: a stream of dictionaries": lambda: w.MAGIC + w.VERSION + b"}" * (2**22 - 100),
    "pth: compressed": lambda: w.zip_file_of({"archive/data.pkl": bytes(2**26)}, zipfile.ZIP_DEFLATED),
    "pth: a long directory": many_entries,
    "pth: a view beyond its storage": lambda: state_dict(w.rebuilt(w.storage("0", "float32", 1), 2**40, (1,), (1,))),
}


def surroundings(folder):
    """What lies around the models: good data, and what must not be read."""
    inner = folder / "models"
    (inner / "inner").mkdir(parents=True)
    (inner / "w.bin").write_bytes(bytes(16))
    (folder / "secret.bin").write_bytes(bytes(16))
    (inner / "link.bin").symlink_to("../secret.bin")
    (inner / "linked").symlink_to("..")
    os.link(folder / "secret.bin", inner / "hard.bin")
    os.mkfifo(inner / "pipe")
    return inner


def peak_bytes():
    """Returns the peak memory of this process since `forget_peak`, or since its start if that is unknown."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no /proc/self/status: Linux only")


def forget_peak():
    """Starts measuring the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main(folder):
    """Opens every model of the corpus; prints one JSON record each."""
    import modeldiff_jax as md
    from modeldiff_jax.models.inputs.examples import example_inputs

    inner = surroundings(Path(folder))

    def run(path):
        converted = md.load(path)
        return converted(**example_inputs(converted).inputs) if converted.inputs else converted()

    (inner / "good.onnx").write_bytes(dense().SerializeToString())
    run(inner / "good.onnx")  # imports, once
    for cases, extension, action in ((ONNX, "onnx", run), (WEIGHTS, "pth", md.load_weights)):
        for i, (name, make) in enumerate(cases.items()):
            content = make()
            path = inner / f"{i}.{extension}"
            path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
            del content
            forget_peak()
            start, before = time.process_time(), peak_bytes()
            record = {"name": name, "error": None, "message": "", "is_modeldiff_error": False}
            try:
                action(path)
            except Exception as error:
                output = isinstance(error, md.ModelDiffError)
                record |= {"error": type(error).__name__, "message": str(error)[:400], "is_modeldiff_error": output}
            spent = {"seconds": time.process_time() - start, "bytes": peak_bytes() - before}
            print(json.dumps(record | spent), flush=True)
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
