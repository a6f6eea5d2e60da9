"""For any model file `load` returns a model or raises one of the package's errors, soon, and writes nothing."""

import io
import os
import pickle
import resource
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from modeldiff_jax.errors import (
    InvalidModelError,
    LimitExceededError,
    ModelDiffError,
    UnsafeModelError,
    UnsupportedModelError,
)
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.inputs.sizes import resolve
from modeldiff_jax.models.load import load
from tests.helpers.onnx_graphs import branch, dense, external, model, node, tensor, value

DENSE = dense().SerializeToString()


@pytest.fixture
def place(tmp_path):
    """Writes bytes to a file in a folder, and asserts at the end that nothing else was written there."""
    written = []

    def write(data, name="m.onnx"):
        file = tmp_path / name
        file.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        written.append(file)
        return file

    yield write
    assert sorted(tmp_path.iterdir()) == sorted(written)


def refused(error, file, **options):
    """Loads what must be refused with exactly this class; gives the error."""
    with pytest.raises(ModelDiffError) as caught:
        load(file, **options)
    assert type(caught.value) is error, repr(caught.value)
    assert caught.value.rule
    assert caught.value.got
    assert caught.value.where
    return caught.value


# Files that are no model


def png():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "png")
    return stream.getvalue()


def zip_file():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.onnx", DENSE)
    return stream.getvalue()


def npz_file():
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros(3))
    return stream.getvalue()


NO_MODEL = {
    "empty": (b"", InvalidModelError),
    "one zero": (b"\0", InvalidModelError),
    "zeros": (bytes(1000), InvalidModelError),
    "text": (b"This is no model.\n", InvalidModelError),
    "json": (b'{"format": "onnx"}', InvalidModelError),
    "png": (png(), InvalidModelError),
    "random": (np.random.default_rng(0).bytes(4096), InvalidModelError),
    "zip": (zip_file(), UnsupportedModelError),
    "npz": (npz_file(), UnsupportedModelError),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(20), InvalidModelError),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), UnsupportedModelError),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), UnsupportedModelError),
    "gguf": (b"GGUF\x03\0\0\0", UnsupportedModelError),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", UnsupportedModelError),
    **{f"pickle {n}": (pickle.dumps({"a": [1.5]}, protocol=n), UnsupportedModelError) for n in (2, 3, 4, 5)},
    "pickle 0": (pickle.dumps({"a": [1.5]}, protocol=0), InvalidModelError),
    "npy": (b"\x93NUMPY\x01\0" + bytes(100), InvalidModelError),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(100), InvalidModelError),
    "a tensor": (tensor("t", np.zeros(3, np.float32)).SerializeToString(), InvalidModelError),
    "a graph": (dense().graph.SerializeToString(), InvalidModelError),
}


@pytest.mark.parametrize(("data", "error"), NO_MODEL.values(), ids=NO_MODEL.keys())
@pytest.mark.parametrize("name", ["m.onnx", "m.png"])
def test_files_that_are_no_model(place, data, error, name):
    refused(error, place(data, name))


def test_content_counts_and_not_the_name(place):
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(load(place(DENSE, "a.onnx"))(x), load(place(DENSE, "b.png"))(x))


def test_paths_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in [
        tmp_path,
        tmp_path / "gone",
        tmp_path / "pipe",
        tmp_path / "loop",
        tmp_path / "gone" / "m.onnx",
        tmp_path / ("n" * 5000),
        "a\0b",
        "",
        "/dev/zero",
    ]:
        refused(InvalidModelError, path)


def test_the_model_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").write_bytes(DENSE)
    (tmp_path / "m.onnx").symlink_to("real")
    assert load(tmp_path / "m.onnx").input_names == ("x",)


def test_missing_file_names_the_path(tmp_path):
    assert "gone.onnx" in str(refused(InvalidModelError, tmp_path / "gone.onnx"))


# Truncated and changed files


