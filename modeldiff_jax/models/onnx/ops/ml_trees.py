"""Tree ensembles of opsets 1 to 3 of `ai.onnx.ml`: all examples descend all trees together, one level at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.values import Value, astype
from modeldiff_jax.models.onnx.ops.ml import ML, features, labelled, transformed
from modeldiff_jax.models.onnx.registration import op

_LEAF = "LEAF"
_COMPARE = {
    "BRANCH_LEQ": jnp.less_equal,
    "BRANCH_LT": jnp.less,
    "BRANCH_GTE": jnp.greater_equal,
    "BRANCH_GT": jnp.greater,
    "BRANCH_EQ": jnp.equal,
    "BRANCH_NEQ": jnp.not_equal,
}
_MODES = tuple(_COMPARE)
MEMBER = len(_MODES)
"""The mode of a node that tests whether a value is in a set; nodes of lower modes compare it with one number."""


@dataclass(frozen=True, slots=True)
class Forest:
    """All nodes of all trees. A leaf has the mode -1, and is its own child on both sides."""

    roots: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    mode: np.ndarray
    missing: np.ndarray
    if_true: np.ndarray
    if_false: np.ndarray
    depth: int
    set_of: np.ndarray | None = None
    """The row of `members` that a node of mode MEMBER tests; any row for other nodes."""
    members: np.ndarray | None = None
    """Sets of values, as rows padded with NaN."""

    def leaves(self, x: Value) -> Value:
        """Returns the leaf that each example reaches in each tree, (examples, trees)."""
        feature, value, missing, mode, if_true, if_false = map(
            jnp.asarray, (self.feature, self.value, self.missing, self.mode, self.if_true, self.if_false)
        )
        modes = sorted(set(self.mode.tolist()) - {-1, MEMBER})

        def descend(_: Any, node: Value) -> Value:
            tested = jnp.take_along_axis(x, feature[node], 1)
            holds = missing[node] & jnp.isnan(tested)
            for number in modes:
                holds = holds | ((mode[node] == number) & _COMPARE[_MODES[number]](tested, value[node]))
            if self.members is not None:
                sets = jnp.asarray(self.members)[jnp.asarray(self.set_of)[node]]
                holds = holds | ((mode[node] == MEMBER) & (tested[..., None] == sets).any(-1))
            return jnp.where(holds, if_true[node], if_false[node])

        start = jnp.broadcast_to(jnp.asarray(self.roots), (x.shape[0], self.roots.size))
        return jax.lax.fori_loop(0, self.depth, descend, start)


def _no_tree(got: str) -> InvalidModelError:
    return InvalidModelError("Each node of a tree is reached from its root by one path", got=got)


def depth_of(roots: np.ndarray, if_true: np.ndarray, if_false: np.ndarray, leaf: np.ndarray) -> int:
    """Returns the number of levels of inner nodes.

    Raises:
      InvalidModelError: a node has two parents, is part of a cycle, or cannot be reached from a root.
    """
    visited = leaf.copy()
    level, depth = roots[~leaf[roots]], 0
    while level.size:
        if np.unique(level).size != level.size or visited[level].any():
            raise _no_tree("a node with two parents, or a cycle")
        visited[level] = True
        children = np.concatenate([if_true[level], if_false[level]])
        level, depth = children[~leaf[children]], depth + 1
    if not visited.all():
        raise _no_tree(f"{np.count_nonzero(~visited)} nodes that no root leads to")
    return depth


def same_length(**arrays: Any) -> None:
    """Raises `InvalidModelError` unless all arrays have one length."""
    sizes = {name: len(values) for name, values in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise InvalidModelError("The lists of a tree ensemble belong to the same nodes", got=f"{sizes}")


def within(values: np.ndarray, n: int, noun: str) -> np.ndarray:
    """Returns the values; raises `InvalidModelError` unless all lie from 0 to n - 1."""
    if values.size and (values.min() < 0 or values.max() >= n):
        raise InvalidModelError(f"A {noun} lies within 0 and {n - 1}", got=f"{values.min()} to {values.max()}")
    return values


def _codes(modes: Sequence[str]) -> np.ndarray:
    unknown = sorted(set(modes) - {*_MODES, _LEAF})
    if unknown:
        raise InvalidModelError(f"A node is one of {', '.join((*_MODES, _LEAF))}", got=", ".join(unknown[:5]))
    return np.array([-1 if mode == _LEAF else _MODES.index(mode) for mode in modes], np.int32)


def _positions(keys: Sequence[tuple[int, int]], wanted: Any, noun: str) -> np.ndarray:
    """Returns the indices of `wanted` keys in `keys`; raises `InvalidModelError` if one is missing or repeated."""
    index_of = {key: i for i, key in enumerate(keys)}
    if len(index_of) != len(keys):
        raise _no_tree("two nodes of one number in a tree")
    indices = np.array([index_of.get(key, -1) for key in wanted], np.int32)
    return within(indices, len(keys), noun)


def _forest(
    n_features: int,
    trees: Sequence[int] | None,
    nodes: Sequence[int] | None,
    features: Sequence[int] | None,
    modes: Sequence[str] | None,
    values: Any,
    if_true: Sequence[int] | None,
    if_false: Sequence[int] | None,
    missing: Sequence[int] | None,
) -> tuple[Forest, list[tuple[int, int]]]:
    """Checks the nodes of opsets 1 to 3; returns them, and their (tree, node) numbers in order."""
    trees, nodes, modes = trees or (), nodes or (), modes or ()
    features, if_true, if_false = features or (), if_true or (), if_false or ()
    missing = missing or (0,) * len(nodes)
    values = np.asarray(() if values is None else values).ravel()
    same_length(
        trees=trees,
        nodes=nodes,
        modes=modes,
        features=features,
        values=values,
        true=if_true,
        false=if_false,
        missing=missing,
    )
    keys = list(zip(trees, nodes, strict=True))
    code = _codes(modes)
    indices = np.arange(len(keys), dtype=np.int32)
    leaf = code < 0

    def child(ids: Sequence[int]) -> np.ndarray:
        wanted = [keys[i] if leaf[i] else (trees[i], ids[i]) for i in range(len(keys))]
        return _positions(keys, wanted, "child's index among the nodes")

    left, right = child(if_true), child(if_false)
    parents = np.bincount(np.concatenate([left[~leaf], right[~leaf]]), minlength=len(keys))
    roots = indices[parents == 0]
    if len({trees[i] for i in roots}) != len(roots) or len(roots) != len(set(trees)):
        raise _no_tree(f"{len(roots)} roots for {len(set(trees))} trees")
    feature = np.where(leaf, 0, np.asarray(features, np.int64))
    within(feature, n_features, "feature")
    forest = Forest(
        roots,
        feature.astype(np.int32),
        values,
        code,
        np.asarray(missing, bool),
        left,
        right,
        depth_of(roots, left, right, leaf),
    )
    return forest, keys


def leaf_table(
    n_nodes: int, n_targets: int, leaves: np.ndarray, targets: Sequence[int], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight of each node for each target, and whether the node has one, both (nodes, targets).

    Args:
      n_nodes, n_targets: numbers of nodes and targets.
      leaves, targets, weights: node, target and summand of each weight.
    """
    check_made((n_nodes, n_targets))
    entries = leaves, within(np.asarray(targets, np.int64), n_targets, "target")
    table, counts = np.zeros((n_nodes, n_targets), weights.dtype), np.zeros((n_nodes, n_targets), bool)
    np.add.at(table, entries, weights)
    counts[entries] = True
    return table, counts


