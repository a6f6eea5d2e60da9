"""Builds the zoo: trains every model, writes its ONNX file, then the manifest. Existing files are kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import modeldiff_jax as md
from bench.modelreuse import efficientnet, folder, recipes
from bench.modelreuse.data import CLASSES, MEAN, SOURCE, STD, TARGETS, Task, make_task
from bench.modelreuse.export import export
from bench.modelreuse.networks import ARCHITECTURES, fresh, units
from bench.modelreuse.operations import Variables
from bench.modelreuse.reactions import Reactor, accuracies
from bench.modelreuse.recipes import Recipe
from bench.modelreuse.training import Job, Lesson, train

_LESSONS: dict[str, Lesson] = {
    "distill": "distil",
    "steal": "soft",
    "steal_label": "hard",
    "steal_adversarial": "adversarial",
}
_TOGETHER = 8
"""Models that are trained together, and then saved."""


@dataclass(frozen=True)
class Size:
    """The size of a zoo.

    Attributes:
      datasets: datasets of the models, beside that of pre-training.
      images: number of training images, by dataset.
      tests: number of test images.
      kept: images of each part that are stored in the folder.
      steps: training steps, by kind of recipe.
      population: 0 for the paper's models, else the number of unrelated models of each architecture and dataset.
      track: whether roots are published networks (`efficientnet.py`) instead.
      rate: factor of all learning rates.
    """

    datasets: tuple[str, ...]
    images: dict[str, int]
    tests: int
    kept: int
    steps: dict[str, int]
    population: int = 0
    track: bool = False
    rate: float = 1.0


FULL = Size(
    TARGETS,
    {"objects": 20_000, "digits": 400, "pictures": 250},
    600,
    1000,
    {
        "pretrain": 5000,
        "train": 1000,
        "transfer": 600,
        "prune": 300,
        "distill": 800,
        "steal": 1000,
        "steal_label": 1000,
        "steal_adversarial": 1000,
        "chain": 600,
        "merge": 100,
    },
)
SMALL = Size(
    ("digits",),
    {"objects": 6000, "digits": 400},
    300,
    600,
    {
        "pretrain": 1200,
        "train": 500,
        "transfer": 300,
        "prune": 100,
        "distill": 300,
        "steal": 400,
        "steal_label": 400,
        "steal_adversarial": 400,
        "chain": 300,
        "merge": 50,
    },
)
POPULATION = Size(("digits",), {"digits": 400}, 300, 600, {"train": 200}, population=104)
TRACK = Size(
    TARGETS,
    {"imagenet": 600, "digits": 400, "pictures": 250},
    300,
    600,
    {"train": 600, "transfer": 400, "prune": 100, "steal": 400},
    track=True,
    rate=0.2,
)
SIZES = {"full": FULL, "small": SMALL, "population": POPULATION, "track": TRACK}


def build(where: Path, size: Size, seed: int = 0, beyond: bool = False, report: Any = None) -> folder.Zoo:
    """Builds a zoo, or its missing models.

    Args:
      where: the folder.
      size: size of the zoo.
      seed: random seed; another one gives another zoo by the same recipes, with other images.
      beyond: whether to build the models that the paper lacks as well.
      report: called with a line of progress.
    """
    start = time.perf_counter()

    def log(text: str) -> None:
        (report or _to_stderr)(f"[{time.perf_counter() - start:6.0f} s] {text}")

    for part in ("models", "variables"):
        (where / part).mkdir(parents=True, exist_ok=True)
    log("rendering the images")
    tasks = {name: make_task(name, n, size.tests, seed) for name, n in size.images.items()}
    if size.population:
        listed = recipes.population(size.population, ARCHITECTURES, size.datasets)
    elif size.track:
        listed = recipes.track(tuple(efficientnet.DEPTHS), size.datasets)
    else:
        listed = recipes.paper(ARCHITECTURES, size.datasets)
    listed += recipes.beyond(ARCHITECTURES, size.datasets) if beyond else []
    for level in _levels(listed):
        todo = [recipe for recipe in level if not (where / "variables" / f"{recipe.name}.npz").exists()]
        todo.sort(key=lambda r: (r.kind, r.arch, r.dataset))
        for first in range(0, len(todo), _TOGETHER):
            some = todo[first : first + _TOGETHER]
            for recipe, variables in zip(some, _make(some, where, tasks, size, seed), strict=True):
                _save(where / "variables" / f"{recipe.name}.npz", variables)
            log(f"{some[-1].kind}: {first + len(some)} of {len(todo)}, {some[-1].name}")
    log("writing ONNX files")
    for recipe in listed:
        if not (where / "models" / f"{recipe.name}.onnx").exists():
            _export(recipe, where, tasks)
    log("measuring accuracies")
    reactor = Reactor({recipe.name: where / "models" / f"{recipe.name}.onnx" for recipe in listed})
    sets = {name: (_native(task.test.x), task.test.y) for name, task in tasks.items()}
    labelled = [(recipe.name, recipe.dataset) for recipe in listed if recipe.dataset != "imagenet"]
    accuracy = accuracies(reactor, sets, labelled)
    images = {}
    for name, task in tasks.items():
        for part, split in (("train", task.train), ("test", task.test)):
            images[f"{name}_{part}_x"] = split.x[: size.kept].transpose(0, 3, 1, 2)
            images[f"{name}_{part}_y"] = split.y[: size.kept].astype(np.int32)
    entries = [_entry(recipe, accuracy.get(recipe.name)) for recipe in listed]
    folder.write(where, entries, images, {"seed": seed, "size": asdict(size)})
    log(f"done: {len(entries)} models in {where}")
    return folder.Zoo(where)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _levels(listed: Iterable[Recipe]) -> list[list[Recipe]]:
    """Returns recipes in groups, each of which depends on earlier groups alone."""
    depth: dict[str, int] = {}
    for recipe in listed:
        depth[recipe.name] = 1 + max((depth[needed] for needed in (recipe.parent, recipe.other) if needed), default=-1)
    return [[r for r in listed if depth[r.name] == level] for level in sorted(set(depth.values()))]


def _make(some: Sequence[Recipe], where: Path, tasks: dict[str, Task], size: Size, seed: int) -> list[Variables]:
    """Makes the variables of recipes whose parents exist. A quantised model has its parent's; its file differs."""
    variables = {r: efficientnet.imagenet(r.arch) for r in some if r.dataset == "imagenet"}
    trained = [recipe for recipe in some if recipe.kind != "quantize" and recipe not in variables]
    variables |= zip(trained, train([_job(r, where, tasks, size, seed) for r in trained]), strict=True)
    return [variables[recipe] if recipe in variables else _load(where, recipe.parent) for recipe in some]


