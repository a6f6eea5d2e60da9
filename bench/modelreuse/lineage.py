"""Scores inferred descent: how often a model gets its true parent, and how well the stated support is calibrated.

The true parent is the nearest ancestor among the models given, or none. There are three kinds of sets: `random`, drawn
from the whole zoo, where most models have no relatives; `families`, drawn with all their ancestors; and the `whole`
zoo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from bench.modelreuse.folder import Zoo
from bench.modelreuse.study import Study
from modeldiff_jax.evidence.arborescence import edge_probabilities
from modeldiff_jax.evidence.descent import Descent, ReactionsOfModels, edge_features, infer_descent
from modeldiff_jax.kernels import paired_distances

SETS = ("random", "families", "whole")
_BINS = (0.0, 0.5, 0.7, 0.9, 1.01)
_RIDGE = 1e-3


def truth(zoo: Zoo, names: Sequence[str]) -> Int[np.ndarray, " m"]:
    """Returns the index of each model's nearest ancestor among the names, -1 for none."""
    number = {name: i for i, name in enumerate(names)}
    parents = []
    for name in names:
        parent = zoo.entries[name].parent
        while parent is not None and parent not in number:
            parent = zoo.entries[parent].parent
        parents.append(-1 if parent is None else number[parent])
    return np.array(parents)


def draw_names(zoo: Zoo, how: str, size: int, rng: np.random.Generator) -> list[str]:
    """Draws names of models for one kind of set, in random order; see the module."""
    names = list(zoo.entries)
    if how == "whole":
        return names
    size = min(size, len(names))
    if how == "random":
        return [names[i] for i in rng.permutation(len(names))[:size]]
    chosen: list[str] = []
    while len(chosen) < size:
        line, name = [], str(rng.choice(names))
        while True:
            line.append(name)
            parent = zoo.entries[name].parent
            if parent is None:
                break
            name = parent
        chosen += [name for name in reversed(line) if name not in chosen]
    return [chosen[i] for i in rng.permutation(size)]


def reactions_to_each_other(
    study: Study, names: Sequence[str]
) -> tuple[list[tuple[ReactionsOfModels, ReactionsOfModels]], list[Hashable]]:
    """Returns some models' reactions to each other's pairs, and their label spaces."""
    seeds_of: dict[str, list[np.ndarray]] = {}
    pairs: list[tuple[ReactionsOfModels, ReactionsOfModels]] = []
    for name in names:
        seeds, partners = study.on_pairs(study.prober(name), study.names)
        seed_reactions = seeds_of.setdefault(study.entry(name).dataset, [seeds[other] for other in names])
        pairs.append((seed_reactions, [partners[other] for other in names]))
    entries = [study.entry(name) for name in names]
    return pairs, [(entry.dataset, entry.classes) for entry in entries]


def by_ddv(study: Study, names: Sequence[str]) -> Descent:
    """Infers descent by the DDV alone: the spanning tree of greatest cosines, away from the most central model.

    Its support is 1 for all models and means nothing; its edges are the similarities.
    """
    m = len(names)
    table = np.empty((m, m))
    for i, name in enumerate(names):
        seeds, partners = study.on_pairs(study.prober(name), study.names)
        vectors = np.stack([np.asarray(paired_distances(seeds[other], partners[other])) for other in names])
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        table[i] = vectors @ vectors[i]
    similarity = (table + table.T) / 2
    tree = minimum_spanning_tree(2 - similarity)  # a weight of 0 would be no edge
    center = int(similarity.sum(axis=1).argmax())
    _, parents = breadth_first_order(tree, center, directed=False)
    return Descent(np.where(parents < 0, -1, parents), np.ones(m), similarity)


def ours(study: Study, names: Sequence[str]) -> Descent:
    """Infers descent as `modeldiff_jax.lineage` does."""
    return infer_descent(*reactions_to_each_other(study, names))


METHODS: dict[str, Callable[[Study, Sequence[str]], Descent]] = {"ours": ours, "ddv": by_ddv}


def lineage(study: Study, method: str, n_sets: int = 200, size: int = 10) -> dict[str, Any]:
    """Returns the scores of a method on all kinds of sets."""
    results: dict[str, Any] = {}
    for how in SETS:
        start, rng = time.perf_counter(), np.random.default_rng([study.key, len(how)])
        rows: list[dict[str, Any]] = []
        for _ in range(1 if how == "whole" else n_sets):
            names = draw_names(study.zoo, how, size, rng)
            rows += score_models(study.zoo, names, METHODS[method](study, names))
        results[how] = {**scores(rows), "seconds": time.perf_counter() - start}
        kinds = dict.fromkeys(row["kind"] for row in rows)
        results[how]["kinds"] = {kind: scores([row for row in rows if row["kind"] == kind]) for kind in kinds}
    return results


