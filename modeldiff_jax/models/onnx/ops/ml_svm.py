"""Support vector machines of `ai.onnx.ml`: kernels between examples and support vectors, times coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.values import HIGHEST, Value
from modeldiff_jax.models.onnx.ops.ml import ML, floats, labelled, transformed
from modeldiff_jax.models.onnx.registration import op


def _dot(x: Value, rows: np.ndarray) -> Value:
    return jnp.matmul(x, rows.T, precision=HIGHEST)


def _kernels(x: Value, vectors: np.ndarray, kind: str, params: Sequence[float] | None) -> Value:
    """Returns the kernel of each example with each support vector, (examples, vectors)."""
    if params and len(params) != 3:
        raise InvalidModelError("A kernel has gamma, coef0 and degree", got=f"{len(params)} numbers")
    gamma, start, degree = params or (0.0, 0.0, 0.0)
    match kind.upper():
        case "LINEAR":
            return _dot(x, vectors)
        case "POLY":
            power: Any = int(degree) if degree == int(degree) else degree
            return (gamma * _dot(x, vectors) + start) ** power
        case "SIGMOID":
            return jnp.tanh(gamma * _dot(x, vectors) + start)
        case "RBF":
            return jnp.exp(-gamma * jnp.square(x[:, None] - vectors).sum(-1))
    raise InvalidModelError("A kernel is LINEAR, POLY, RBF or SIGMOID", got=kind)


def _rows(values: Sequence[float] | None, rows: int, noun: str, columns: int | None = None) -> np.ndarray:
    """Reshapes a list of numbers to `rows` rows, of `columns` columns unless that is None."""
    flat = np.asarray(values or (), np.float32)
    if rows < 1 or flat.size % rows or columns not in (None, flat.size // rows):
        wanted = f"{rows} rows" + (f" of {columns}" if columns is not None else "")
        raise InvalidModelError(f"{noun} fill their rows", got=f"{flat.size} numbers for {wanted}")
    return flat.reshape(rows, -1)


def _offsets(rho: Sequence[float] | None, count: int) -> np.ndarray:
    if len(rho or ()) < count:
        raise InvalidModelError("Each score has an offset", got=f"{len(rho or ())} of {count}")
    return np.asarray(rho, np.float32)[:count]


@op("SVMRegressor", domain=ML)
def svm_regressor(
    x: Value,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
) -> Value:
    """Returns the weighted sum of kernels plus an offset, or its sign."""
    x = floats(x)
    if n_supports > 0:
        vectors = _rows(support_vectors, n_supports, "Support vectors", x.shape[-1])
        kernels = _kernels(x, vectors, kernel_type, kernel_params)
        y = _dot(kernels, _rows(coefficients, 1, "Weights", n_supports))
    else:
        y = _dot(x, _rows(coefficients, 1, "Weights", x.shape[-1]))
    y = y + _offsets(rho, 1)
    return jnp.where(y > 0, 1.0, -1.0) if one_class else transformed(y, post_transform)


def _pair_scores(x: Value, vectors: np.ndarray, weights: np.ndarray, members: np.ndarray, kernel: Any) -> Value:
    """Returns the score of each pair of classes without its offset, (examples, pairs)."""
    first, second = np.triu_indices(members.size, 1)
    check_made((len(vectors), first.size))
    class_of, vector = np.repeat(np.arange(members.size), members)[:, None], np.arange(len(vectors))[:, None]
    against_second, against_first = weights[second - 1, vector], weights[first, vector]
    table = np.where(class_of == first, against_second, np.where(class_of == second, against_first, 0))
    return _dot(_kernels(x, vectors, *kernel), table.T)


def _votes(scores: Value, classes: int) -> Value:
    """Returns the number of pairwise comparisons that each class wins, (examples, classes)."""
    first, second = np.triu_indices(classes, 1)
    winner = jnp.where(scores > 0, first, second)
    return jax.nn.one_hot(winner, classes).sum(1)


def _probabilities(scores: Value, classes: int, a: Sequence[float], b: Sequence[float]) -> Value:
    """Returns class probabilities that best fit the pairwise ones (Wu, Lin and Weng 2004), by libsvm's iteration."""
    first, second = np.triu_indices(classes, 1)
    if min(len(a), len(b)) < first.size:
        raise InvalidModelError("Each pair of classes has its probability's slope and offset", got=f"{len(a)}")
    slopes, offsets = np.asarray(a, np.float32)[: first.size], np.asarray(b, np.float32)[: first.size]
    wins = jnp.clip(jax.nn.sigmoid(-(scores * slopes + offsets)), 1e-7, 1 - 1e-7)
    pairs = jnp.zeros((len(scores), classes, classes))
    pairs = pairs.at[:, first, second].set(wins).at[:, second, first].set(1 - wins)
    diagonal = np.arange(classes)
    q = (-jnp.swapaxes(pairs, 1, 2) * pairs).at[:, diagonal, diagonal].set(jnp.square(pairs).sum(1))

    def sweep(_: Any, p: Value) -> Value:
        qp = jnp.einsum("nij,nj->ni", q, p, precision=HIGHEST)
        total = (p * qp).sum(1)
        converged = jnp.abs(qp - total[:, None]).max(1) < 0.005 / classes

        def update(t: Any, state: tuple[Value, Value, Value]) -> tuple[Value, Value, Value]:
            p, qp, total = state
            step = (total - qp[:, t]) / q[:, t, t]
            total = (total + step * (step * q[:, t, t] + 2 * qp[:, t])) / (1 + step) ** 2
            p, qp = p.at[:, t].add(step), qp + step[:, None] * q[:, t]
            return p / (1 + step)[:, None], qp / (1 + step)[:, None], total

        return jnp.where(converged[:, None], p, jax.lax.fori_loop(0, classes, update, (p, qp, total))[0])

    return jax.lax.fori_loop(0, max(100, classes), sweep, jnp.full((len(scores), classes), 1 / classes))


