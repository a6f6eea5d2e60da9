"""TreeEnsemble of `ai.onnx.ml`, new in opset 5: inner nodes and leaves in separate lists, and set membership."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.values import Value
from modeldiff_jax.models.onnx.ops.ml import ML, transformed
from modeldiff_jax.models.onnx.ops.ml_trees import MEMBER, Forest, aggregate, depth_of, leaf_table, same_length, within
from modeldiff_jax.models.onnx.registration import op

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def _named(names: Sequence[str], number: int, what: str) -> str:
    if not 0 <= number < len(names):
        raise InvalidModelError(f"{what} is one of 0 to {len(names) - 1}", got=f"{number}")
    return names[number]


def _sets(mode: np.ndarray, values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the table of sets and each node's row in it; the list of sets has a NaN after each, in node order."""
    asks = mode == MEMBER
    if not asks.any():
        return None, None
    ends = np.flatnonzero(np.isnan(values))
    if ends.size != np.count_nonzero(asks) or ends[-1] != values.size - 1:
        got = f"{ends.size} sets for {np.count_nonzero(asks)} nodes"
        raise InvalidModelError("Each node that asks for a set has one, which NaN ends", got=got)
    lengths = np.diff(ends, prepend=-1)
    check_made((ends.size, int(lengths.max())))
    table = np.full((ends.size, lengths.max()), np.nan, values.dtype)
    rows = np.repeat(np.arange(ends.size), lengths)
    table[rows, np.arange(values.size) - np.repeat(ends - lengths + 1, lengths)] = values
    return np.where(asks, np.cumsum(asks) - 1, 0), table


def _forest(
    n_features: int,
    roots: Sequence[int],
    modes: np.ndarray,
    splits: np.ndarray,
    features: Sequence[int],
    children: tuple[Sequence[int], Sequence[int]],
    leaves: tuple[Sequence[int], Sequence[int]],
    missing: Sequence[int],
    members: np.ndarray,
    n_leaves: int,
) -> Forest:
    """Returns the inner nodes, checked, followed by the leaves."""
    same_length(
        modes=modes,
        splits=splits,
        features=features,
        true=children[0],
        false=children[1],
        true_leaves=leaves[0],
        false_leaves=leaves[1],
        missing=missing,
    )
    n = len(modes)
    itself = np.arange(n, n + n_leaves, dtype=np.int32)

    def places(numbers: Sequence[int], at_leaves: Sequence[int]) -> np.ndarray:
        found, ends = np.asarray(numbers, np.int64), np.asarray(at_leaves, bool)
        within(found[ends], n_leaves, "leaf")
        within(found[~ends], n, "node")
        return np.concatenate([np.where(ends, found + n, found).astype(np.int32), itself])

    def with_leaves(values: Any, dtype: Any, fill: int) -> np.ndarray:
        return np.concatenate([np.asarray(values, dtype), np.full(n_leaves, fill, dtype)])

    mode = within(np.asarray(modes, np.int32), MEMBER + 1, "mode")
    left, right = places(children[0], leaves[0]), places(children[1], leaves[1])
    starts = within(np.asarray(roots, np.int32), n, "root")
    set_of, table = _sets(mode, members)
    return Forest(
        starts,
        with_leaves(within(np.asarray(features, np.int64), n_features, "feature"), np.int32, 0),
        with_leaves(splits, splits.dtype, 0),
        with_leaves(mode, np.int32, -1),
        with_leaves(missing, bool, 0),
        left,
        right,
        depth_of(starts, left, right, np.arange(n + n_leaves) >= n),
        None if set_of is None else with_leaves(set_of, np.int32, 0),
        table,
    )


@op("TreeEnsemble", domain=ML, since=5)
def tree_ensemble(
    x: Value,
    /,
    *,
    leaf_targetids: Sequence[int],
    leaf_weights: Any,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_modes: Any,
    nodes_splits: Any,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    tree_roots: Sequence[int],
    aggregate_function: int = 1,
    membership_values: Any = None,
    n_targets: int | None = None,
    nodes_hitrates: Any = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    post_transform: int = 0,
) -> Value:
    """Aggregates, for each target, the weights of the leaves that an example reaches in all trees."""
    x, weights = jnp.asarray(x), np.ravel(leaf_weights)
    same_length(targets=leaf_targetids, weights=weights)
    modes = np.ravel(nodes_modes)
    forest = _forest(
        x.shape[-1],
        tree_roots,
        modes,
        np.ravel(nodes_splits),
        nodes_featureids,
        (nodes_truenodeids, nodes_falsenodeids),
        (nodes_trueleafs, nodes_falseleafs),
        nodes_missing_value_tracks_true or (0,) * len(modes),
        np.asarray([], x.dtype) if membership_values is None else np.ravel(membership_values),
        weights.size,
    )
    n_nodes = len(modes) + weights.size
    at = np.arange(len(modes), n_nodes)
    table, given = leaf_table(n_nodes, n_targets or 1, at, leaf_targetids, weights)
    how = _named(_AGGREGATES, aggregate_function, "aggregate_function")
    scores, _ = aggregate(forest, x, table, given, np.asarray([], x.dtype), how)
    return transformed(scores, _named(_TRANSFORMS, post_transform, "post_transform"))