def score_models(zoo: Zoo, names: Sequence[str], inferred: Descent) -> list[dict[str, Any]]:
    """Returns one row for each model of a set, with its true parent compared with the inferred one."""
    true_parents = truth(zoo, names)
    rows = []
    for j, name in enumerate(names):
        parent, named = int(true_parents[j]), int(inferred.parents[j])
        sibling = named >= 0 and parent >= 0 and true_parents[named] == parent
        first = int(np.where(np.arange(len(names)) == j, -np.inf, inferred.edges[:, j]).argmax())
        rows.append(
            {
                "kind": zoo.entries[name].kind,
                "child": parent >= 0,
                "right": parent == named,
                "first": parent == first,
                "edge": parent >= 0 and (named == parent or inferred.parents[parent] == j),
                "sibling": sibling,
                "same_root": named >= 0 and zoo.entries[name].root == zoo.entries[names[named]].root,
                "named": named >= 0,
                "support": float(inferred.support[j]),
            }
        )
    return rows


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns shares of models with right parents, and how well support predicts them; None where no model counts.

    Returns:
      right: share of models with the right parent, or rightly none; `all_roots`: that share if none had a parent.
      parent, root: the share among models that have a parent in the set, and among those that have none.
      first: among models with a parent in the set, the share whose likeliest parent it is, "none" not being allowed.
      family: among the parents named, the share that have the model's root.
      direction: among true edges found in either direction, the share in the right direction.
      not_sibling: among models whose parent or a sibling is named, the share whose parent is.
      brier: mean square of support minus right (Brier 1950); `brier_constant`: the least value that a constant support
        could have.
      bins: for each range of support the number of models, their mean support and the share that are right.
    """

    def share(column: str, rows: Iterable[dict[str, Any]]) -> float | None:
        values = [row[column] for row in rows]
        return float(np.mean(values)) if values else None

    children = [row for row in rows if row["child"]]
    right, support = (np.array([row[column] for row in rows], float) for column in ("right", "support"))
    bins = []
    for low, high in pairwise(_BINS):
        inside = [row for row in rows if low <= row["support"] < high]
        bins.append(
            {"from": low, "models": len(inside), "support": share("support", inside), "right": share("right", inside)}
        )
    return {
        "models": len(rows),
        "right": share("right", rows),
        "all_roots": 1 - len(children) / len(rows),
        "parent": share("right", children),
        "first": share("first", children),
        "root": share("right", [row for row in rows if not row["child"]]),
        "family": share("same_root", [row for row in rows if row["named"]]),
        "direction": share("right", [row for row in children if row["edge"]]),
        "not_sibling": share("right", [row for row in children if row["right"] or row["sibling"]]),
        "support": float(support.mean()),
        "brier": float(np.mean((support - right) ** 2)),
        "brier_constant": float(right.var()),
        "bins": bins,
    }


def fitted(study: Study, n_sets: int = 200) -> dict[str, float]:
    """Fits weights of edge features by maximum likelihood of the zoo's true forests, with a small ridge.

    The sets are random ones and families of 10, random ones of 30, and the whole zoo; each kind has the same weight.
    """
    rng = np.random.default_rng([study.key, 1])
    plan = (("random", 10, n_sets), ("families", 10, n_sets), ("random", 30, max(1, n_sets // 5)), ("whole", 0, 1))
    examples: list[tuple[np.ndarray, np.ndarray, float]] = []
    names: list[str] = []
    for how, size, count in plan:
        for _ in range(count):
            chosen = draw_names(study.zoo, how, size, rng)
            features = edge_features(*reactions_to_each_other(study, chosen))
            names = list(features)
            examples.append((np.stack(list(features.values()), -1), truth(study.zoo, chosen), 1 / count / len(plan)))
    size = np.sqrt(np.mean(np.concatenate([x.reshape(-1, x.shape[-1]) ** 2 for x, _, _ in examples]), axis=0)) + 1e-9
    ridge = np.array([0.0 if name == "constant" else _RIDGE for name in names])

    def loss(scaled: Float[np.ndarray, " f"]) -> tuple[float, Float[np.ndarray, " f"]]:
        value, gradient = float(ridge @ scaled**2), 2 * ridge * scaled
        for x, true_parents, weight in examples:
            odds = x @ (scaled / size)
            edges, total = _expected(odds)
            children = np.flatnonzero(true_parents >= 0)
            value += weight * (total - odds[true_parents[children], children].sum()) / len(true_parents)
            edges[true_parents[children], children] -= 1
            gradient = gradient + weight * np.tensordot(edges, x, 2) / size / len(true_parents)
        return value, gradient

    best = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return {name: float(f"{value:.4g}") for name, value in zip(names, best.x / size, strict=True)}


def _expected(odds: Float[np.ndarray, "m m"]) -> tuple[Float[np.ndarray, "m m"], float]:
    """Returns the probability of each edge, and the logarithm of the sum over all forests."""
    diagonal = np.eye(len(odds), dtype=bool)
    edges, _ = edge_probabilities(odds, np.zeros(len(odds)))
    top = np.maximum(np.where(diagonal, 0, odds).max(axis=0), 0)
    weights = np.where(diagonal, 0, np.exp(np.minimum(odds - top, 0)))
    laplacian = np.diag(weights.sum(axis=0) + np.exp(-top)) - weights
    return edges, float(np.linalg.slogdet(laplacian)[1] + top.sum())


def table(result: dict[str, Any]) -> str:
    """Returns the result as text."""
    columns = (
        "right",
        "all_roots",
        "parent",
        "first",
        "root",
        "family",
        "direction",
        "not_sibling",
        "support",
        "brier",
    )
    lines = [f"{'set':21} {'models':>6} " + " ".join(f"{column:>11}" for column in columns)]

    def cell(value: float | None) -> str:
        return " " * 11 if value is None else f"{value:11.3f}"

    for how in SETS:
        for name, row in {how: result[how], **{f"  {k}": row for k, row in result[how]["kinds"].items()}}.items():
            lines.append(f"{name:21} {row['models']:6} " + " ".join(cell(row[column]) for column in columns))
    lines.append(f"{'support':21} {'models':>6} {'support':>11} {'right':>11}")
    for how in SETS:
        for each in result[how]["bins"]:
            name = f"{how}, {each['from']} and above"
            lines.append(f"{name:21} {each['models']:6} {cell(each['support'])} {cell(each['right'])}")
    return "\n".join(lines)
