"""Recipes of all models of a zoo: the paper's derivations, and kinds that it lacks.

Names are the paper's: a chain of steps, each with a dash behind it, as
`pretrain(resnet,objects)-transfer(digits,0.5)-prune(0.8)-`. A model's parent is its name without the last step.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from bench.modelreuse.data import SOURCE, TARGETS
from bench.modelreuse.networks import ARCHITECTURES

FRACTIONS, RATIOS, PRECISIONS = (0.1, 0.5, 1.0), (0.2, 0.5, 0.8), ("int8", "float16")


@dataclass(frozen=True)
class Recipe:
    """The recipe of one model.

    Attributes:
      name: as above; unique.
      kind: pretrain, train, transfer, quantize, prune, distill, steal (soft outputs); beyond the paper steal_label,
        steal_adversarial, chain (transfers of transfers), merge, independent (other roots, same recipe, other seed).
      arch, dataset: architecture and dataset of the model itself.
      parent: name of the model it is made from; "" for roots.
      amount: tuned fraction or pruned ratio; 0 for other kinds.
      other: name of the second model of a merge; "" for other kinds.
    """

    name: str
    kind: str
    arch: str
    dataset: str
    parent: str = ""
    amount: float = 0.0
    other: str = ""

    @property
    def root(self) -> str:
        """Name of the first ancestor."""
        return self.name[: self.name.index(")-") + 2]

    def seed(self, zoo: int) -> int:
        """Returns the random seed of the model."""
        return zlib.crc32(f"{zoo} {self.name}".encode())


def paper(architectures: tuple[str, ...] = ARCHITECTURES, datasets: tuple[str, ...] = TARGETS) -> list[Recipe]:
    """Returns recipes of ModelReuse: 138 models for two architectures and two datasets, parents before children."""
    roots = [Recipe(f"pretrain({arch},{SOURCE})-", "pretrain", arch, SOURCE) for arch in architectures]
    trained = [
        Recipe(f"train({arch},{dataset})-", "train", arch, dataset) for arch in architectures for dataset in datasets
    ]
    tuned = [transfer(root, dataset, f) for root in roots for dataset in datasets for f in FRACTIONS]
    derived = [child for parent in tuned for child in (*_quantised(parent), *_derived(parent, architectures))]
    return [*roots, *trained, *tuned, *derived, *(c for parent in trained for c in _derived(parent, architectures))]


def beyond(architectures: tuple[str, ...] = ARCHITECTURES, datasets: tuple[str, ...] = TARGETS) -> list[Recipe]:
    """Returns recipes of kinds that the paper lacks; they need the models of `paper`."""
    recipes: list[Recipe] = []
    for arch in architectures:
        twin = Recipe(f"pretrain({arch},{SOURCE},2)-", "independent", arch, SOURCE)
        twins = [transfer(twin, dataset, f, "independent") for dataset in datasets for f in (0.5, 1.0)]
        recipes += [twin, *twins]
        recipes += [Recipe(f"train({arch},{dataset},2)-", "independent", arch, dataset) for dataset in datasets]
        for dataset, other_dataset in zip(datasets, reversed(datasets), strict=True):
            owner = transfer(Recipe(f"pretrain({arch},{SOURCE})-", "pretrain", arch, SOURCE), dataset, 1.0)
            for student in architectures:
                for kind in ("steal_label", "steal_adversarial"):
                    recipes.append(Recipe(f"{owner.name}{kind}({student})-", kind, student, dataset, owner.name))
            second = transfer(owner, other_dataset, 1.0, "chain")
            third = transfer(second, dataset, 0.5, "chain")
            half = owner.name.replace("1.0", "0.5")
            merged = Recipe(f"{owner.name}merge(0.5)-", "merge", arch, dataset, owner.name, 0.5, half)
            recipes += [second, third, merged]
    return recipes


def track(architectures: tuple[str, ...], datasets: tuple[str, ...] = TARGETS) -> list[Recipe]:
    """Returns recipes of roots trained on ImageNet, their transfers and derivatives, and others from scratch."""
    roots = [Recipe(f"pretrain({arch},imagenet)-", "pretrain", arch, "imagenet") for arch in architectures]
    trained = [
        Recipe(f"train({arch},{dataset})-", "train", arch, dataset) for arch in architectures for dataset in datasets
    ]
    tuned = [transfer(root, dataset, f) for root in roots for dataset in datasets for f in FRACTIONS]
    children = []
    for parent in (recipe for recipe in tuned if recipe.amount == 1):
        other = next(arch for arch in architectures if arch != parent.arch)
        derived = [*_quantised(parent), *_derived(parent, (other,))]
        children += [child for child in derived if child.kind != "distill" and child.amount in (0, 0.5)]
    return [*roots, *trained, *tuned, *children]


def population(size: int, architectures: tuple[str, ...], datasets: tuple[str, ...]) -> list[Recipe]:
    """Returns recipes of unrelated models, `size` for each architecture and dataset, that differ in their seeds."""
    return [
        Recipe(f"train({arch},{dataset},{i})-", "train", arch, dataset)
        for i in range(size)
        for arch in architectures
        for dataset in datasets
    ]


def transfer(parent: Recipe, dataset: str, fraction: float, kind: str = "transfer") -> Recipe:
    """Returns a recipe with the parent's body under a new head, where the last `fraction` of the layers learn."""
    name = f"{parent.name}transfer({dataset},{fraction})-"
    return Recipe(name, kind, parent.arch, dataset, parent.name, fraction)


def _quantised(parent: Recipe) -> Iterator[Recipe]:
    for precision in PRECISIONS:
        name = f"{parent.name}quantize({precision})-"
        yield Recipe(name, "quantize", parent.arch, parent.dataset, parent.name)


def _derived(parent: Recipe, architectures: tuple[str, ...]) -> Iterator[Recipe]:
    for ratio in RATIOS:
        name = f"{parent.name}prune({ratio})-"
        yield Recipe(name, "prune", parent.arch, parent.dataset, parent.name, ratio)
    yield Recipe(f"{parent.name}distill()-", "distill", parent.arch, parent.dataset, parent.name)
    for student in architectures:
        yield Recipe(f"{parent.name}steal({student})-", "steal", student, parent.dataset, parent.name)
