"""Access levels: which part of its outputs a suspect exposes: all, probabilities, the greatest few, or a label.

Hidden outputs must not count for or against it. So the outputs of target and references are restricted to the suspect's
access level: then the same representations compare all of them, and an unrelated suspect ranks among references as
before.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float, Num
from scipy.special import softmax

from modeldiff_jax.errors import InvalidInputError

ALL = "outputs"
_TOP = re.compile(r"top-([1-9]\d{0,5})")


def check_access(access: str) -> str:
    """Returns the access level; raises unless it is `outputs`, `probabilities`, `top-K` or `labels`."""
    if access in (ALL, "probabilities", "labels") or _TOP.fullmatch(access):
        return access
    raise InvalidInputError(
        "Access is `outputs`, `probabilities`, `labels`, or `top-5` with any number", got=repr(access), where="access"
    )


def restrict(
    reactions: Num[np.ndarray, "n c"], access: str, n_labels: int | None = None
) -> Float[np.ndarray, "n d"] | Num[np.ndarray, "n c"]:
    """Restricts a model's reactions to an access level.

    Args:
      reactions: logits, probabilities (rows without negative numbers that sum to at most 1; what they lack to 1 is
        spread over the zeros), or label numbers, (N, 1).
      access: `outputs` leaves them as they are. `probabilities`: softmax of logits. `top-K`: the K greatest
        probabilities; the others share the rest equally. `labels`: 1 for the greatest, 0 for all others.
      n_labels: number of labels, where the reactions are label numbers.
    Returns:
      (N, C), or (N, n_labels) for label numbers. These are probabilities, except under `outputs`.
    Raises:
      InvalidInputError: the access is unknown, or numbers in one column are not labels.
    """
    if check_access(access) == ALL:
        return reactions
    x = np.asarray(reactions, np.float64)
    c = x.shape[1]
    if c == 1:
        return _one_hot(x[:, 0], access, n_labels)
    if x.min() >= 0 and x.sum(axis=1).max() <= 1 + 1e-3:
        missing, zeros = np.maximum(1 - x.sum(axis=1, keepdims=True), 0), x == 0
        x = np.where(zeros, missing / np.maximum(zeros.sum(axis=1, keepdims=True), 1), x)
    else:
        x = softmax(x, axis=1)
    if access == "labels":
        return np.eye(c)[x.argmax(axis=1)]
    top_k = _TOP.fullmatch(access)
    k = min(int(top_k[1]), c) if top_k else c
    if k < c:
        hidden = np.argsort(-x, axis=1, kind="stable")[:, k:]
        share = np.take_along_axis(x, hidden, 1).mean(axis=1, keepdims=True)
        np.put_along_axis(x, hidden, share, 1)
    return x


def infer_access(reactions: Num[np.ndarray, "n c"]) -> str:
    """Returns the most restrictive access level consistent with these outputs: `labels`, `top-K`, or `outputs`.

    Args:
      reactions: one model's, unrestricted. One column of whole numbers is consistent with labels, and so are rows of
        zeros and one 1. Rows of zeros and K positive numbers are consistent with the K greatest probabilities, if what
        they lack to 1 can be spread over the zeros without making any of them one of the greatest.
    """
    x = np.asarray(reactions)
    c = x.shape[1]
    if x.min() < 0 or (c == 1 and (x != np.rint(x)).any()):
        return ALL
    if c == 1:
        return "labels"
    exposed = np.count_nonzero(x, axis=1)
    k, sums = int(exposed[0]), x.sum(axis=1)
    if not 0 < k < c or (exposed != k).any() or sums.max() > 1 + 1e-3:
        return ALL
    if k == 1 and (sums == 1).all():
        return "labels"
    least = np.where(x > 0, x, np.inf).min(axis=1)
    return f"top-{k}" if ((1 - sums) / (c - k) <= least + 1e-3).all() else ALL


def _one_hot(numbers: Float[np.ndarray, " n"], access: str, n_labels: int | None) -> Float[np.ndarray, "n d"]:
    whole = np.rint(numbers).astype(int)
    if access != "labels" or not n_labels or (whole != numbers).any() or whole.min() < 0 or whole.max() >= n_labels:
        raise InvalidInputError(
            f"One number for each input is a label, a whole number below {n_labels}, under access `labels`",
            got=f"{numbers.min():g} to {numbers.max():g} under `{access}`",
            where="access",
        )
    return np.eye(n_labels)[whole]