@pytest.mark.parametrize("length", range(1, len(DENSE)))
def test_truncated_anywhere(tmp_path, length):
    # A cut between two fields leaves a well-formed message, so some prefixes are models: the graph comes before the
    # opset, and without an opset nothing is one.
    (tmp_path / "m.onnx").write_bytes(DENSE[:length])
    refused(InvalidModelError, tmp_path / "m.onnx")


FUZZED = [
    DENSE,
    model(
        [
            node("Shape", "x", "s"),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Unsqueeze", "n zero_1d", "n1"),
            node("Concat", "n1 two", "shape", axis=0),
            node("ConstantOfShape", "shape", "c", value=tensor("v", np.float32([0.5]))),
            node("Cast", "c", "d", to=TensorProto.FLOAT),
            node("Transpose", "d", "e", perm=[1, 0]),
            node("Constant", "", "k", value_floats=[1.0, 2.0]),
            node("MatMul", "k e", "y"),
        ],
        inputs=[value("x", (3, 4))],
        initializers=[
            tensor("zero", np.int64(0)),
            tensor("zero_1d", np.int64([0])),
            tensor("two", np.int64([2])),
        ],
    ).SerializeToString(),
    model(
        [
            node(
                "If",
                "t",
                "y",
                then_branch=branch([node("Relu", "x", "a")], "a"),
                else_branch=branch([node("Constant", "", "k", value_float=1.0), node("Add", "x k", "b")], "b"),
            ),
            node("ConstantOfShape", "sizes", "w"),
            node("Tile", "w sizes", "w2"),
        ],
        initializers=[tensor("t", np.array(True)), tensor("sizes", np.int64([2, 3]))],
    ).SerializeToString(),
]
# Small bounds, so that a lucky number costs little
SMALL = Limits(made_elements=10**5, folded_bytes=10**6, tensor_elements=10**6, loop_trips=100)

CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "copy"]), st.integers(0, 10**4), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def mutate(data, changes):
    mutable = bytearray(data)
    for kind, position, byte in changes:
        i = position % (len(mutable) + 1)
        if kind == "insert":
            mutable.insert(i, byte)
        elif kind == "copy":
            mutable[i:i] = mutable[byte : byte + 16]
        elif i < len(mutable):
            if kind == "set":
                mutable[i] = byte
            else:
                del mutable[i : i + 1 + byte % 8]
    return bytes(mutable)


def outcome(file):
    """The model with sizes for its inputs, or the error of our tree; anything else escapes."""
    try:
        return resolve(load(file, limits=SMALL)).model
    except ModelDiffError as error:
        return error


