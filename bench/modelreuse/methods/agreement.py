"""Methods that count equal labels: AKH on the owner's errors, IPGuard near the owner's decision boundary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from bench.modelreuse.study import Orientation, Study

_BISECTIONS = 12


def akh(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns agreement on inputs that the prober misclassifies (Godinot et al., "QuRD", AAAI 2025).

    Where there are too few errors, inputs with the smallest margins are added.
    """
    return _agreement(study, owners, suspects, orientation, "akh", lambda prober: misclassified(study, prober))


def ipguard(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns agreement on points near the prober's decision boundary (Cao et al., AsiaCCS 2021).

    The points are found by bisection between seeds of different labels, not by the paper's gradient descent: they are
    nearer to the boundary than its stopping rule requires.
    """
    return _agreement(study, owners, suspects, orientation, "ipguard", lambda prober: _boundary(study, prober))


def misclassified(study: Study, prober: str) -> Float[np.ndarray, "n ..."]:
    """Returns `n_pairs` images of the prober's dataset: misclassified ones first, then those of least margin."""
    dataset = study.entry(prober).dataset
    parts = [study.images(dataset, part) for part in ("train", "test")]
    x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
    logits = study.outputs(x, [prober], "all images", dataset)[prober]
    rows = np.arange(len(x))
    if logits.shape[1] <= y.max():
        return x[: study.n_pairs]
    of_label = logits[rows, y]
    others = logits.copy()
    others[rows, y] = -np.inf
    margin = of_label - others.max(axis=1)
    wrong = margin < 0
    # errors are taken in order, the others by margin
    order = np.argsort(np.where(wrong, -np.inf, margin), kind="stable")
    return x[order[: study.n_pairs]]


def _boundary(study: Study, prober: str) -> Float[np.ndarray, "n ..."]:
    seeds = study.seeds(study.entry(prober).dataset)

    def labels(x: np.ndarray) -> np.ndarray:
        return study.reactor.logits([prober], x)[prober].argmax(axis=1)

    y = labels(seeds)
    rng = np.random.default_rng(study.key)
    partner = np.array([rng.choice(np.flatnonzero(y != label)) if (y != label).any() else 0 for label in y])
    near, far = seeds.copy(), seeds[partner]
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        same = (labels(middle) == y).reshape(-1, *(1,) * (seeds.ndim - 1))
        near, far = np.where(same, middle, near), np.where(same, far, middle)
    return near


def _agreement(
    study: Study,
    owners: Sequence[str],
    suspects: Sequence[str],
    orientation: Orientation,
    method: str,
    inputs: Callable[[str], np.ndarray],
) -> np.ndarray:
    everyone = sorted({*owners, *suspects})

    def score(prober: str, owner: str, suspect: str) -> float:
        a, b = study.entry(owner), study.entry(suspect)
        if (a.classes, a.dataset) != (b.classes, b.dataset):
            return -np.inf
        made_on = study.prober(prober)
        x = study.cached(lambda: inputs(made_on), method, made_on)
        outputs = study.outputs(x, everyone, method, made_on)
        return float(np.mean(outputs[owner].argmax(1) == outputs[suspect].argmax(1)))

    return study.both_ways(owners, suspects, orientation, score)
