"""Differentiable similarity of two models' outputs on probe pairs, which adversaries raise or lower.

`ddv` is the paper's evidence: the cosine similarity of decision distance vectors. `evidence` is the similarity in the
four representations of `modeldiff_jax.evidence.representations`: the mean of unrelated models is subtracted from each
model's representation, as the evidence itself does, before the cosine. How unrelated models differ from one another is
left out.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from modeldiff_jax.kernels import paired_distances

Term: TypeAlias = Literal["ddv", "evidence"]
TERMS: tuple[Term, ...] = ("ddv", "evidence")
_LEAST = 1e-4
"""As in the evidence's view of the DDV."""


def likeness(
    term: Term, one: Float[Array, "2 n c"], other: Float[Array, "2 n c"], strangers: Float[Array, "r 2 n c"]
) -> Float[Array, " views"]:
    """Cosines in [-1, 1]: one for `ddv`, four for `evidence`.

    Args:
      term: see the module.
      one, other: two models' logits for seeds and for partners.
      strangers: those of unrelated models.
    """
    if term == "ddv":
        return _cosine(_distances(one), _distances(other))[None]
    found = []
    for view in (_logits, _probabilities, _log_distances, _geometry):
        common = jnp.mean(jax.vmap(view)(strangers), axis=0)
        found.append(_cosine(view(one) - common, view(other) - common))
    return jnp.stack(found)


def _cosine(a: Any, b: Any) -> Any:
    return jnp.sum(a * b) * jax.lax.rsqrt(jnp.sum(a * a) * jnp.sum(b * b) + 1e-12)


def _distances(told: Float[Array, "2 n c"]) -> Float[Array, " n"]:
    return paired_distances(*told)


def _logits(told: Float[Array, "2 n c"]) -> Float[Array, " d"]:
    return jax.vmap(_standard)(told).ravel()


def _probabilities(told: Float[Array, "2 n c"]) -> Float[Array, " d"]:
    return jax.nn.softmax(told[0]).ravel()


def _log_distances(told: Float[Array, "2 n c"]) -> Float[Array, " n"]:
    return jnp.log(_distances(told) + _LEAST)


def _geometry(told: Float[Array, "2 n c"]) -> Float[Array, " p"]:
    x = _standard(told[0])
    first, second = np.triu_indices(len(x), 1)
    return jnp.sqrt(jnp.sum((x[first] - x[second]) ** 2, axis=1) + 1e-12)


def _standard(x: Float[Array, "n c"]) -> Float[Array, "n c"]:
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2) + 1e-12)
