"""Every operator's signature against the ONNX schemas of all the versions it serves."""

import inspect
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.defs
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

import modeldiff_jax.models.onnx  # noqa: F401  (registers the operators)
from modeldiff_jax.models.graph.registry import registered

# attributes that differ on purpose
IGNORED = {
    "consumed_inputs": "a hint about memory from before opset 6, which changes no value",
}
# (operator, attribute) -> why its default differs
OTHER_DEFAULTS = {
    ("GRU", "direction"): "the schema of opset 1 misspells `forward`",
    ("GlobalLpPool", "p"): "opset 1 has it as the float 2.0",
    ("Concat", "axis"): "opset 1 names no default; its text says 1",
    ("Split", "axis"): "opset 1 names no default; its text says 0",
    ("LpPool", "kernel_shape"): "opset 1 lets it be absent, though nothing else gives the size",
    ("Reshape", "shape"): "opset 1 names no default, though nothing else gives the shape",
}


def schemas():
    """(domain, operator) -> its schemas, oldest first."""
    result = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        result[schema.domain or "ai.onnx", schema.name].append(schema)
    return {key: sorted(versions, key=lambda s: s.since_version) for key, versions in result.items()}


class Attribute:
    """An attribute of one of onnxruntime's schemas, as onnx shows its own."""

    def __init__(self, attribute):
        self.required = attribute.required
        self.default_value = onnx.AttributeProto.FromString(attribute._default_value)


def runtime_schemas():
    """The operators onnxruntime adds to those of onnx, each in its newest version."""
    result = {}
    for schema in get_all_operator_schema():
        key = schema.domain or "ai.onnx", schema.name
        if key not in result or result[key].since_version < schema.since_version:
            result[key] = schema
    return {
        key: [
            SimpleNamespace(
                since_version=schema.since_version,
                min_input=schema.min_input,
                max_input=schema.max_input,
                attributes={name: Attribute(attribute) for name, attribute in schema.attributes.items()},
            )
        ]
        for key, schema in result.items()
    }


SCHEMAS = runtime_schemas() | schemas()
ONNX_OPS = sorted(key for key in registered() if key in SCHEMAS or key[0].startswith("ai.onnx"))


def served(key):
    """(function, schemas it serves) for each registered version of an operator."""
    versions = registered()[key]
    by_since = {since: [] for since in versions}
    for schema in SCHEMAS[key]:
        since = max((s for s in versions if s <= schema.since_version), default=None)
        if since is not None:
            by_since[since].append(schema)
    return [(versions[since], result) for since, result in by_since.items()]


def default(attribute):
    """A schema attribute's default as the reader would hand it over; `None` where it has none."""
    if attribute.required or not attribute.default_value.type:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(v.decode() if isinstance(v, bytes) else v for v in value) if isinstance(value, list) else value


def equal(output, reference):
    if isinstance(output, float) or isinstance(reference, float):
        return reference is not None and np.float32(output) == np.float32(reference)
    return output == reference


def inputs_of(function):
    """The least and the most inputs a function takes."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return sum(p.default is p.empty for p in positional), float("inf") if variadic else len(positional)


@pytest.mark.parametrize("key", ONNX_OPS, ids=lambda key: ".".join(filter(None, key)))
class TestSignature:
    def test_every_version_serves_a_schema(self, key):
        assert all(result for _, result in served(key))

    def test_all_versions_are_served(self, key):
        assert min(registered()[key]) <= SCHEMAS[key][0].since_version

    def test_attributes_are_the_schemas(self, key):
        for op, result in served(key):
            known = set().union(*(schema.attributes for schema in result)) | IGNORED.keys()
            assert set(op.attributes) <= known
            for schema in result:
                assert set(schema.attributes) - IGNORED.keys() <= set(op.attributes)

    def test_defaults_are_the_schemas(self, key):
        for op, result in served(key):
            for schema in result:
                for name, attribute in schema.attributes.items():
                    if name in IGNORED or (op.name, name) in OTHER_DEFAULTS:
                        continue
                    if attribute.required:
                        assert op.attributes[name] is inspect.Parameter.empty, name
                    else:
                        assert equal(op.attributes[name], default(attribute)), name

    def test_inputs_fit(self, key):
        for op, result in served(key):
            for schema in result:
                least, most = inputs_of(op.function)
                assert least <= schema.min_input
                assert schema.max_input <= most


def test_the_exceptions_exist():
    for op, attribute in OTHER_DEFAULTS:
        assert any(attribute in schema.attributes for schema in SCHEMAS["ai.onnx", op])
