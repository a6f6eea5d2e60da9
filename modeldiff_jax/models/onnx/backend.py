"""ONNX's Backend API (`onnx.backend.base`), by which other programs can run the converter.

    rep = backend.prepare(model_proto)
    outputs = rep.run(inputs)

All inputs are known (numpy), so they may decide shapes; operators run one by one, and 64-bit types are kept.
`rep.model` is the same model for `jit`, `vmap` and `grad`; its inputs that decide shapes are fixed by
`rep.model.bind(name=value)`.

Sequences are lists, absent optionals `None`, and strings arrays of objects, in inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, namedtupledict
from onnx.defs import onnx_opset_version

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits, active
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.passes.fold import Program, fold
from modeldiff_jax.models.graph.trace import run
from modeldiff_jax.models.graph.values import Value
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.models.onnx.reader import read_graph


class JaxBackendRep(BackendRep):
    """A model that was read and folded, ready to run."""

    def __init__(self, graph: Graph, limits: Limits) -> None:
        self._graph, self._limits = graph, limits
        with active(limits):
            self._program: Program = fold(graph, limits)

    @property
    def model(self) -> Model:
        """The same model as a pure function."""
        return to_model(self._graph, Origin("an ONNX ModelProto", "onnx"), self._limits)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Runs the model on concrete inputs.

        Args:
          inputs: values in declared order, or name -> value; a single array for a model of one input.
        Returns:
          Outputs in declared order, also by name: numpy arrays, lists (sequences) or `None` (absent optionals).
        """
        graph = self._program.graph
        given = self._arranged(inputs)
        with active(self._limits):
            values = {**graph.constants, **self._program.params, **{k: _to_value(v) for k, v in given.items()}}
            results = tuple(map(_from_value, run(graph, values)))
        return namedtupledict("Outputs", [spec.name for spec in graph.outputs])(*results)

    def _arranged(self, inputs: Any) -> dict[str, Any]:
        names = [spec.name for spec in self._graph.inputs]
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            listed = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            if len(listed) != len(names):
                got = f"{len(listed)} inputs for {', '.join(names)}"
                raise InvalidInputError("Every input of the model is given once", got=got)
            given = dict(zip(names, listed, strict=True))
        if set(given) != set(names):
            got = f"inputs {', '.join(map(str, given))} for {', '.join(names)}"
            raise InvalidInputError("Every input of the model is given once", got=got)
        return given


def _to_value(value: Any) -> Value:
    """Converts a caller's input to a value of the tracer."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_to_value, value))
    if value is None:
        return None
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _from_value(value: Value) -> Any:
    """Converts a value of the tracer to the form that callers expect."""
    if isinstance(value, tuple):
        return list(map(_from_value, value))
    return None if value is None else np.asarray(value)


class JaxBackend(Backend):
    """Runs ONNX models by way of JAX."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Returns whether every operator of the model is implemented."""
        from modeldiff_jax.errors import ModelDiffError

        try:
            cls.prepare(model, device, **kwargs)
        except ModelDiffError:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> JaxBackendRep:
        """Reads and checks a model.

        Args:
          model: a parsed model, without external data.
          device: one that `supports_device`.
          **kwargs: `limits` on hostile input.
        """
        limits = kwargs.get("limits", DEFAULT)
        if not cls.supports_device(device):
            raise InvalidInputError("The device must be one that JAX has here", got=device, fix="use CPU")
        return JaxBackendRep(read_graph(model.SerializeToString(), limits=limits), limits)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepares a model and runs it."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Runs a single node on arrays given in the order of its non-empty inputs, at `opset_version` or the newest."""
        names = [name for name in node.input if name]
        listed: Sequence[Any] = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        graph = helper.make_graph(
            [node],
            "node",
            [_info(name, np.asarray(value)) for name, value in zip(names, listed, strict=True)],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        opset = helper.make_opsetid(node.domain, kwargs.pop("opset_version", onnx_opset_version()))
        return cls.run_model(helper.make_model(graph, opset_imports=[opset]), listed, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Returns whether JAX computes on `CPU` or, where there is one, `CUDA`."""
        kind = device.split(":")[0].upper()
        return kind == "CPU" or (kind == "CUDA" and jax.default_backend() == "gpu")


def _info(name: str, value: np.ndarray) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


is_compatible = JaxBackend.is_compatible
prepare = JaxBackend.prepare
run_model = JaxBackend.run_model
run_node = JaxBackend.run_node
supports_device = JaxBackend.supports_device
