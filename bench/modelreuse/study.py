"""Images, partners and outputs that several methods share, each computed once."""

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
Answers: TypeAlias = dict[str, Float[np.ndarray, "n c"]]
EPS = 0.06
"""The authors' radius, in normalised units."""


class Study:
    """One zoo under evaluation.

    Args:
      zoo: the folder.
      n_pairs: probe pairs, or inputs, that a method may use for each owner.
      key: of the choice of seeds and of attacks.
      reactor: the zoo's models, where they are read already.
      access: what all models but the one that pairs are made on tell (`modeldiff_jax.evidence.access`); the methods
        see that one through the same access.
      black_box: partners are found by asking the model, not by its gradients.
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
        """Inputs that each model was asked about to find partners, where that is by asking."""
        self.reactor = reactor or Reactor({name: zoo.path(name) for name in zoo.entries})
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._whole: dict[tuple[Any, ...], Any] = {}

    def through(self, access: str) -> Study:
        """Returns the same models under another access; pairs and whole outputs are computed once for both."""
        seen = copy.copy(self)
        seen.access, seen._kept = check_access(access), {}
        return seen

    @property
    def names(self) -> list[str]:
        """All models."""
        return list(self.zoo.entries)

    def entry(self, name: str) -> Entry:
        """A model's line in the manifest."""
        return self.zoo.entries[name]

    def kept(self, make: Callable[[], Any], *what: Any) -> Any:
        """Returns `make()`, called once for each `what`."""
        if what not in self._kept:
            self._kept[what] = make()
        return self._kept[what]

    def forget(self, *what: Any) -> None:
        """Lets go of what was kept."""
        self._kept.pop(what, None)

    def images(self, dataset: str, part: str) -> tuple[Float[np.ndarray, "n ..."], Int[np.ndarray, " n"]]:
        """All images of a dataset's part, normalised, and their labels."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            x, y = self.zoo.images(dataset, part)
            return self.zoo.normalised(x), np.asarray(y)

        return self.kept(make, "images", dataset, part)

    def seeds(self, dataset: str, part: str = "train") -> Float[np.ndarray, "n ..."]:
        """`n_pairs` images of a dataset, the same for every model."""
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
        """Adversarial partners of a model's seeds, made on it."""
        prober, dataset = self.prober(name), dataset or self.entry(name).dataset

        def make() -> np.ndarray:
            seeds = self.seeds(dataset)
            if self.black_box:
                partners, asked = self.reactor.search(prober, seeds, self.key)
                self.queries[prober] = self.queries.get(prober, 0) + asked
                return partners
            return self.reactor.attack(prober, seeds, eps=eps, n_steps=n_steps, direction=direction, key=self.key)

        what = (prober, dataset, direction, eps, n_steps)
        if what not in self._whole:
            self._whole[what] = make()
        return self._whole[what]

    def answers(self, x: Float[np.ndarray, "n ..."], names: Iterable[str], *what: Any) -> Answers:
        """Returns the outputs that models expose, kept under `what`: logits, or probabilities (`access`)."""
        names = list(names)
        whole: Answers = self._whole.setdefault(("answers", *what), {})
        missing = [name for name in names if name not in whole]
        if missing:
            whole |= self.reactor.logits(missing, x)
        if self.access == ALL:
            return whole
        seen: Answers = self.kept(dict, "answers", *what)
        seen |= {name: restrict(whole[name], self.access) for name in names if name not in seen}
        return seen

    def on_pairs(self, prober: str, names: Iterable[str], **attack: Any) -> tuple[Answers, Answers]:
        """Logits for a prober's seeds and for their partners."""
        dataset = attack.get("dataset") or self.entry(prober).dataset
        own = self.prober(prober)
        seeds = self.answers(self.seeds(dataset), names, "seeds", dataset)
        settings = sorted({"direction": "away", **attack}.items())  # a default that is spelled out is no other attack
        partners = self.answers(self.partners(prober, **attack), names, "partners", own, dataset, *settings)
        return seeds, partners

    def both_ways(
        self,
        owners: Sequence[str],
        suspects: Sequence[str],
        orientation: Orientation,
        score: Callable[[str, str, str], float],
    ) -> Float[np.ndarray, "o s"]:
        """`score(prober, owner, suspect)` for all pairs, with the prober the orientation asks for; the mean of both."""
        table = np.empty((len(owners), len(suspects)))
        for i, owner in enumerate(owners):
            for j, suspect in enumerate(suspects):
                probers = {"owner": [owner], "suspect": [suspect], "both": [owner, suspect]}[orientation]
                table[i, j] = np.mean([score(prober, owner, suspect) for prober in probers])
        return table
