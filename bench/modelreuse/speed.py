"""How fast is the evaluation compared with the authors' notebook in PyTorch, on the same models, targets and machine?

    python -m bench.modelreuse.speed FOLDER [--targets 3] [--rounds 3] [--write]

For every target the notebook makes 100 pairs on it (on the parent of one in 8 bits), then compares it with its parent
and with every model of another root; each comparison runs both models on both sides of the pairs. Its work grows with
the targets, so a few suffice. `notebook` is that procedure. `once` is PyTorch without its repetition: every model
runs once on a target's pairs. `ours` is `--method modeldiff --orientation suspect` for the same comparisons; models'
outputs on a task's seeds are kept for all its targets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from bench import measure
from bench.modelreuse.folder import Entry, Zoo
from bench.modelreuse.methods import METHODS
from bench.modelreuse.protocols import targets
from bench.modelreuse.study import EPS, Study

PAIRS, STEPS = 100, 50


class Network(torch.nn.Module):
    """One of the zoo's ONNX files, run node by node as PyTorch runs a model's layers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        model = onnx.load(path)
        self.nodes = [
            (
                node.op_type,
                list(node.input),
                node.output[0],
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in model.graph.node
        ]
        self.constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        self.constants |= {  # filters in 8 bits are read back once
            output: self._node(kind, [self.constants[name] for name in inputs], attributes)
            for kind, inputs, output, attributes in self.nodes
            if all(name in self.constants for name in inputs)
        }
        self.nodes = [node for node in self.nodes if node[2] not in self.constants]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {**self.constants, "image": x}
        for kind, inputs, output, attributes in self.nodes:
            values[output] = self._node(kind, [values[name] for name in inputs], attributes)
        return values["logits"]

    @staticmethod
    def _node(kind: str, x: list[torch.Tensor], attributes: dict[str, Any]) -> torch.Tensor:
        match kind:
            case "Conv":
                stride, pad = attributes["strides"], attributes["pads"][:2]
                return torch.nn.functional.conv2d(x[0], x[1], x[2], stride, pad, 1, attributes["group"])
            case "Relu":
                return torch.relu(x[0])
            case "Clip":
                return torch.clamp(x[0], float(x[1]), float(x[2]))
            case "Add":
                return x[0] + x[1]
            case "GlobalAveragePool":
                return x[0].mean((2, 3), keepdim=True)
            case "Flatten":
                return x[0].flatten(1)
            case "Gemm":
                return torch.nn.functional.linear(x[0], x[1], x[2])
            case "Cast":
                return x[0].to({1: torch.float32, 10: torch.float16}[attributes["to"]])
            case "Identity":
                return x[0]
            case "QuantizeLinear":
                return torch.clamp(torch.round(x[0] / x[1]) + x[2], 0, 255)
            case "DequantizeLinear":
                shape = (-1, *(1,) * (x[0].ndim - 1)) if x[1].ndim else ()
                return (x[0].float() - x[2].float().reshape(shape)) * x[1].reshape(shape)
        raise ValueError(f"the zoo's networks have no {kind}")


def attack(network: Network, seeds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Makes the notebook's partners: projected gradient steps away from outputs that are the others' mean."""
    low, high = float(seeds.min()), float(seeds.max())
    with torch.no_grad():
        outputs = network(seeds)
        goal = 1000 * (outputs.mean(0) - outputs)
    x = (seeds + EPS * (2 * torch.rand(seeds.shape, generator=generator) - 1)).clamp(low, high)
    for _ in range(STEPS):
        x.requires_grad_(True)
        squared = (network(x) - goal) ** 2
        loss = (squared[:, 0] + 0.1 * squared[:, 1:].mean(1)).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        x = (seeds + (x.detach() + EPS / 6 * gradient.sign() - seeds).clamp(-EPS, EPS)).clamp(low, high)
    return x


def ddv(network: Network, seeds: torch.Tensor, partners: torch.Tensor) -> np.ndarray:
    """Returns cosine distances between a model's outputs for seeds and partners."""
    with torch.no_grad():
        a, b = network(torch.cat([seeds, partners])).float().chunk(2)
        return 1 - torch.cosine_similarity(a, b).numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def in_torch(
    study: Study, networks: dict[str, Network], chosen: Sequence[Entry], repeat: bool
) -> dict[tuple[str, str], float]:
    """Returns the similarity of each target to its parent and to all models of other roots, computed by PyTorch."""
    similarities = {}
    for target in chosen:
        seeds = torch.from_numpy(study.seeds(target.dataset))
        pairs = seeds, attack(networks[study.prober(target.name)], seeds, torch.Generator().manual_seed(0))
        target_ddv = ddv(networks[target.name], *pairs)
        for other in study.zoo.entries.values():
            if other.name == target.parent or other.root != target.root:
                repeated = ddv(networks[target.name], *pairs) if repeat else target_ddv
                similarities[other.name, target.name] = cosine(repeated, ddv(networks[other.name], *pairs))
    return similarities


def in_jax(zoo: Zoo, reactor: Any, chosen: Sequence[Entry]) -> dict[tuple[str, str], float]:
    """Returns the same similarities, computed by this package."""
    study = Study(zoo, PAIRS, reactor=reactor)
    similarities = {}
    for target in chosen:
        others = [e.name for e in zoo.entries.values() if e.name == target.parent or e.root != target.root]
        column = METHODS["modeldiff"](study, others, [target.name], "suspect")[:, 0]
        similarities |= {(other, target.name): float(value) for other, value in zip(others, column, strict=True)}
    return similarities


def correct(chosen: Sequence[Entry], zoo: Zoo, similarities: dict[tuple[str, str], float]) -> int:
    """Returns the number of targets that are right by the strict rule."""
    others = {t.name: [similarities[e.name, t.name] for e in zoo.entries.values() if e.root != t.root] for t in chosen}
    return sum(similarities[str(t.parent), t.name] > max(others[t.name]) for t in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    given = parser.parse_args()
    zoo = Zoo(given.folder)
    study = Study(zoo, PAIRS)
    listed = targets(zoo)
    chosen = [listed[i] for i in np.random.default_rng(0).choice(len(listed), given.targets, replace=False)]
    networks = {name: Network(zoo.path(name)).eval() for name in zoo.entries}
    start = time.perf_counter()
    results = {"ours": in_jax(zoo, study.reactor, chosen)}
    first = time.perf_counter() - start
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: in_jax(zoo, study.reactor, chosen),
        "once": lambda: results.__setitem__("once", in_torch(study, networks, chosen, False)),
        "notebook": lambda: results.__setitem__("notebook", in_torch(study, networks, chosen, True)),
    }
    measured = measure.interleaved(contestants, given.rounds)
    result = {
        "targets": [entry.name for entry in chosen],
        "models": len(zoo.entries),
        "correct": {name: correct(chosen, zoo, similarities) for name, similarities in results.items()},
        "largest_difference": max(
            abs(similarities - results["ours"][pair]) for pair, similarities in results["once"].items()
        ),
        "first_seconds": first,
        "seconds": {name: measure.spread(list(values)) for name, values in measured["seconds"].items()},
        "ratio_to_notebook": measure.ratio(measured, "ours", "notebook"),
        "ratio_to_once": measure.ratio(measured, "ours", "once"),
    }
    print(result)
    if given.write:
        measure.record("modelreuse.speed", result, ("jax", "jaxlib", "torch"))


if __name__ == "__main__":
    main()