@op("SVMClassifier", domain=ML)
def svm_classifier(
    x: Value,
    /,
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Sequence[float] | None = None,
    prob_b: Sequence[float] | None = None,
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
    vectors_per_class: Sequence[int] | None = None,
) -> tuple[Value, Value]:
    """Returns the class that wins most pairwise comparisons, the first of equal ones, and the scores.

    The scores are those of the pairs or, with `prob_a`, the probabilities of the classes. Without support vectors each
    class has a linear score, and the highest one decides.
    """
    x = floats(x)
    labels = len(classlabels_strings or classlabels_ints or ())
    classes, members = max(labels, 1), np.asarray(vectors_per_class or (), np.int64)
    check_made((classes, classes))
    n = sum(vectors_per_class or ())
    if n > 0:
        if members.size != classes or members.min() < 0:
            raise InvalidModelError("Each class has a number of support vectors", got=f"{members.size} of {classes}")
        vectors = _rows(support_vectors, n, "Support vectors", x.shape[-1])
        weights = _rows(coefficients, classes - 1, "Weights", n)
        pair_scores = _pair_scores(x, vectors, weights, members, (kernel_type, kernel_params))
        scores = pair_scores + _offsets(rho, classes * (classes - 1) // 2)
        deciding = _votes(scores, classes)
        scores = _probabilities(scores, classes, prob_a, prob_b or ()) if prob_a else scores
    else:
        deciding = scores = _dot(x, _rows(coefficients, classes, "Weights", x.shape[-1])) + _offsets(rho, 1)
    label = labelled(jnp.argmax(deciding, -1), classlabels_strings, classlabels_ints)
    if labels == 2 and scores.shape[1] == 1 and post_transform != "PROBIT":  # one score decides between two classes
        scores = jnp.concatenate([-scores, scores], -1)
    return label, transformed(scores, post_transform)
