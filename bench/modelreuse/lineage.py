"""Scores trees of descent: how often a model gets its true parent, and how well the stated support is calibrated.

True is the nearest ancestor among the models given, or none. Three kinds of sets: `random`, drawn from the whole
zoo, where most models have no relatives; `families`, drawn with all their ancestors; and the `whole` zoo.
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
    found = []
    for name in names:
        parent = zoo.entries[name].parent
        while parent is not None and parent not in number:
            parent = zoo.entries[parent].parent
        found.append(-1 if parent is None else number[parent])
    return np.array(found)


def drawn(zoo: Zoo, how: str, size: int, rng: np.random.Generator) -> list[str]:
    """Names of some models, in random order; see the module."""
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


def answered(
    study: Study, names: Sequence[str]
) -> tuple[list[tuple[ReactionsOfModels, ReactionsOfModels]], list[Hashable]]:
    """Returns some models' reactions to each other's pairs, and their tasks."""
    seeds_of: dict[str, list[np.ndarray]] = {}
    pairs: list[tuple[ReactionsOfModels, ReactionsOfModels]] = []
    for name in names:
        seeds, partners = study.on_pairs(study.prober(name), study.names)
        own = seeds_of.setdefault(study.entry(name).dataset, [seeds[other] for other in names])
        pairs.append((own, [partners[other] for other in names]))
    entries = [study.entry(name) for name in names]
    return pairs, [(entry.dataset, entry.classes) for entry in entries]


def by_ddv(study: Study, names: Sequence[str]) -> Kinship:
    """The DDV alone: the spanning tree of the greatest cosine similarities, from the most central model down.

    Its support says nothing, it is 1 throughout; its edges are the similarities.
    """
    m = len(names)
    table = np.empty((m, m))
    for i, name in enumerate(names):
        seeds, partners = study.on_pairs(study.prober(name), study.names)
        vectors = np.stack([np.asarray(paired_distances(seeds[other], partners[other])) for other in names])
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        table[i] = vectors @ vectors[i]
    near = (table + table.T) / 2
    tree = minimum_spanning_tree(2 - near)  # no weight may be 0: that would be no edge
    center = int(near.sum(axis=1).argmax())
    _, parents = breadth_first_order(tree, center, directed=False)
    return Descent(np.where(parents < 0, -1, parents), np.ones(m), near)


def ours(study: Study, names: Sequence[str]) -> Kinship:
    """The shipped method."""
    return infer_descent(*reactions_to_each_other(study, names))


METHODS: dict[str, Callable[[Study, Sequence[str]], Descent]] = {"ours": ours, "ddv": by_ddv}


def lineage(study: Study, method: str, n_sets: int = 200, size: int = 10) -> dict[str, Any]:
    """Scores of a method on all kinds of sets."""
    found: dict[str, Any] = {}
    for how in SETS:
        start, rng = time.perf_counter(), np.random.default_rng([study.key, len(how)])
        rows: list[dict[str, Any]] = []
        for _ in range(1 if how == "whole" else n_sets):
            names = drawn(study.zoo, how, size, rng)
            rows += judged(study.zoo, names, METHODS[method](study, names))
        found[how] = {**scores(rows), "seconds": time.perf_counter() - start}
        kinds = dict.fromkeys(row["kind"] for row in rows)
        found[how]["kinds"] = {kind: scores([row for row in rows if row["kind"] == kind]) for kind in kinds}
    return found


def judged(zoo: Zoo, names: Sequence[str], told: Descent) -> list[dict[str, Any]]:
    """One row for each model of a set."""
    real = truth(zoo, names)
    rows = []
    for j, name in enumerate(names):
        parent, said = int(real[j]), int(told.parents[j])
        sibling = said >= 0 and parent >= 0 and real[said] == parent
        first = int(np.where(np.arange(len(names)) == j, -np.inf, told.edges[:, j]).argmax())
        rows.append(
            {
                "kind": zoo.entries[name].kind,
                "child": parent >= 0,
                "right": parent == said,
                "first": parent == first,
                "edge": parent >= 0 and (said == parent or told.parents[parent] == j),
                "sibling": sibling,
                "same_root": said >= 0 and zoo.entries[name].root == zoo.entries[names[said]].root,
                "said": said >= 0,
                "support": float(told.support[j]),
            }
        )
    return rows


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of models, and what the stated support is worth; None where there are none to count.

    Returns:
      right: of all models, that are given their true parent or rightly none; `nobody` is what giving all of them none
        would reach.
      parent, root: the same of models that have a parent here, and that have none.
      first: of models that have a parent here, whose likeliest parent it is, "none" not being allowed.
      family: of the parents given, that have the model's root.
      direction: of true edges found either way round, that stand the right way.
      not_sibling: of models given their parent or a sibling, that are given the parent.
      brier: mean square of support less right (Brier 1950); `brier_constant` is what a support that is the same for
        all models would reach at best.
      bins: of models with support in a range, how many, mean support, share right.
    """

    def share(what: str, among: Iterable[dict[str, Any]]) -> float | None:
        counted = [row[what] for row in among]
        return float(np.mean(counted)) if counted else None

    children = [row for row in rows if row["child"]]
    right, support = (np.array([row[what] for row in rows], float) for what in ("right", "support"))
    bins = []
    for low, high in pairwise(_BINS):
        inside = [row for row in rows if low <= row["support"] < high]
        bins.append(
            {"from": low, "models": len(inside), "support": share("support", inside), "right": share("right", inside)}
        )
    return {
        "models": len(rows),
        "right": share("right", rows),
        "nobody": 1 - len(children) / len(rows),
        "parent": share("right", children),
        "first": share("first", children),
        "root": share("right", [row for row in rows if not row["child"]]),
        "family": share("same_root", [row for row in rows if row["said"]]),
        "direction": share("right", [row for row in children if row["edge"]]),
        "not_sibling": share("right", [row for row in children if row["right"] or row["sibling"]]),
        "support": float(support.mean()),
        "brier": float(np.mean((support - right) ** 2)),
        "brier_constant": float(right.var()),
        "bins": bins,
    }


