"""Networks that benchmarks and tests share, with random weights, as ONNX models.

A network is plain data; `walk` runs it on any backend, so that ONNX and PyTorch get the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Conv:
    """A convolution with bias and without batch normalisation, as exporters write it."""

    name: str
    inputs: int
    outputs: int
    taps: int = 3
    stride: int = 1
    groups: int = 1
    activation: str = ""
    """"", "relu" or "relu6"."""


@dataclass(frozen=True)
class Block:
    """Convolutions one after another; a residual block adds its input, through `shortcut` where shapes differ."""

    convs: tuple[Conv, ...]
    residual: bool = False
    shortcut: Conv | None = None
    activation: str = ""


@dataclass(frozen=True)
class Network:
    """Blocks, the mean over all places, and a linear layer."""

    name: str
    shape: tuple[int, int, int]
    blocks: tuple[Block, ...]
    classes: int = 100

    def convs(self) -> Iterator[Conv]:
        for block in self.blocks:
            yield from block.convs
            if block.shortcut:
                yield block.shortcut

    @property
    def features(self) -> int:
        """Channels that reach the linear layer."""
        return self.blocks[-1].convs[-1].outputs


class Backend(Protocol):
    """The operations that `walk` calls."""

    def conv(self, x: Any, conv: Conv) -> Any: ...
    def activation(self, x: Any, kind: str) -> Any: ...
    def add(self, x: Any, y: Any) -> Any: ...
    def head(self, x: Any) -> Any: ...


def walk(network: Network, backend: Backend, x: Any) -> Any:
    """Returns the network's outputs for `x`, as values of the backend."""
    for block in network.blocks:
        y = x
        for conv in block.convs:
            y = backend.activation(backend.conv(y, conv), conv.activation)
        if block.residual:
            y = backend.add(y, backend.conv(x, block.shortcut) if block.shortcut else x)
        x = backend.activation(y, block.activation)
    return backend.head(x)


def _plain() -> Network:
    """Returns ResNet-10 with a small stem: 3 x 3 convolutions, residual blocks of 32 to 256 channels."""
    blocks, inputs = [Block((Conv("stem", 3, 32, stride=2, activation="relu"),))], 32
    for i, outputs in enumerate((32, 64, 128, 256)):
        stride = 2 if i else 1
        convs = (
            Conv(f"{i}.a", inputs, outputs, stride=stride, activation="relu"),
            Conv(f"{i}.b", outputs, outputs),
        )
        shortcut = Conv(f"{i}.s", inputs, outputs, 1, stride) if i else None
        blocks.append(Block(convs, True, shortcut, "relu"))
        inputs = outputs
    return Network("plain", (3, 64, 64), tuple(blocks))


def _depthwise() -> Network:
    """Returns MobileNetV2 with half its layers: inverted residuals, 3 x 3 depthwise convolutions, ReLU6."""
    blocks, inputs = [Block((Conv("stem", 3, 16, stride=2, activation="relu6"),))], 16
    layers = ((1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 64, 2), (6, 64, 1), (6, 96, 1))
    for i, (factor, outputs, stride) in enumerate(layers):
        wide = inputs * factor
        convs = [Conv(f"{i}.expand", inputs, wide, 1, activation="relu6")] if factor > 1 else []
        convs += [
            Conv(f"{i}.depthwise", wide, wide, 3, stride, wide, "relu6"),
            Conv(f"{i}.project", wide, outputs, 1),
        ]
        blocks.append(Block(tuple(convs), residual=stride == 1 and inputs == outputs))
        inputs = outputs
    blocks.append(Block((Conv("last", inputs, 320, 1, activation="relu6"),)))
    return Network("depthwise", (3, 64, 64), tuple(blocks))


NETWORKS: Mapping[str, Network] = {network.name: network for network in (_plain(), _depthwise())}


def weights(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws He-initialised filters (O, I / groups, taps, taps), small biases, and the linear layer."""
    rng = np.random.default_rng(seed)
    values = {}
    for conv in network.convs():
        shape = (conv.outputs, conv.inputs // conv.groups, conv.taps, conv.taps)
        values[conv.name + ".w"] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        values[conv.name + ".b"] = rng.standard_normal(conv.outputs) * 0.1
    values["head.w"] = rng.standard_normal((network.classes, network.features)) / np.sqrt(network.features)
    values["head.b"] = np.zeros(network.classes)
    return {name: value.astype(np.float32) for name, value in values.items()}


class _Nodes:
    """A backend that makes ONNX nodes; values are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def conv(self, x: str, conv: Conv) -> str:
        return self._node(
            "Conv",
            x,
            conv.name + ".w",
            conv.name + ".b",
            strides=[conv.stride] * 2,
            pads=[conv.taps // 2] * 4,
            group=conv.groups,
        )

    def activation(self, x: str, kind: str) -> str:
        return {"": lambda: x, "relu": lambda: self._node("Relu", x), "relu6": lambda: self._node("Clip", x, "0", "6")}[
            kind
        ]()

    def add(self, x: str, y: str) -> str:
        return self._node("Add", x, y)

    def head(self, x: str) -> str:
        x = self._node("Flatten", self._node("GlobalAveragePool", x))
        return self._node("Gemm", x, "head.w", "head.b", transB=1)


def onnx_model(network: Network, seed: int = 0) -> onnx.ModelProto:
    """Returns the network as an ONNX model with a dynamic batch, opset 17, logits out."""
    backend = _Nodes()
    result = walk(network, backend, "x")
    constants = {**weights(network, seed), "0": np.float32(0), "6": np.float32(6)}
    graph = helper.make_graph(
        backend.nodes,
        network.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *network.shape])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", network.classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