def _job(recipe: Recipe, where: Path, tasks: dict[str, Task], size: Size, zoo_seed: int) -> Job:
    task, seed = tasks[recipe.dataset], recipe.seed(zoo_seed)
    kind = recipe.kind
    if kind == "independent":
        kind = "transfer" if recipe.parent else "pretrain" if recipe.dataset == SOURCE else "train"
    parent = _load(where, recipe.parent) if recipe.parent else None
    start = fresh(recipe.arch, task.classes, seed)
    keep = alive = teacher = None
    lesson: Lesson = "labels"
    rate = 1e-2
    if kind in ("transfer", "chain"):
        assert parent is not None
        start = _with_head_of(parent, start)
        keep, rate = _tuned(recipe, start), 5e-3
    elif kind == "prune":
        assert parent is not None
        start, alive, rate = parent, _alive(parent, recipe.amount), 2e-3
    elif kind == "merge":
        assert parent is not None
        average = jax.tree.map(lambda a, b: (a + b) / 2, parent, _load(where, recipe.other))
        start, rate = _with_head_of(average, parent), 5e-4
    elif parent is not None:  # trained on the parent's outputs, from random weights
        teacher = (_arch_of(recipe.parent), parent)
        lesson = _LESSONS[kind]
    return Job(
        recipe.arch,
        task.classes,
        start,
        task.train.x,
        task.train.y,
        size.steps[kind],
        seed,
        lesson,
        teacher,
        keep,
        alive,
        rate * size.rate,
    )


