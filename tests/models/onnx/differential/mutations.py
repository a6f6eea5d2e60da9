"""Variations of single-node models: attributes, shapes, types, omitted inputs, opsets.

A seed and a case's name determine its variation, so that each can be made again.
"""

import functools
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from onnx import defs, helper

from bench.onnx_suite import cases

NEWEST_OPSET = 26
"""Of the models: onnxruntime warns of later ones, and has few kernels for them."""

_TYPES = [np.float32, np.float64, np.float16, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint32, np.bool_]
_SPELLED = {np.float32: "float", np.float64: "double", np.bool_: "bool"}  # otherwise than in numpy
_TYPE_NAMES = {f"tensor({_SPELLED.get(t, t.__name__)})": t for t in _TYPES}
_MOST_ELEMENTS = 20_000


@dataclass(frozen=True)
class Variation:
    """One node with values for its inputs.

    Attributes:
      op: its operator. domain: of the operator. opset: of the domain.
      attributes: name -> value, as `onnx.helper.make_node` takes them.
      inputs: arrays in order; `None` for one left out.
      n_outputs: how many outputs are asked for.
      origin: the suite's case. changes: what was done to it, in words.
    """

    op: str
    domain: str
    opset: int
    attributes: dict
    inputs: tuple
    n_outputs: int
    origin: str
    changes: tuple[str, ...] = ()

    @property
    def schema(self):
        """The operator's definition at this opset."""
        return defs.get_schema(self.op, self.opset, self.domain)

    @property
    def feeds(self):
        """The arrays by the names of the model's inputs."""
        return {f"x{i}": value for i, value in enumerate(self.inputs) if value is not None}

    def model(self):
        """The model; nothing has checked it."""
        names = ["" if value is None else f"x{i}" for i, value in enumerate(self.inputs)]
        while names and not names[-1]:
            names.pop()
        outputs = [f"y{i}" for i in range(self.n_outputs)]
        node = helper.make_node(self.op, names, outputs, domain=self.domain, **self.attributes)
        graph = helper.make_graph(
            [node],
            self.op,
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in self.feeds.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
        )
        imports = [helper.make_opsetid(self.domain, self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def __str__(self):
        shown = {k: v for k, v in self.attributes.items() if isinstance(v, (int, float, bytes, list))}
        inputs = ", ".join("none" if v is None else f"{v.dtype}{list(v.shape)}" for v in self.inputs)
        return f"{self.op}-{self.opset}({inputs}) {shown}, from {self.origin}: {'; '.join(self.changes)}"


@functools.cache
def originals():
    """The suite's single-node cases of plain tensors that onnxruntime may know, one for each name."""
    result = []
    for name, case in cases()["node"].items():
        graph = case.model.graph
        if len(graph.node) != 1 or name.endswith("_expanded") or not case.data_sets:
            continue
        (node,), (inputs, _) = graph.node, case.data_sets[0]
        by_name = dict(zip([info.name for info in graph.input], inputs, strict=False))
        opset = next(o.version for o in case.model.opset_import if o.domain == node.domain)
        values = tuple(by_name.get(n) if n else None for n in node.input)
        if any(n and not isinstance(v, np.ndarray) for n, v in zip(node.input, values, strict=True)):
            continue
        if any(v is not None and v.dtype.type not in _TYPES and v.dtype.kind not in "OUT" for v in values):
            continue
        if node.domain not in ("", "ai.onnx.ml"):
            continue
        newest = min(opset, NEWEST_OPSET) if node.domain == "" else opset
        try:
            defs.get_schema(node.op_type, newest, node.domain)
        except defs.SchemaError:
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values = tuple(v.astype(object) if v is not None and v.dtype.kind in "UT" else v for v in values)
        n_outputs = max(i + 1 for i, n in enumerate(node.output) if n)
        result.append(Variation(node.op_type, node.domain, newest, attributes, values, n_outputs, name))
    return result


@functools.cache
def _attribute_values():
    """(operator, attribute) -> every value that the suite gives it."""
    result = defaultdict(list)
    for variation in originals():
        for name, value in variation.attributes.items():
            if not any(_same(value, other) for other in result[variation.op, name]):
                result[variation.op, name].append(value)
    return result


def _same(a, b):
    return type(a) is type(b) and (list(a) == list(b) if isinstance(a, (list, tuple)) else a is b or bool(a == b))


def varied(original, seed):
    """The variation of a case under a seed, by one to three changes; `None` where none applies or it grew too large."""
    rng = np.random.default_rng([seed, zlib.crc32(original.origin.encode())])
    result = original
    with np.errstate(all="ignore"):
        for _ in range(rng.integers(1, 4)):
            changes = rng.choice(len(_CHANGES), 4, p=_SHARES)
            result = next((new for i in changes if (new := _CHANGES[i](result, rng)) is not None), result)
    if not result.changes or sum(v.size for v in result.inputs if v is not None) > _MOST_ELEMENTS:
        return None
    return result


def _changed(variation, change, **fields):
    return replace(variation, changes=(*variation.changes, change), **fields)


def _of_attribute(variation, rng):
    """Another value of one attribute, given or not."""
    schema = variation.schema
    names = sorted(name for name, a in schema.attributes.items() if a.type.name in ("INT", "FLOAT", "STRING", "INTS"))
    if not names:
        return None
    name = names[rng.integers(len(names))]
    declared = schema.attributes[name]
    default = helper.get_attribute_value(declared.default_value) if declared.default_value.name else None
    value = variation.attributes.get(name, default)
    known = _attribute_values()[variation.op, name]
    match declared.type.name:
        case "INT":
            choices = [0, 1, 2, -1, 3] if value is None else [0, 1, 2, value + 1, value - 1, -value - 1]
        case "FLOAT":
            choices = [0.0, 0.5, -1.0, 2.0] if value is None else [value * 2, value / 2, -value, 0.0, 1.0]
        case "STRING":
            choices = known
        case _:
            choices = list(known)
            if value:
                position = rng.integers(len(value))
                choices += [[v + step * (i == position) for i, v in enumerate(value)] for step in (1, -1)]
                choices.append(list(value)[::-1])
    if name in variation.attributes and not declared.required and rng.random() < 0.2:
        others = {k: v for k, v in variation.attributes.items() if k != name}
        return _changed(variation, f"without {name}", attributes=others)
    if not choices:
        return None
    value = choices[rng.integers(len(choices))]
    shown = value.decode() if isinstance(value, bytes) else value
    return _changed(variation, f"{name}={shown}", attributes={**variation.attributes, name: value})


def _of_optional_input(variation, rng):
    """Without one optional input."""
    formal = variation.schema.inputs
    optional = [
        i
        for i, value in enumerate(variation.inputs)
        if value is not None and i < len(formal) and formal[i].option == defs.OpSchema.FormalParameterOption.Optional
    ]
    if not optional:
        return None
    position = optional[rng.integers(len(optional))]
    inputs = tuple(None if i == position else v for i, v in enumerate(variation.inputs))
    return _changed(variation, f"without input {position}", inputs=inputs)


def _of_type(variation, rng):
    """Another type of one type variable, in all inputs that share it."""
    schema, formal = variation.schema, variation.schema.inputs
    variables = [formal[min(i, len(formal) - 1)].type_str for i in range(len(variation.inputs))] if formal else []
    if not variables:
        return None
    variable = variables[rng.integers(len(variables))]
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == variable), [])
    choices = [_TYPE_NAMES[name] for name in allowed if name in _TYPE_NAMES]
    if not choices:
        return None
    dtype = choices[rng.integers(len(choices))]
    inputs = tuple(
        v.astype(dtype) if v is not None and u == variable and v.dtype.kind in "biuf" else v
        for v, u in zip(variation.inputs, variables, strict=True)
    )
    return _changed(variation, f"{variable} of {np.dtype(dtype)}", inputs=inputs)


