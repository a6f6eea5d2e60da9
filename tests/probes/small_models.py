"""Synthetic models of any input, for tests of what lies between probes and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import Shape, TensorSpec


def spec(shape: Shape, dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name, shape, np.dtype(dtype))


def flat(params: Any, *inputs: Any) -> Any:
    """The first input, flattened per sample, times one weight."""
    x = jnp.asarray(inputs[0])
    return x.reshape(x.shape[0], -1).astype(jnp.float32) * params["w"]


def model(
    *inputs: TensorSpec,
    apply: Callable[..., Any] = flat,
    outputs: tuple[TensorSpec, ...] = (),
    traceable: bool = True,
    weight: float = 1.0,
) -> Model:
    return Model(apply, {"w": np.float32(weight)}, inputs, outputs, Origin("small", "test"), traceable)