def fitted(study: Study, n_sets: int = 200) -> dict[str, float]:
    """Weights of edge_features under which the zoo's true forests are likeliest, with a small ridge.

    On random sets and families of 10, on random sets of 30, and on the whole zoo, each kind counting the same.
    """
    rng = np.random.default_rng([study.key, 1])
    plan = (("random", 10, n_sets), ("families", 10, n_sets), ("random", 30, max(1, n_sets // 5)), ("whole", 0, 1))
    examples: list[tuple[np.ndarray, np.ndarray, float]] = []
    names: list[str] = []
    for how, size, count in plan:
        for _ in range(count):
            chosen = drawn(study.zoo, how, size, rng)
            found = edge_features(*reactions_to_each_other(study, chosen))
            names = list(found)
            examples.append((np.stack(list(found.values()), -1), truth(study.zoo, chosen), 1 / count / len(plan)))
    size = np.sqrt(np.mean(np.concatenate([x.reshape(-1, x.shape[-1]) ** 2 for x, _, _ in examples]), axis=0)) + 1e-9
    ridge = np.array([0.0 if name == "constant" else _RIDGE for name in names])

    def loss(scaled: Float[np.ndarray, " f"]) -> tuple[float, Float[np.ndarray, " f"]]:
        value, slope = float(ridge @ scaled**2), 2 * ridge * scaled
        for x, real, weight in examples:
            odds = x @ (scaled / size)
            edges, total = _expected(odds)
            children = np.flatnonzero(real >= 0)
            value += weight * (total - odds[real[children], children].sum()) / len(real)
            edges[real[children], children] -= 1
            slope = slope + weight * np.tensordot(edges, x, 2) / size / len(real)
        return value, slope

    best = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return {name: float(f"{value:.4g}") for name, value in zip(names, best.x / size, strict=True)}


def _expected(odds: Float[np.ndarray, "m m"]) -> tuple[Float[np.ndarray, "m m"], float]:
    """How likely each edge is, and the logarithm of the sum over all forests."""
    own = np.eye(len(odds), dtype=bool)
    edges, _ = edge_probabilities(odds, np.zeros(len(odds)))
    top = np.maximum(np.where(own, 0, odds).max(axis=0), 0)
    weights = np.where(own, 0, np.exp(np.minimum(odds - top, 0)))
    laplacian = np.diag(weights.sum(axis=0) + np.exp(-top)) - weights
    return edges, float(np.linalg.slogdet(laplacian)[1] + top.sum())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    columns = ("right", "nobody", "parent", "first", "root", "family", "direction", "not_sibling", "support", "brier")
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
