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


def _named(names: Sequence[str], number: int, attribute: str) -> str:
    if not 0 <= number < len(names):
        raise InvalidModelError(f"{attribute} is one of 0 to {len(names) - 1}", got=f"{number}")
    return names[number]


def _sets(mode: np.ndarray, values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns each node's row in the table of sets, and the table.

    Args:
      mode: of each node.
      values: the sets, in order of the nodes that use them, each followed by NaN.
    """
    uses_set = mode == MEMBER
    if not uses_set.any():
        return None, None
    ends = np.flatnonzero(np.isnan(values))
    if ends.size != np.count_nonzero(uses_set) or ends[-1] != values.size - 1:
        got = f"{ends.size} sets for {np.count_nonzero(uses_set)} nodes"
        raise InvalidModelError("Each node that tests membership has a set, which ends in NaN", got=got)
    lengths = np.diff(ends, prepend=-1)
    check_made((ends.size, int(lengths.max())))
    table = np.full((ends.size, lengths.max()), np.nan, values.dtype)
    rows = np.repeat(np.arange(ends.size), lengths)
    table[rows, np.arange(values.size) - np.repeat(ends - lengths + 1, lengths)] = values
    return np.where(uses_set, np.cumsum(uses_set) - 1, 0), table


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
    """Checks the inner nodes; returns them followed by the leaves."""
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
    leaf_indices = np.arange(n, n + n_leaves, dtype=np.int32)

    def child_indices(numbers: Sequence[int], are_leaves: Sequence[int]) -> np.ndarray:
        index, is_leaf = np.asarray(numbers, np.int64), np.asarray(are_leaves, bool)
        within(index[is_leaf], n_leaves, "leaf")
        within(index[~is_leaf], n, "node")
        return np.concatenate([np.where(is_leaf, index + n, index).astype(np.int32), leaf_indices])

    def with_leaves(values: Any, dtype: Any, fill: int) -> np.ndarray:
        return np.concatenate([np.asarray(values, dtype), np.full(n_leaves, fill, dtype)])

    mode = within(np.asarray(modes, np.int32), MEMBER + 1, "mode")
    if_true, if_false = child_indices(children[0], leaves[0]), child_indices(children[1], leaves[1])
    starts = within(np.asarray(roots, np.int32), n, "root")
    set_of, table = _sets(mode, members)
    return Forest(
        starts,
        with_leaves(within(np.asarray(features, np.int64), n_features, "feature"), np.int32, 0),
        with_leaves(splits, splits.dtype, 0),
        with_leaves(mode, np.int32, -1),
        with_leaves(missing, bool, 0),
        if_true,
        if_false,
        depth_of(starts, if_true, if_false, np.arange(n + n_leaves) >= n),
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
    leaves = np.arange(len(modes), n_nodes)
    table, counts = leaf_table(n_nodes, n_targets or 1, leaves, leaf_targetids, weights)
    function = _named(_AGGREGATES, aggregate_function, "aggregate_function")
    scores, _ = aggregate(forest, x, table, counts, np.asarray([], x.dtype), function)
    return transformed(scores, _named(_TRANSFORMS, post_transform, "post_transform"))
