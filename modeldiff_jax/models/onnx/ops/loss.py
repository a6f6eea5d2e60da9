"""Losses of classifiers, the last operators of models that were exported for training."""

from __future__ import annotations

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.registry import Index
from modeldiff_jax.models.graph.values import Value, astype, in_float32, xp
from modeldiff_jax.models.onnx.registration import op


def _negative_log_likelihood(
    log_prob: Value, labels: Value, weights: Value, reduction: str, ignore_index: int | None
) -> Value:
    """Returns the weighted negative of each label's entry along the second axis, which is that of the classes."""
    if reduction not in ("none", "mean", "sum"):
        raise InvalidInputError("The reduction is none, mean or sum", got=reduction)
    m, classes = xp(log_prob, labels, weights), log_prob.shape[1]
    labels = m.expand_dims(labels, 1)
    index = m.clip(labels, 0, classes - 1)
    loss = -m.take_along_axis(log_prob, index, 1)
    share = m.ones_like(loss) if weights is None else m.take(m.asarray(weights), index)
    if ignore_index is not None:  # both are set to 0, since an infinite loss times 0 is NaN
        ignored = labels == ignore_index
        share, loss = (m.where(ignored, m.zeros((), values.dtype), values) for values in (share, loss))
    loss = astype((loss * share)[:, 0], log_prob.dtype)
    if reduction == "none":
        return loss
    total = loss.sum()
    return total if reduction == "sum" else astype(total / share.sum(), log_prob.dtype)


@op("NegativeLogLikelihoodLoss")
@in_float32
def negative_log_likelihood_loss(
    log_prob: Value,
    labels: Index,
    weights: Value = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Value:
    """Returns minus the log probability of each label, weighted by class."""
    return _negative_log_likelihood(log_prob, labels, weights, reduction, ignore_index)


@op("SoftmaxCrossEntropyLoss")
@in_float32
def softmax_cross_entropy_loss(
    scores: Value, labels: Index, weights: Value = None, /, *, ignore_index: int | None = None, reduction: str = "mean"
) -> tuple[Value, Value]:
    """Returns the negative log likelihood of each label after a softmax over the classes, and the log probabilities."""
    m = xp(scores)
    shifted = scores - m.max(scores, axis=1, keepdims=True)
    log_prob = shifted - m.log(m.sum(m.exp(shifted), axis=1, keepdims=True))
    return _negative_log_likelihood(log_prob, labels, weights, reduction, ignore_index), log_prob
