"""A slim ResNet and a slim MobileNetV2 for 32 x 32 images, written once for Flax and for the ONNX writer.

`forward` calls `Operations`: Flax's make modules with batch normalisation, the exporter's write nodes with the
normalisation folded in. Layers are named as in the parameter tree.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bench.modelreuse import efficientnet
from bench.modelreuse.operations import EPSILON, Operations, Variables
from modeldiff_jax.kernels.convolution import convolve

_MOMENTUM = 0.95
ARCHITECTURES = ("resnet", "mobilenet")


def forward(arch: str, classes: int, ops: Operations, x: Any) -> tuple[Any, list[Any]]:
    """Returns logits, and the outputs of the four parts that a distilled student imitates."""
    bodies = {"resnet": _resnet, "mobilenet": _mobilenet}
    features = bodies[arch](ops, x) if arch in bodies else efficientnet.body(arch, ops, x)
    return ops.dense("head", ops.mean(features[-1]), classes), features


def units(arch: str) -> list[str]:
    """Returns the prefixes of layer names from input to output, by which a share of the layers is counted."""
    names = {
        "resnet": ["stem", "block1", "block2", "block3", "head"],
        "mobilenet": ["stem", "block1", "block2", "block3", "block4", "block5", "last", "head"],
    }
    return names[arch] if arch in names else efficientnet.units(arch)


def _resnet(ops: Operations, x: Any) -> list[Any]:
    """Applies basic blocks (He et al., CVPR 2016): 75 thousand parameters."""
    parts = [ops.conv("stem", x, 16, 3, 2, 1, "relu")]
    for i, (width, stride) in enumerate(((16, 1), (32, 2), (64, 2)), 1):
        x = parts[-1]
        y = ops.conv(f"block{i}_a", x, width, 3, stride, 1, "relu")
        y = ops.conv(f"block{i}_b", y, width, 3, 1, 1, "")
        if stride > 1:
            x = ops.conv(f"block{i}_skip", x, width, 1, stride, 1, "")
        parts.append(ops.add(x, y, "relu"))
    return parts


def _mobilenet(ops: Operations, x: Any) -> list[Any]:
    """Applies inverted residual blocks (Sandler et al., CVPR 2018): 60 thousand parameters."""
    x = ops.conv("stem", x, 16, 3, 2, 1, "relu6")
    parts = []
    plan = ((24, 2, 1), (24, 1, 4), (32, 1, 4), (48, 2, 4), (48, 1, 4))
    for i, (width, stride, expansion) in enumerate(plan, 1):
        inner = ops.channels(x) * expansion
        y = ops.conv(f"block{i}_grow", x, inner, 1, 1, 1, "relu6") if expansion > 1 else x
        y = ops.conv(f"block{i}_depth", y, inner, 3, stride, inner, "relu6")
        y = ops.conv(f"block{i}_shrink", y, width, 1, 1, 1, "")
        x = ops.add(x, y, "") if stride == 1 and ops.channels(x) == width else y
        if i in (1, 3, 5):
            parts.append(x)
    return [*parts, ops.conv("last", x, 128, 1, 1, 1, "relu6")]


def activate(x: Any, act: str) -> Any:
    """Applies relu, relu6 or nothing."""
    return {"relu": nn.relu, "relu6": lambda v: jnp.clip(v, 0, 6), "": lambda v: v}[act](x)


class ConvNorm(nn.Module):
    """Convolution without a bias, then batch normalisation."""

    features: int
    taps: int
    stride: int
    groups: int
    pad: tuple[int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 d"]:
        shape = (self.taps, self.taps, x.shape[-1] // self.groups, self.features)
        scale = nn.initializers.variance_scaling(2.0, "fan_out" if self.groups == 1 else "fan_in", "normal")
        kernel = self.param("kernel", scale, shape)
        strides, padding = (self.stride,) * 2, (self.pad,) * 2
        x = convolve(x, kernel, strides=strides, padding=padding, groups=self.groups, layout="channels_last")
        return Norm(name="norm")(x, train)


class Norm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015).

    Flax's reduces over rows, which is slow in XLA on CPU; here sums are products with a row of ones.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        c = x.shape[-1]
        scale, bias = self.param("scale", nn.initializers.ones, (c,)), self.param("bias", nn.initializers.zeros, (c,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        variance = self.variable("batch_stats", "var", jnp.ones, (c,))
        m, v = mean.value, variance.value
        if train:
            rows = x.reshape(-1, c)
            m = _column_sums(rows) / len(rows)
            v = _column_sums((rows - m) ** 2) / len(rows)
            if not self.is_initializing():
                mean.value = _MOMENTUM * mean.value + (1 - _MOMENTUM) * m
                variance.value = _MOMENTUM * variance.value + (1 - _MOMENTUM) * v
        factor = scale * jax.lax.rsqrt(v + EPSILON)
        return _affine(x, factor, bias - m * factor)


@jax.custom_vjp
def _affine(x: Any, factor: Any, offset: Any) -> Any:
    """Returns x * factor + offset, channel by channel."""
    return x * factor + offset


def _affine_forward(x: Any, factor: Any, offset: Any) -> Any:
    return _affine(x, factor, offset), (x, factor)


def _affine_backward(residuals: Any, g: Any) -> Any:
    x, factor = residuals
    c = x.shape[-1]
    return g * factor, _column_sums((g * x).reshape(-1, c)), _column_sums(g.reshape(-1, c))


_affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def _column_sums(rows: Any) -> Any:
    """Returns the sums of columns, (n, c) -> (c,)."""
    return jnp.matmul(jnp.ones((1, len(rows)), rows.dtype), rows, precision="highest")[0]


def _column_sums_forward(rows: Any) -> Any:
    return _column_sums(rows), len(rows)


def _column_sums_backward(n: int, g: Any) -> Any:
    return (jnp.broadcast_to(g, (n, *g.shape)),)


_column_sums.defvjp(_column_sums_forward, _column_sums_backward)


class _Flax:
    """`Operations` that make modules within a compact call."""

    def __init__(self, train: bool) -> None:
        self.train = train

    def conv(
        self,
        name: str,
        x: Any,
        features: int,
        taps: int,
        stride: int,
        groups: int,
        act: str,
        pad: tuple[int, int] | None = None,
    ) -> Any:
        pad = pad or (taps // 2,) * 2
        return activate(ConvNorm(features, taps, stride, groups, pad, name=name)(x, self.train), act)

    def zoom(self, x: Any, times: int) -> Any:
        n, h, w, c = x.shape
        return jax.image.resize(x, (n, h * times, w * times, c), "bilinear")

    def add(self, a: Any, b: Any, act: str) -> Any:
        return activate(a + b, act)

    def mean(self, x: Any) -> Any:
        return jnp.mean(x, axis=(1, 2))

    def dense(self, name: str, x: Any, features: int) -> Any:
        return nn.Dense(features, name=name)(x)

    def channels(self, x: Any) -> int:
        return int(x.shape[-1])


class Network(nn.Module):
    """(n, 32, 32, 3) normalised images -> (n, classes) logits, and four feature maps."""

    arch: str
    classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n 32 32 3"], train: bool = False
    ) -> tuple[Float[Array, "n c"], list[Float[Array, "n h w d"]]]:
        return forward(self.arch, self.classes, _Flax(train), x)


def fresh(arch: str, classes: int, seed: int) -> Variables:
    """Returns the variables of an untrained network."""
    return jax.device_get(_init(arch, classes, jax.random.key(seed)))


@partial(jax.jit, static_argnums=(0, 1))
def _init(arch: str, classes: int, key: Any) -> Variables:
    return dict(Network(arch, classes).init(key, jnp.zeros((1, 32, 32, 3))))
