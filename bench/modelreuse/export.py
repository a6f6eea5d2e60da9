"""Exports networks of the zoo as ONNX files: float32, float16, or int8 in weights and activations."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from jaxtyping import Float
from onnx import TensorProto, helper, numpy_helper

from bench.modelreuse.data import SIDE
from bench.modelreuse.networks import forward
from bench.modelreuse.operations import EPSILON, Variables

Precision: TypeAlias = Literal["float32", "float16", "int8"]
OPSET = 17


def export(
    arch: str,
    classes: int,
    variables: Variables,
    precision: Precision = "float32",
    ranges: dict[str, tuple[float, float]] | None = None,
    watch: bool = False,
) -> bytes:
    """Exports a network with batch normalisation folded into convolutions: (batch, 3, 32, 32) -> (batch, classes).

    Args:
      arch, classes, variables: the network.
      precision: int8 rounds filters to 8 bits channel by channel, and the input of every layer to 8 bits over its range
        (the QDQ form); float16 computes everything in half precision, and casts at both ends.
      ranges: least and greatest value of each layer's input, by the layer's name; needed for int8.
      watch: whether to add every layer's input as an output of its name, to measure `ranges`.
    """
    writer = _Writer(variables, precision, ranges or {}, watch)
    x = writer.cast("image", TensorProto.FLOAT16) if precision == "float16" else "image"
    logits, _ = forward(arch, classes, writer, writer.with_channels(x, 3))
    logits = writer.cast(logits, TensorProto.FLOAT) if precision == "float16" else logits
    writer.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])]
    for name in writer.watched:
        shape = ["batch", None] if name == "head" else ["batch", None, None, None]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    graph = helper.make_graph(writer.nodes, arch, [image], outputs, writer.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Writer:
    """`Operations` that add nodes to a graph; values are names."""

    def __init__(
        self, variables: Variables, precision: Precision, ranges: dict[str, tuple[float, float]], watch: bool
    ) -> None:
        self.variables, self.precision, self.ranges, self.watch = variables, precision, ranges, watch
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.watched: list[str] = []
        self._channels: dict[str, int] = {}

    def with_channels(self, x: str, channels: int) -> str:
        """Records the channels of a value, and returns it."""
        self._channels[x] = channels
        return x

    def channels(self, x: str) -> int:
        return self._channels[x]

    def conv(
        self,
        name: str,
        x: str,
        features: int,
        taps: int,
        stride: int,
        groups: int,
        act: str,
        pad: tuple[int, int] | None = None,
    ) -> str:
        params, stats = self.variables["params"][name], self.variables["batch_stats"][name]["norm"]
        factor = params["norm"]["scale"] / np.sqrt(stats["var"] + EPSILON)
        filters = np.transpose(params["kernel"] * factor, (3, 2, 0, 1))
        bias = params["norm"]["bias"] - stats["mean"] * factor
        inputs = [self._input(name, x), self._weights(f"{name}.w", filters), self._constant(f"{name}.b", bias)]
        before, after = pad or (taps // 2,) * 2
        pads, strides = [before, before, after, after], [stride] * 2
        y = self._node("Conv", inputs, f"{name}.y", kernel_shape=[taps] * 2, pads=pads, strides=strides, group=groups)
        return self.with_channels(self._act(y, act), features)

    def zoom(self, x: str, times: int) -> str:
        self.constants.append(numpy_helper.from_array(np.array([1, 1, times, times], np.float32), f"{x}.times"))
        inputs = [x, "", f"{x}.times"]
        y = self._node("Resize", inputs, f"{x}.zoomed", mode="linear", coordinate_transformation_mode="half_pixel")
        return self.with_channels(y, self._channels[x])

    def add(self, a: str, b: str, act: str) -> str:
        total = self._node("Add", [a, b], f"{b}+{a}")
        return self.with_channels(self._act(total, act), self._channels[a])

    def mean(self, x: str) -> str:
        pooled = self._node("GlobalAveragePool", [x], f"{x}.mean")
        return self._node("Flatten", [pooled], f"{x}.flat")

    def dense(self, name: str, x: str, features: int) -> str:
        params = self.variables["params"][name]
        inputs = [
            self._input(name, x),
            self._weights(f"{name}.w", np.asarray(params["kernel"]).T),
            self._constant(f"{name}.b", params["bias"]),
        ]
        return self._node("Gemm", inputs, f"{name}.y", transB=1)

    def cast(self, x: str, to: int) -> str:
        """Returns the value in another type."""
        return self._node("Cast", [x], f"{x}.cast", to=to)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _act(self, x: str, act: str) -> str:
        if act == "relu":
            return self._node("Relu", [x], f"{x}.relu")
        if act == "relu6":
            limits = [self._constant(f"{x}.{limit}", np.float32(limit)) for limit in (0, 6)]
            return self._node("Clip", [x, *limits], f"{x}.relu6")
        return x

    def _constant(self, name: str, values: Any) -> str:
        dtype = np.float16 if self.precision == "float16" else np.float32
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def _input(self, layer: str, x: str) -> str:
        """Returns a layer's input: as an output too if watched, and rounded to 8 bits over its range for int8."""
        if self.watch:
            self.watched.append(self._node("Identity", [x], layer))
        if self.precision != "int8":
            return x
        low, high = (float(v) for v in self.ranges[layer])
        low, high = min(low, 0.0), max(high, 0.0)
        step = max(high - low, 1e-6) / 255
        return self._rounded(x, layer, np.float32(step), np.uint8(np.clip(round(-low / step), 0, 255)))

    def _rounded(self, x: str, layer: str, step: np.float32, zero: np.uint8) -> str:
        names = [f"{layer}.step", f"{layer}.zero"]
        for name, value in zip(names, (step, zero), strict=True):
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        whole = self._node("QuantizeLinear", [x, *names], f"{layer}.whole")
        return self._node("DequantizeLinear", [whole, *names], f"{layer}.rounded")

    def _weights(self, name: str, values: Float[np.ndarray, "o ..."]) -> str:
        if self.precision != "int8":
            return self._constant(name, values)
        step = np.maximum(np.abs(values).max(axis=tuple(range(1, values.ndim))), 1e-12) / 127
        whole = np.round(values / step.reshape(-1, *(1,) * (values.ndim - 1))).astype(np.int8)
        parts = {
            f"{name}.whole": whole,
            f"{name}.step": step.astype(np.float32),
            f"{name}.zero": np.zeros(len(step), np.int8),
        }
        for part, value in parts.items():
            self.constants.append(numpy_helper.from_array(value, part))
        return self._node("DequantizeLinear", list(parts), name, axis=0)