def _of_size(variation, rng):
    """Another length in place of one, in every input and axis that has it."""
    sizes = sorted({n for v in variation.inputs if v is not None for n in v.shape})
    if not sizes:
        return None
    old = sizes[rng.integers(len(sizes))]
    new = int(rng.choice([1, 2, 3, 5, old + 1, max(old - 1, 0), 0]))

    def resized(x):
        if x is None:
            return None
        shape = tuple(new if n == old else n for n in x.shape)
        entries = x if x.size else np.full(1, "" if x.dtype.kind == "O" else 0, x.dtype)
        return np.resize(entries, shape)  # the same ones over and over

    return _changed(variation, f"length {old} to {new}", inputs=tuple(map(resized, variation.inputs)))


def _of_axis(variation, rng):
    """One more axis, or one less, of one input."""
    position = rng.integers(len(variation.inputs)) if variation.inputs else 0
    if not variation.inputs or variation.inputs[position] is None:
        return None
    x = variation.inputs[position]
    if rng.random() < 0.5 and x.ndim and len(x):
        x, change = x[0], "one axis less"
    else:
        x, change = x[None], "one axis more"
    x = np.asarray(x, variation.inputs[position].dtype)
    inputs = tuple(x if i == position else v for i, v in enumerate(variation.inputs))
    return _changed(variation, f"input {position} of {change}", inputs=inputs)


def _of_values(variation, rng):
    """Other values of one input: halves, zeros, others' signs; integers only change places."""
    present = [i for i, v in enumerate(variation.inputs) if v is not None and v.size]
    if not present:
        return None
    position = present[rng.integers(len(present))]
    x = variation.inputs[position]
    if x.dtype.kind == "f":
        kind = ["halves", "zeros", "opposites", "far", "near"][rng.integers(5)]
        x = {
            "halves": np.rint(2 * np.clip(x, -1e4, 1e4)) / 2,
            "zeros": np.where(rng.random(x.shape) < 0.5, 0, x),
            "opposites": -x,
            "far": x * 100,
            "near": x / 100,
        }[kind].astype(x.dtype)
    elif x.dtype.kind == "b":
        kind, x = "negated", ~x
    else:
        kind, x = "turned round", np.flip(x) if x.ndim else x
    inputs = tuple(
        np.ascontiguousarray(x).reshape(v.shape) if i == position else v for i, v in enumerate(variation.inputs)
    )
    return _changed(variation, f"input {position} {kind}", inputs=inputs)


def _of_opset(variation, rng):
    """Another version of the operator."""
    newest = NEWEST_OPSET if variation.domain == "" else variation.opset
    since = sorted(
        s.since_version
        for s in defs.get_all_schemas_with_history()
        if s.name == variation.op and s.domain == variation.domain and s.since_version <= newest and not s.deprecated
    )
    since = [v for v in since if v >= (7 if variation.domain == "" else 1)]  # onnxruntime knows no earlier ones
    if not since:
        return None
    opset = since[rng.integers(len(since))]
    return None if opset == variation.opset else _changed(variation, f"opset {opset}", opset=opset)


_CHANGES = [_of_attribute, _of_optional_input, _of_type, _of_size, _of_axis, _of_values, _of_opset]
_SHARES = [0.34, 0.08, 0.16, 0.12, 0.08, 0.12, 0.1]
