"""Single-node models, run through the reader and the tracer and compared with onnxruntime."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from onnx import helper

import modeldiff_jax.models.onnx as md_onnx
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.model import Origin
from modeldiff_jax.runtime import x64

EPSILON = 1e-6  # in float64, where a central difference of it is right to 1e-9 or so


def node_model(op, inputs, attrs=None, opset=17, n_outputs=1, domain="", ml_opset=3):
    """A ModelProto of one node whose inputs `x0`, `x1`... are graph inputs; `None` leaves one out."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, names, outputs, domain=domain, **(attrs or {}))
    graph = helper.make_graph(
        [node],
        op,
        [info(name, value) for name, value in zip(names, inputs, strict=True) if name],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    return whole(graph, opset, ml_opset)


def info(name, value):
    """A graph input of the type and shape of `value`."""
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def whole(graph, opset, ml_opset=3):
    """A ModelProto any onnxruntime of the last years reads."""
    imports = [helper.make_opsetid(*pair) for pair in {"": opset, "com.microsoft": 1, "ai.onnx.ml": ml_opset}.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def convert(proto):
    """A ModelProto as our `Model`."""
    graph = md_onnx.read_graph(proto.SerializeToString())
    return to_model(graph, Origin("test", "onnx"), DEFAULT)


def expected(proto, feeds):
    """Returns the outputs of onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def assert_same(got, want, rtol=1e-5, atol=1e-6):
    """Equal shapes and types, and values within tolerance; integers are equal."""
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(want)
    for output, reference in zip(got, want, strict=True):
        reference = np.asarray(reference)
        assert output.shape == reference.shape
        assert output.dtype == reference.dtype
        if np.issubdtype(reference.dtype, np.inexact):
            np.testing.assert_allclose(np.asarray(output), reference, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(np.asarray(output), reference)


def split_static(proto, model, feeds):
    """The model with the inputs its node must know bound, and the other ones."""
    graph = md_onnx.read_graph(proto.SerializeToString())
    (node,) = proto.graph.node
    (read,) = graph.nodes
    outcome = lookup(read)
    static = {name for i, name in enumerate(node.input) if name and outcome.is_static(i)}
    bound = model.bind(**{name: feeds[name] for name in static}) if static else model
    return bound, [value for name, value in feeds.items() if name not in static]


def check_node(
    op, inputs, attrs=None, opset=17, n_outputs=1, want=None, concrete=True, domain="", ml_opset=3, **tolerance
):
    """Compares one node with onnxruntime (or with `want`): concrete inputs, then traced ones under jit.

    `concrete` False leaves the former out, for operators that treat both alike and compile slowly one by one.
    """
    inputs = [None if value is None else np.asarray(value) for value in inputs]
    proto = node_model(op, inputs, attrs, opset, n_outputs, domain, ml_opset)
    feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
    want = expected(proto, feeds) if want is None else want
    model = convert(proto)
    if concrete:
        assert_same(model.apply(model.params, *feeds.values()), want, **tolerance)
    bound, traced = split_static(proto, model, feeds)
    if traced:
        assert_same(jax.jit(bound.apply)(bound.params, *map(x64.as_array, traced)), want, **tolerance)


def check_transforms(op, inputs, attrs=None, opset=17):
    """The derivative against finite differences in float64, and `vmap` against one call after another.

    Inputs of floats are differentiated; all that are not static are mapped over.
    """
    inputs = [None if value is None else np.asarray(value) for value in inputs]
    with jax.enable_x64(True):
        wide = [v.astype(np.float64) if v is not None and v.dtype == np.float32 else v for v in inputs]
        proto = node_model(op, wide, attrs, opset)
        feeds = {f"x{i}": value for i, value in enumerate(wide) if value is not None}
        model, traced = split_static(proto, convert(proto), feeds)
        floats = [i for i, v in enumerate(traced) if np.issubdtype(v.dtype, np.floating)]

        def first(values):
            result = model.apply(model.params, *values)
            return result[0] if isinstance(result, tuple) else result

        def dot(weights, moved):
            """The weighted sum of the outputs when the float inputs have moved."""
            return jnp.sum(weights * first([v + moved.get(i, 0) for i, v in enumerate(traced)]))

        @jax.jit  # in one piece: compiling is what takes the time
        def everything(weights, step, batch):
            slope = jax.grad(lambda moved: dot(weights, moved))({i: jnp.zeros_like(v) for i, v in step.items()})
            ahead, behind = (dot(weights, {i: sign * EPSILON * v for i, v in step.items()}) for sign in (1, -1))
            singles = [first([v[i] for v in batch]) for i in range(2)]
            return slope, (ahead - behind) / (2 * EPSILON), jax.vmap(lambda *xs: first(xs))(*batch), jnp.stack(singles)

        rng = np.random.default_rng(0)
        weights = rng.standard_normal(jax.eval_shape(first, traced).shape)
        step = {i: rng.standard_normal(traced[i].shape) for i in floats}
        batch = [np.stack([v, np.flip(v)]) for v in traced]
        slope, numeric, mapped, singles = everything(weights, step, batch)
        assert all(np.isfinite(part).all() for part in slope.values())
        derivative = sum(np.sum(slope[i] * step[i]) for i in floats)
        np.testing.assert_allclose(derivative, numeric, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mapped, singles, rtol=1e-12, atol=1e-12)
