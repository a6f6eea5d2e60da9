"""Small JAX models with known behaviour, for tests of the packages above `models`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import Shape, TensorSpec

FLOAT32 = np.dtype(np.float32)


def mlp_apply(params, x):
    """Two dense layers over flattened inputs: (n, ...) -> (n, classes)."""
    hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ params["w1"] + params["b1"][None])
    return hidden @ params["w2"]


def mlp(seed=0, shape=(8, 8, 1), classes=5, width=32, name=None):
    """Returns a random two-layer network; equal seeds give equal weights, all share one `apply`."""
    k1, k2, k3 = jax.random.split(jax.random.key(seed), 3)
    d = int(np.prod(shape))
    params = {
        "w1": jax.random.normal(k1, (d, width)) * (2 / d**0.5),
        "b1": jax.random.normal(k2, (width,)),
        "w2": jax.random.normal(k3, (width, classes)) / width**0.5,
    }
    return Model(
        mlp_apply,
        params,
        (TensorSpec("x", ("n", *shape), FLOAT32),),
        (TensorSpec("logits", ("n", classes), FLOAT32),),
        Origin(name or f"mlp-{seed}", "test", f"{seed:064x}"),
    )


def perturbed(model, scale, seed=1, name="child"):
    """Returns the model with noise of relative size `scale` on every weight, as a substitute for a fine-tuned child."""
    leaves, tree = jax.tree.flatten(model.params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [w + scale * jnp.std(w) * jax.random.normal(k, w.shape) for w, k in zip(leaves, keys, strict=True)]
    origin = Origin(name, "test", f"{seed + 10_000:064x}")
    return Model(model.apply, jax.tree.unflatten(tree, noisy), model.inputs, model.outputs, origin)


def spec(shape: Shape, dtype: str = "float32", name: str = "x") -> TensorSpec:
    """Returns the spec of one input."""
    return TensorSpec(name, shape, np.dtype(dtype))


def flat(params: Any, *inputs: Any) -> Any:
    """Returns the first input, flattened per sample, times one weight."""
    x = jnp.asarray(inputs[0])
    return x.reshape(x.shape[0], -1).astype(jnp.float32) * params["w"]


def model(
    *inputs: TensorSpec,
    apply: Callable[..., Any] = flat,
    outputs: tuple[TensorSpec, ...] = (),
    traceable: bool = True,
    weight: float = 1.0,
) -> Model:
    """Returns a model of any inputs."""
    return Model(apply, {"w": np.float32(weight)}, inputs, outputs, Origin("small", "test"), traceable)
