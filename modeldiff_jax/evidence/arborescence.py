"""Spanning arborescences over models: the one of greatest weight, and the probability of each edge.

A directed forest over M models is a tree over M + 1 nodes whose root, node 0, means "descends from none of these".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def maximum_forest(edges: Float[np.ndarray, "m m"], roots: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Returns the directed forest of greatest total weight (Chu and Liu 1965; Edmonds 1967).

    Args:
      edges: [i, j] is the weight of i as the parent of j; the diagonal is ignored.
      roots: the weight of each model having no parent. Finite, as are all weights.
    Returns:
      The parent of each model, -1 for none.
    """
    m = len(edges)
    weights = np.full((m + 1, m + 1), -np.inf)
    weights[1:, 1:] = np.where(np.eye(m, dtype=bool), -np.inf, edges)
    weights[0, 1:] = roots
    return _arborescence(weights)[1:] - 1


def edge_probabilities(
    edges: Float[np.ndarray, "m m"], roots: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "m m"], Float[np.ndarray, " m"]]:
    """Returns the probability of each edge and root, where a forest's probability is the exponential of its weight.

    All forests are summed by a determinant (Tutte's matrix-tree theorem; Koo et al., EMNLP 2007).

    Args:
      edges, roots: as in `maximum_forest`; here they are log-odds.
    Returns:
      (M, M), at [i, j] that i is the parent of j, and (M,), at [j] that j has none. For each j they add up to 1.
    """
    m = len(edges)
    top = np.maximum(np.max(np.where(np.eye(m, dtype=bool), -np.inf, edges), axis=0, initial=-np.inf), roots)
    edge_odds, root_odds = np.where(np.eye(m, dtype=bool), 0, np.exp(np.minimum(edges - top, 0))), np.exp(roots - top)
    laplacian = np.diag(edge_odds.sum(axis=0) + root_odds) - edge_odds
    inverse = np.linalg.inv(laplacian)
    edge_probability = edge_odds * (np.diag(inverse)[None] - inverse.T)
    root_probability = root_odds * np.diag(inverse)
    return np.clip(edge_probability, 0, 1), np.clip(root_probability, 0, 1)


def _arborescence(weights: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """Returns the parents in the arborescence of greatest weight below node 0; -1 for node 0 itself."""
    n = len(weights)
    weights = weights.copy()
    weights[:, 0] = -np.inf
    parents = weights.argmax(axis=0)
    parents[0] = -1
    cycle = _cycle(parents)
    if not cycle.size:
        return parents
    # the cycle is contracted to one node; an edge into it also removes the edge it replaces
    rest = np.setdiff1d(np.arange(n), cycle)
    incoming = weights[np.ix_(rest, cycle)] - weights[parents[cycle], cycle]
    outgoing = weights[np.ix_(cycle, rest)]
    smaller = np.full((len(rest) + 1,) * 2, -np.inf)
    smaller[:-1, :-1] = weights[np.ix_(rest, rest)]
    smaller[:-1, -1], smaller[-1, :-1] = incoming.max(axis=1), outgoing.max(axis=0)
    contracted = _arborescence(smaller)
    above = contracted[:-1]
    parents[rest] = np.where(above == len(rest), cycle[outgoing.argmax(axis=0)], rest[np.minimum(above, len(rest) - 1)])
    parents[0] = -1
    parents[cycle[incoming[contracted[-1]].argmax()]] = rest[contracted[-1]]
    return parents


def _cycle(parents: Int[np.ndarray, " n"]) -> Int[np.ndarray, " c"]:
    """Returns the nodes of one cycle, or none."""
    visited_from = np.zeros(len(parents), int)
    for start in range(1, len(parents)):
        node = start
        while node > 0 and not visited_from[node]:
            visited_from[node] = start
            node = parents[node]
        if node > 0 and visited_from[node] == start:
            cycle = [node]
            while parents[cycle[-1]] != node:
                cycle.append(int(parents[cycle[-1]]))
            return np.array(cycle)
    return np.array([], int)