@pytest.mark.types_unchecked("protobuf gives bytes where a name is no text")
@pytest.mark.parametrize("original", FUZZED, ids=["dense", "shapes", "nested"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_changed_bytes_give_a_model_or_our_error(tmp_path, original, changes):
    file = tmp_path / "m.onnx"
    file.write_bytes(mutate(original, changes))
    result = outcome(file)
    assert result.rule and result.where if isinstance(result, ModelDiffError) else result.outputs


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_random_bytes_give_our_error(tmp_path, data):
    file = tmp_path / "m.onnx"
    file.write_bytes(data)
    with pytest.raises((InvalidModelError, UnsupportedModelError)):
        load(file)


# Limits


def test_over_limit_files_are_not_read(tmp_path):
    file = tmp_path / "m.onnx"
    with file.open("wb") as stream:
        stream.truncate(DEFAULT.model_bytes + 1)  # a hole: no space on disk
    start = time.process_time()
    error = refused(LimitExceededError, file)
    assert "model_bytes" in str(error)
    assert time.process_time() - start < 1


def test_device_files_and_growing_ones_are_no_models():
    refused(InvalidModelError, "/dev/urandom")


def constant_of_shape(*sizes):
    return model([node("ConstantOfShape", "s", "y")], [], initializers=[tensor("s", np.int64(sizes))])


def concat_chain():
    """Grows 64-fold at each step."""
    nodes = [helper.make_node("Concat", [f"c{i}"] * 64, [f"c{i + 1}"], axis=0) for i in range(8)]
    return model(nodes, [], [value("c8")], [tensor("c0", np.zeros(64, np.float32))])


def broadcast():
    weights = [tensor("a", np.zeros((2**17, 1), np.float32)), tensor("b", np.zeros((1, 2**17), np.float32))]
    return model([node("Add", "a b", "y")], [], initializers=weights)


def outer_product():
    weights = [tensor("a", np.zeros((2**17, 1), np.float32)), tensor("b", np.zeros((1, 2**17), np.float32))]
    return model([node("MatMul", "a b", "y")], [], initializers=weights)


def gather_many():
    weights = [tensor("a", np.zeros((1, 2**16), np.float32)), tensor("i", np.zeros(2**16, np.int64))]
    return model([node("Gather", "a i", "y")], [], initializers=weights)


def made_of(op, *arrays, opset=17, **attributes):
    names = [f"i{i}" for i in range(len(arrays))]
    return model(
        [helper.make_node(op, names, ["y"], **attributes)],
        [],
        initializers=[tensor(name, array) for name, array in zip(names, arrays, strict=True)],
        opset=opset,
    )


BOMBS = {
    "ConstantOfShape": constant_of_shape(2**20, 2**20),
    "ConstantOfShape beyond 64 bits": constant_of_shape(*[2**40] * 4),
    "Expand": made_of("Expand", np.float32([0]), np.int64([2**20, 2**20])),
    "Tile": made_of("Tile", np.zeros((2, 2), np.float32), np.int64([2**19, 2**19])),
    "Range": made_of("Range", np.int64(0), np.int64(2**40), np.int64(1)),
    "Range of floats": made_of("Range", np.float32(0), np.float32(1), np.float32(1e-12)),
    "Pad": made_of("Pad", np.zeros((2, 2), np.float32), np.int64([2**19, 2**19, 0, 0])),
    "OneHot": made_of("OneHot", np.zeros(2**10, np.int64), np.int64(2**30), np.float32([0, 1])),
    "Resize": made_of(
        "Resize",
        np.zeros((1, 1, 2, 2), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
        np.int64([1, 1, 2**20, 2**20]),
    ),
    "Concat chain": concat_chain(),
    "broadcast Add": broadcast(),
    "outer product": outer_product(),
    "Gather": gather_many(),
}


@pytest.mark.parametrize("proto", BOMBS.values(), ids=BOMBS.keys())
def test_small_files_that_ask_for_much_memory(place, proto):
    file = place(proto)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    refused(LimitExceededError, file)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes


def test_inputs_too_large_to_make_are_refused(place):
    loaded = load(place(model([node("Relu", "x", "y")], [value("x", (2**15, 2**14))])))
    with pytest.raises(LimitExceededError, match="made_elements"):
        example_inputs(loaded)


@pytest.mark.parametrize(("name", "bound"), [("made_elements", 2**20 - 1), ("folded_bytes", 2**22 - 1)])
def test_folding_limits_are_exact(place, name, bound):
    file = place(constant_of_shape(2**10, 2**10))
    load(file, limits=Limits(**{name: bound + 1}))
    assert name in str(refused(LimitExceededError, file, limits=Limits(**{name: bound})))


def test_deep_chains_load_in_linear_time(place):
    nodes = [helper.make_node("Neg", [f"c{i}"], [f"c{i + 1}"]) for i in range(5000)]
    nodes.append(helper.make_node("Add", ["x", "c5000"], ["y"]))
    start = time.process_time()
    load(place(model(nodes, initializers=[tensor("c0", np.float32([1]))])))
    assert time.process_time() - start < 10


# Models that cannot be run


CANNOT = {
    "unknown operator": (model([node("Frobnicate", "x", "y")]), UnsupportedModelError, "Frobnicate"),
    "unknown operator in a branch": (
        model(
            [
                node(
                    "If",
                    "t",
                    "y",
                    then_branch=branch([node("Identity", "x", "a")], "a"),
                    else_branch=branch([node("Frobnicate", "x", "b")], "b"),
                )
            ],
            initializers=[tensor("t", np.array(True))],
        ),
        UnsupportedModelError,
        "Frobnicate",
    ),
    "unknown domain": (
        model([node("Relu", "x", "y", domain="com.evil")], domains=["com.evil"]),
        UnsupportedModelError,
        "com.evil",
    ),
    "domain without opset": (model([node("Relu", "x", "y", domain="com.evil")]), UnsupportedModelError, "com.evil"),
    "operator newer than the opset": (model([node("Det", "x", "y")], opset=10), UnsupportedModelError, "opset 10"),
    "opset zero": (model([node("Relu", "x", "y")], opset=0), UnsupportedModelError, "Relu"),
    "negative opset": (model([node("Relu", "x", "y")], opset=-3), UnsupportedModelError, "Relu"),
    "unknown attribute": (model([node("Relu", "x", "y", slope=2.0)]), UnsupportedModelError, "slope"),
    "attribute named as a parameter": (model([node("Relu", "x", "y", x=2.0)]), UnsupportedModelError, "attribute x"),
    "constants that do not fit": (
        made_of("Add", np.zeros(3, np.float32), np.zeros(4, np.float32)),
        InvalidModelError,
        "Add",
    ),
    "attribute of a wrong type": (
        made_of("Transpose", np.zeros((2, 2), np.float32), perm="abc"),
        InvalidModelError,
        "Transpose",
    ),
    "omitted required input": (
        model([helper.make_node("Add", ["a", ""], ["y"])], [], initializers=[tensor("a", np.zeros(3, np.float32))]),
        InvalidModelError,
        "Add",
    ),
    "too many inputs": (made_of("Neg", np.float32(1), np.float32(2)), InvalidModelError, "Neg"),
    "no inputs": (made_of("Neg"), InvalidModelError, "Neg"),
    "too many outputs": (
        model(
            [node("Neg", "a", "y z")],
            [],
            [value("y", ()), value("z", ())],
            initializers=[tensor("a", np.float32(1))],
        ),
        UnsupportedModelError,
        "Neg",
    ),
    "external data outside": (
        model([node("Add", "x w", "y")], initializers=[external("w", (1,), "../../etc/passwd")]),
        UnsafeModelError,
        "etc/passwd",
    ),
    "missing external data": (
        model([node("Add", "x w", "y")], initializers=[external("w", (1,), "gone.bin")]),
        InvalidModelError,
        "gone.bin",
    ),
}


@pytest.mark.parametrize(("proto", "error", "said"), CANNOT.values(), ids=CANNOT.keys())
def test_models_that_cannot_be_run_say_why(place, proto, error, said):
    assert said in str(refused(error, place(proto)))


def test_names_of_other_tools_are_text_only(place):
    # names reach reports; nothing in them is interpreted here
    name = "\x1b[2J<script>{0}%s\u202e"
    proto = model([helper.make_node("Relu", ["x"], [name]), helper.make_node("Relu", [name], ["y"])])
    loaded = load(place(proto))
    np.testing.assert_array_equal(loaded(np.float32([-1, 2])), [0, 2])


# Loops


def loop(trips, condition=True):
    body = helper.make_graph(
        [node("Identity", "c_in", "c_out"), helper.make_node("Add", ["v_in", "one"], ["v_out"])],
        "body",
        [value("i", (), TensorProto.INT64), value("c_in", (), TensorProto.BOOL), value("v_in", ("n",))],
        [value("c_out", (), TensorProto.BOOL), value("v_out", ("n",))],
    )
    return model(
        [node("Loop", "m c x", "y", body=body)],
        initializers=[
            tensor("m", np.int64(trips)),
            tensor("c", np.array(condition)),
            tensor("one", np.float32([1])),
        ],
    )


def test_loops_run(place):
    np.testing.assert_array_equal(load(place(loop(7)))(np.float32([0, 1])), [7, 8])


def test_loops_without_end_are_refused(place):
    file = place(loop(2**62))
    start = time.process_time()
    with pytest.raises(LimitExceededError, match="loop_trips"):
        load(file)(np.float32([0]))
    assert time.process_time() - start < 5
