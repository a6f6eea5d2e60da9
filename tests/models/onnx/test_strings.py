"""Strings in and out of models against onnxruntime: called, operator by operator, and in programs of one's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from onnx import TensorProto, helper, numpy_helper

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.models.graph.strings import Strings
from modeldiff_jax.models.inspect import check_against_runtime
from modeldiff_jax.models.load import load
from modeldiff_jax.runtime.compilation import recording
from tests.models.onnx.helpers import convert, expected

STRING, INT64, FLOAT = TensorProto.STRING, TensorProto.INT64, TensorProto.FLOAT
ML = "ai.onnx.ml"
ANIMALS = ["cat", "dog", "owl"]
X = np.float32([[3, 1], [1, 3], [-2, -2], [0, 9]])


def model(nodes, inputs, outputs, constants=(), opset=20):
    kinds = {name: helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (*inputs, *outputs)}
    made = [helper.make_tensor(name, STRING, [len(v)], [w.encode() for w in v]) if isinstance(v[0], str) else
            numpy_helper.from_array(np.asarray(v), name) for name, v in constants]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [kinds[i[0]] for i in inputs], [kinds[o[0]] for o in outputs], made)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def node(op, inputs, outputs, domain="", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), domain=domain, **attributes)


def classifier(*after, outputs=(("label", STRING, ["n"]),), constants=()):
    """A linear model of three animals, and what follows its labels."""
    first = node("LinearClassifier", "x", "label scores", ML, classlabels_strings=ANIMALS,
                 coefficients=[1.0, 0.0, 0.0, 1.0, -1.0, -1.0], intercepts=[0.0, 0.0, 0.0], multi_class=1)  # fmt: skip
    return model([first, *after], [("x", FLOAT, ["n", 2])], outputs, constants)


AFTER = {
    "nothing": classifier(),
    "another shape": classifier(
        node("Reshape", "label shape", "column"), outputs=[("column", STRING, ["n", 1])],
        constants=[("shape", np.int64([-1, 1]))]),
    "in front of constants": classifier(
        node("Concat", "label more", "all", axis=0), outputs=[("all", STRING, ["m"])],
        constants=[("more", ["dog", "emu"])]),
    "numbers again": classifier(
        node("LabelEncoder", "label", "number", ML, keys_strings=ANIMALS, values_int64s=[2**40, 1, 2]),
        outputs=[("number", INT64, ["n"])]),
    "other words": classifier(
        node("LabelEncoder", "label", "sound", ML, keys_strings=["cat", "dog"], values_strings=["mew", "bark"]),
        outputs=[("sound", STRING, ["n"])]),
    "one-hot": classifier(
        node("OneHotEncoder", "label", "hot", ML, cats_strings=["owl", "cat"]), outputs=[("hot", FLOAT, ["n", 2])]),
    "a suffix": classifier(
        node("StringConcat", "label end", "longer"), outputs=[("longer", STRING, ["n"])], constants=[("end", ["s"])]),
    "a pattern": classifier(
        node("RegexFullMatch", "label", "fits", pattern=".o.|.w."), outputs=[("fits", TensorProto.BOOL, ["n"])]),
    "an entry of a list": model(
        [node("ArgMax", "x", "at", axis=1, keepdims=0), node("ArrayFeatureExtractor", "names at", "y", ML)],
        [("x", FLOAT, ["n", 2])], [("y", STRING, [1, "n"])], [("names", ["left", "right"])]),
    "a constant": model(
        [node("Identity", "names", "y")], [("x", FLOAT, ["n", 2])], [("y", STRING, [2])], [("names", ["a", "b"])]),
}  # fmt: skip


def same(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("case", AFTER)
def test_labels(case):
    (want,), result = expected(AFTER[case], {"x": X}), convert(AFTER[case])
    same(result(X), want)
    same(result.eager(X), want)


@pytest.mark.parametrize("case", ["nothing", "in front of constants", "other words"])
def test_labels_in_programs(case):
    (want,), result = expected(AFTER[case], {"x": X}), convert(AFTER[case])
    inside = jax.jit(result.apply)(result.params, X)
    assert isinstance(inside, Strings)
    assert inside.shape == want.shape
    same(inside, want)
    mapped = jax.jit(jax.vmap(result.apply, (None, 0)))(result.params, jnp.stack([X, X[::-1]]))
    same(np.asarray(mapped)[0], want)
    shared = export.deserialize(export.export(jax.jit(result.apply))(result.params, X).serialize())
    same(shared.call(result.params, X), want)


def test_what_needs_the_strings_themselves_is_refused_while_tracing():
    proto = classifier(
        node("StringSplit", "label", "parts numbers", delimiter="o"), outputs=[("parts", STRING, ["n", "m"])]
    )
    result = convert(proto)
    with pytest.raises(UnsupportedModelError, match="StringSplit, which needs the strings themselves"):
        result(X)
    assert result.eager(X).shape[0] == 4


WORDS = np.array([["green"], ["blue"], ["red"], ["pink"]], object)
COLOURS = node("OneHotEncoder", "s", "h", ML, cats_strings=["red", "green", "blue"], zeros=1)
INPUTS = {
    "numbers alone after the first operator": (
        model([COLOURS, node("Reshape", "h three", "f"), node("MatMul", "f w", "a"), node("Add", "a x", "y")],
              [("s", STRING, ["n", 1]), ("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])],
              [("three", np.int64([-1, 3])), ("w", np.float32([[1, 2], [3, 4], [5, 6]]))]),
        {"s": WORDS, "x": X}),
    "labels to numbers of 64 bits": (
        model([node("LabelEncoder", "s", "k", ML, keys_strings=["red"], values_int64s=[2**40], default_int64=-1),
               node("Add", "k k", "y")],
              [("s", STRING, ["n", 1])], [("y", INT64, ["n", 1])]),
        {"s": WORDS}),
    "strings to strings": (
        model([node("StringConcat", "s end", "y")], [("s", STRING, ["n", 1])], [("y", STRING, ["n", 1])],
              [("end", ["ish"])]),
        {"s": WORDS}),
    "an output that is the input": (
        model([node("Identity", "s", "y"), node("Relu", "x", "z")], [("s", STRING, ["n", 1]), ("x", FLOAT, ["n", 2])],
              [("y", STRING, ["n", 1]), ("z", FLOAT, ["n", 2])]),
        {"s": WORDS, "x": X}),
    "a shape that depends on the strings": (
        model([node("Shape", "s", "shape"), node("Expand", "x shape", "y")],
              [("s", STRING, ["n", 1]), ("x", FLOAT, [1, 2])], [("y", FLOAT, ["n", 2])]),
        {"s": WORDS, "x": X[:1]}),
    "beside traced strings": (
        model([node("ArgMax", "x", "at", axis=1, keepdims=0), node("Gather", "names at", "t", axis=0),
               node("Squeeze", "s one", "flat"), node("Concat", "t flat", "y", axis=0)],
              [("s", STRING, ["n", 1]), ("x", FLOAT, ["n", 2])], [("y", STRING, ["m"])],
              [("names", ["left", "right"]), ("one", np.int64([1]))]),
        {"s": WORDS, "x": X}),
}  # fmt: skip


@pytest.mark.parametrize("case", INPUTS)
def test_inputs(case):
    proto, feeds = INPUTS[case]
    want, result = expected(proto, feeds), convert(proto)
    for mode in (result, result, result.eager):  # the second call finds a program that is there
        got = mode(**feeds)
        for output, reference in zip(got if len(want) > 1 else (got,), want, strict=True):
            same(output, reference)


def test_what_follows_strings_is_compiled_once():
    proto, feeds = INPUTS["numbers alone after the first operator"]
    result = convert(proto)
    with recording() as programs:
        for words in (WORDS, WORDS[::-1], np.full((4, 1), "never seen", object)):
            result(words, feeds["x"])
    assert [program.calls for program in programs] == [3]


@pytest.mark.parametrize("given", [WORDS, WORDS.astype(str), WORDS.tolist()], ids=["objects", "numpy", "lists"])
def test_strings_come_in_any_form(given):
    proto, feeds = INPUTS["strings to strings"]
    same(convert(proto)(given), expected(proto, feeds)[0])


@pytest.mark.parametrize("given", [[[1]], [[b"red"]], [[None]], ["red"]], ids=["number", "bytes", "nothing", "rank"])
def test_other_things_than_strings_are_refused(given):
    result = convert(INPUTS["strings to strings"][0])
    for call in (result, result.eager, lambda value: result.bind(s=value)):
        with pytest.raises(InvalidInputError, match=r"s: string\[n, 1\]"):
            call(given)


def test_strings_are_not_numbers():
    with pytest.raises(InvalidInputError, match="dtype"):
        convert(AFTER["nothing"])([["3", "1"]])


def test_bound_strings_leave_a_model_of_numbers():
    proto, feeds = INPUTS["numbers alone after the first operator"]
    result = convert(proto).bind(s=WORDS)
    assert result.input_names == ("x",)
    json.dumps(result.to_dict())
    want = expected(proto, feeds)[0]
    np.testing.assert_allclose(result(X), want)
    np.testing.assert_allclose(jax.jit(result.apply)(result.params, X), want)
    assert convert(proto).bind(s=WORDS).apply is result.apply


def test_a_specialised_model_has_no_strings():
    result = convert(INPUTS["numbers alone after the first operator"][0])
    with pytest.raises(InvalidInputError, match=r"s: string\[n, 1\]"):
        result.specialise(WORDS, X)


@pytest.mark.parametrize("proto", [AFTER["nothing"], AFTER["other words"], *(proto for proto, _ in INPUTS.values())])
def test_the_check_compares_strings(tmp_path, proto):
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    result = check_against_runtime(tmp_path / "m.onnx", load(tmp_path / "m.onnx"))
    assert result.agrees
    json.dumps(result.to_dict())


def test_the_check_takes_strings_as_array_files_hold_them(tmp_path):
    proto, feeds = INPUTS["numbers alone after the first operator"]
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    given = {"s": feeds["s"].astype(str), "x": feeds["x"]}
    result = check_against_runtime(tmp_path / "m.onnx", load(tmp_path / "m.onnx"), given)
    assert result.agrees
    assert result.inputs == {"s": (4, 1), "x": (4, 2)}