def _leaf_table(
    keys: Sequence[tuple[int, int]],
    n_targets: int,
    trees: Sequence[int] | None,
    nodes: Sequence[int] | None,
    targets: Sequence[int] | None,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `leaf_table` of lists that identify each leaf by its tree and number, as in opsets 1 to 3."""
    trees, nodes, targets = trees or (), nodes or (), targets or ()
    same_length(trees=trees, nodes=nodes, targets=targets, weights=weights)
    leaves = _positions(keys, zip(trees, nodes, strict=True), "leaf's index among the nodes")
    return leaf_table(len(keys), n_targets, leaves, targets, weights)


def aggregate(
    forest: Forest, x: Value, table: np.ndarray, counts: np.ndarray, base: np.ndarray, function: str
) -> tuple[Value, Value]:
    """Returns the sum, mean, minimum or maximum of the trees' weights, and whether any tree has one.

    Args:
      forest: the trees.
      x: (examples, features).
      table, counts: as `leaf_table` returns them.
      base: summand for each target, for one, or none at all.
      function: SUM, AVERAGE, MIN or MAX.
    Returns:
      Two arrays (examples, targets). A score that no tree has a weight for is 0, whatever its base value.
    """
    leaves = forest.leaves(x)
    check_made((*leaves.shape, table.shape[1]))
    weights, counted = jnp.asarray(table)[leaves], jnp.asarray(counts)[leaves]
    match function:
        case "SUM":
            scores = weights.sum(1)
        case "AVERAGE":
            scores = weights.sum(1) / forest.roots.size
        case "MIN":
            scores = jnp.where(counted, weights, np.inf).min(1)
        case "MAX":
            scores = jnp.where(counted, weights, -np.inf).max(1)
        case _:
            raise InvalidModelError("Trees are aggregated by SUM, AVERAGE, MIN or MAX", got=function)
    scores, scored = astype(scores, x.dtype), counted.any(1)
    return jnp.where(scored, scores + base if base.size else scores, 0), scored


def _numbers(floats: Any, tensor: Any) -> np.ndarray:
    return np.asarray(tensor).ravel() if tensor is not None else np.asarray(floats or (), np.float32)


@op("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(
    x: Value,
    /,
    *,
    aggregate_function: str = "SUM",
    base_values: Sequence[float] | None = None,
    base_values_as_tensor: Any = None,
    n_targets: int | None = None,
    nodes_falsenodeids: Sequence[int] | None = None,
    nodes_featureids: Sequence[int] | None = None,
    nodes_hitrates: Sequence[float] | None = None,
    nodes_hitrates_as_tensor: Any = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] | None = None,
    nodes_nodeids: Sequence[int] | None = None,
    nodes_treeids: Sequence[int] | None = None,
    nodes_truenodeids: Sequence[int] | None = None,
    nodes_values: Sequence[float] | None = None,
    nodes_values_as_tensor: Any = None,
    post_transform: str = "NONE",
    target_ids: Sequence[int] | None = None,
    target_nodeids: Sequence[int] | None = None,
    target_treeids: Sequence[int] | None = None,
    target_weights: Sequence[float] | None = None,
    target_weights_as_tensor: Any = None,
) -> Value:
    """Returns, for each target, the aggregated weights of the leaves that an example reaches in all trees."""
    x = features(x)
    forest, keys = _forest(
        x.shape[-1],
        nodes_treeids,
        nodes_nodeids,
        nodes_featureids,
        nodes_modes,
        _numbers(nodes_values, nodes_values_as_tensor),
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
    )
    weight = _numbers(target_weights, target_weights_as_tensor)
    table, counts = _leaf_table(keys, n_targets or 1, target_treeids, target_nodeids, target_ids, weight)
    base = _numbers(base_values, base_values_as_tensor)
    scores, _ = aggregate(forest, x, table, counts, base, aggregate_function)
    return transformed(astype(scores, np.float32), post_transform)


@op("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(
    x: Value,
    /,
    *,
    base_values: Sequence[float] | None = None,
    base_values_as_tensor: Any = None,
    class_ids: Sequence[int] | None = None,
    class_nodeids: Sequence[int] | None = None,
    class_treeids: Sequence[int] | None = None,
    class_weights: Sequence[float] | None = None,
    class_weights_as_tensor: Any = None,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    nodes_falsenodeids: Sequence[int] | None = None,
    nodes_featureids: Sequence[int] | None = None,
    nodes_hitrates: Sequence[float] | None = None,
    nodes_hitrates_as_tensor: Any = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] | None = None,
    nodes_nodeids: Sequence[int] | None = None,
    nodes_treeids: Sequence[int] | None = None,
    nodes_truenodeids: Sequence[int] | None = None,
    nodes_values: Sequence[float] | None = None,
    nodes_values_as_tensor: Any = None,
    post_transform: str = "NONE",
) -> tuple[Value, Value]:
    """Returns the label of the largest score, and the scores of all classes."""
    x = features(x)
    forest, keys = _forest(
        x.shape[-1],
        nodes_treeids,
        nodes_nodeids,
        nodes_featureids,
        nodes_modes,
        _numbers(nodes_values, nodes_values_as_tensor),
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
    )
    weight = _numbers(class_weights, class_weights_as_tensor)
    n = len(classlabels_strings or classlabels_int64s or ())
    base = _numbers(base_values, base_values_as_tensor)
    binary = n == 2 and set(class_ids or ()) == {0}  # one score decides between two labels
    table, counts = _leaf_table(keys, 1 if binary else n, class_treeids, class_nodeids, class_ids, weight)
    scores, scored = aggregate(forest, x, table, counts, base[-1:] if binary else base, "SUM")
    scores = astype(scores, np.float32)
    if not binary:
        index = jnp.argmax(jnp.where(scored, scores, -jnp.inf), -1)
        return labelled(index, classlabels_strings, classlabels_int64s), transformed(scores, post_transform)
    score, positive = scores[:, 0], bool((weight >= 0).all())  # positive scores are probabilities
    index = astype(score > (0.5 if positive else 0), np.int32)
    if positive:
        pair = [1 - score, score]
    elif post_transform == "LOGISTIC":
        pair = [jax.nn.sigmoid(-score), jax.nn.sigmoid(score)]
    else:
        pair = [-score, score]
    return labelled(index, classlabels_strings, classlabels_int64s), jnp.stack(pair, -1)
