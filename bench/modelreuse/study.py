"""Studies: images, partners and outputs of one zoo that several methods share, each computed once."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from bench.modelreuse.folder import Entry, Zoo
from bench.modelreuse.reactions import Reactor
from modeldiff_jax.evidence.access import ALL, check_access, restrict
from modeldiff_jax.probes.pgd import Direction

Orientation: TypeAlias = Literal["owner", "suspect", "both"]
Outputs: TypeAlias = dict[str, Float[np.ndarray, "n c"]]
EPS = 0.06
"""The authors' radius, in normalised units."""


class Study:
    """One zoo under evaluation.

    Args:
      zoo: the folder.
      n_pairs: probe pairs, or inputs, that a method may use for each owner.
      key: random key of seeds and attacks.
      reactor: the zoo's models; None to read them.
      access: access level of all models but the one that pairs are made on (`modeldiff_jax.evidence.access`); its
        outputs are restricted likewise before methods compare them.
      black_box: whether partners are made by queries, without gradients.
    """

    def __init__(
        self,
        zoo: Zoo,
        n_pairs: int = 100,
        key: int = 0,
        reactor: Reactor | None = None,
        access: str = ALL,
        black_box: bool = False,
    ) -> None:
        self.zoo, self.n_pairs, self.key, self.black_box = zoo, n_pairs, key, black_box
        self.access = check_access(access)
        self.queries: dict[str, int] = {}
        """Number of queries to each model to make partners, where these are made by queries."""
        self.reactor = reactor or Reactor({name: zoo.path(name) for name in zoo.entries})
        self._cache: dict[tuple[Any, ...], Any] = {}
        self._unrestricted: dict[tuple[Any, ...], Any] = {}

    def with_access(self, access: str) -> Study:
        """Returns the same models at another access level; pairs and unrestricted outputs are computed only once."""
        study = copy.copy(self)
        study.access, study._cache = check_access(access), {}
        return study

    @property
    def names(self) -> list[str]:
        """Names of all models."""
        return list(self.zoo.entries)

    def entry(self, name: str) -> Entry:
        """Returns a model's entry in the manifest."""
        return self.zoo.entries[name]

    def cached(self, compute: Callable[[], Any], *key: Any) -> Any:
        """Returns `compute()`, called once for each key."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def forget(self, *key: Any) -> None:
        """Removes a cached value."""
        self._cache.pop(key, None)

    def images(self, dataset: str, part: str) -> tuple[Float[np.ndarray, "n ..."], Int[np.ndarray, " n"]]:
        """Returns all images of a dataset's part, normalised, and their labels."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            x, y = self.zoo.images(dataset, part)
            return self.zoo.normalised(x), np.asarray(y)

        return self.cached(make, "images", dataset, part)

    def seeds(self, dataset: str, part: str = "train") -> Float[np.ndarray, "n ..."]:
        """Returns `n_pairs` images of a dataset, the same for every model."""
        x, _ = self.images(dataset, part)
        rng = np.random.default_rng([self.key, zlib.crc32(dataset.encode())])
        return x[rng.permutation(len(x))[: self.n_pairs]]

    def prober(self, name: str) -> str:
        """Returns the model that partners are made on: this one, or the parent of a quantised one, as in the paper."""
        entry = self.entry(name)
        return entry.parent if entry.kind == "quantize" and entry.parent else name

    def partners(
        self, name: str, *, direction: Direction = "away", eps: float = EPS, n_steps: int = 50, dataset: str = ""
    ) -> Float[np.ndarray, "n ..."]:
        """Returns adversarial partners of a model's seeds, made on it."""
        prober, dataset = self.prober(name), dataset or self.entry(name).dataset

        def make() -> np.ndarray:
            seeds = self.seeds(dataset)
            if self.black_box:
                partners, n_queries = self.reactor.search(prober, seeds, self.key)
                self.queries[prober] = self.queries.get(prober, 0) + n_queries
                return partners
            return self.reactor.attack(prober, seeds, eps=eps, n_steps=n_steps, direction=direction, key=self.key)

        key = (prober, dataset, direction, eps, n_steps)
        if key not in self._unrestricted:
            self._unrestricted[key] = make()
        return self._unrestricted[key]

    def outputs(self, x: Float[np.ndarray, "n ..."], names: Iterable[str], *key: Any) -> Outputs:
        """Returns the outputs that models expose, cached under a key: logits, or probabilities (`access`)."""
        names = list(names)
        unrestricted: Outputs = self._unrestricted.setdefault(("outputs", *key), {})
        missing = [name for name in names if name not in unrestricted]
        if missing:
            unrestricted |= self.reactor.logits(missing, x)
        if self.access == ALL:
            return unrestricted
        exposed: Outputs = self.cached(dict, "outputs", *key)
        exposed |= {name: restrict(unrestricted[name], self.access) for name in names if name not in exposed}
        return exposed

    def on_pairs(self, prober: str, names: Iterable[str], **attack: Any) -> tuple[Outputs, Outputs]:
        """Returns the models' outputs for a prober's seeds and for their partners."""
        dataset = attack.get("dataset") or self.entry(prober).dataset
        made_on = self.prober(prober)
        seeds = self.outputs(self.seeds(dataset), names, "seeds", dataset)
        settings = sorted({"direction": "away", **attack}.items())  # a default that is passed gives the same attack
        partners = self.outputs(self.partners(prober, **attack), names, "partners", made_on, dataset, *settings)
        return seeds, partners

    def both_ways(
        self,
        owners: Sequence[str],
        suspects: Sequence[str],
        orientation: Orientation,
        score: Callable[[str, str, str], float],
    ) -> Float[np.ndarray, "o s"]:
        """Returns `score(prober, owner, suspect)` of each owner and suspect; the mean of both probers for `both`."""
        table = np.empty((len(owners), len(suspects)))
        for i, owner in enumerate(owners):
            for j, suspect in enumerate(suspects):
                probers = {"owner": [owner], "suspect": [suspect], "both": [owner, suspect]}[orientation]
                table[i, j] = np.mean([score(prober, owner, suspect) for prober in probers])
        return table