def _arch_of(name: str) -> str:
    """Returns the architecture of a model by its name: that of the last student in its chain, or of its root."""
    steps = [step for step in name.split("-") if step.startswith(("pretrain(", "train(", "steal"))]
    return steps[-1][steps[-1].index("(") + 1 :].split(",")[0].rstrip(")")


def _with_head_of(body: Variables, other: Variables) -> Variables:
    return {**body, "params": {**body["params"], "head": other["params"]["head"]}}


def _tuned(recipe: Recipe, variables: Variables) -> Any:
    """Returns 1 for the weights of the last `amount` of the layers, which include the head, and 0 for others."""
    names = units(recipe.arch)
    tuned = names[len(names) - max(1, round(recipe.amount * len(names))) :]

    def share(layer: str, leaf: Any) -> np.ndarray:
        return np.full(np.shape(leaf), float(layer.split("_")[0] in tuned), np.float32)

    return {
        layer: jax.tree.map(lambda leaf, layer=layer: share(layer, leaf), part)
        for layer, part in variables["params"].items()
    }


def _alive(variables: Variables, ratio: float) -> Any:
    """Returns 0 for the `ratio` of all filters' weights that are least in magnitude (global pruning), 1 for others."""
    filters = [part["kernel"] for layer, part in variables["params"].items() if layer != "head"]
    threshold = np.quantile(np.concatenate([np.abs(leaf).ravel() for leaf in filters]), ratio)
    alive = jax.tree.map(lambda leaf: np.ones(np.shape(leaf), np.float32), variables["params"])
    for layer, part in alive.items():
        if layer != "head":
            part["kernel"] = (np.abs(variables["params"][layer]["kernel"]) > threshold).astype(np.float32)
    return alive


def _export(recipe: Recipe, where: Path, tasks: dict[str, Task]) -> None:
    variables, classes = _load(where, recipe.name), CLASSES[recipe.dataset]
    path = where / "models" / f"{recipe.name}.onnx"
    if recipe.kind != "quantize":
        content = export(recipe.arch, classes, variables)
    elif "float16" in recipe.name:
        content = export(recipe.arch, classes, variables, "float16")
    else:
        watched = path.with_suffix(".watched.onnx")
        watched.write_bytes(export(recipe.arch, classes, variables, watch=True))
        model = md.load(watched)
        values = model(_native(tasks[recipe.dataset].train.x[:256]))
        names = [spec.name for spec in model.outputs]
        ranges = {name: (float(v.min()), float(v.max())) for name, v in zip(names, values, strict=True)}
        watched.unlink()
        content = export(recipe.arch, classes, variables, "int8", ranges)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def _native(x: np.ndarray) -> np.ndarray:
    return ((x.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def _entry(recipe: Recipe, accuracy: float | None) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "file": f"models/{recipe.name}.onnx",
        "arch": recipe.arch,
        "dataset": recipe.dataset,
        "root": recipe.root,
        "parent": recipe.parent or None,
        "kind": recipe.kind,
        "classes": CLASSES[recipe.dataset],
        "accuracy": None if accuracy is None else round(accuracy, 4),
        **({"other": recipe.other} if recipe.other else {}),
    }


def _save(path: Path, variables: Variables) -> None:
    part = path.with_suffix(".part.npz")
    np.savez(part, **{"/".join(key): np.asarray(leaf) for key, leaf in flatten_dict(variables).items()})
    part.replace(path)


def _load(where: Path, name: str) -> Variables:
    with np.load(where / "variables" / f"{name}.npz") as file:
        return unflatten_dict({tuple(key.split("/")): file[key] for key in file.files})
