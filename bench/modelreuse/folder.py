"""Zoos as folders: `manifest.json`, `probes.npz` and ONNX files, of the following format.

`manifest.json` holds `mean` and `std` (per channel or one number, of pixel / 255), `layout` ("NCHW" or "NHWC") and
`models`, a list of `{name, file, arch, dataset, root, parent, kind, classes}`: `parent` is null for roots, `root` names
the first ancestor, files are relative, models return logits. `probes.npz` holds `<dataset>_train_x`, `_train_y`,
`_test_x` and `_test_y`: uint8 images in that layout, integer labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.array_file import read_arrays

FIELDS = ("name", "file", "arch", "dataset", "root", "parent", "kind", "classes")


@dataclass(frozen=True)
class Entry:
    """One model of a zoo; see the module."""

    name: str
    file: str
    arch: str
    dataset: str
    root: str
    parent: str | None
    kind: str
    classes: int

    @property
    def half(self) -> bool:
        """Whether the model is its parent in half precision."""
        step = self.name.rstrip("-").rsplit("-", 1)[-1]
        return self.kind == "quantize" and any(word in step for word in ("float16", "fp16", "half"))


class Zoo:
    """A zoo's entries and images. Models are read by `reactions.Reactor`.

    Args:
      folder: see the module.
    Raises:
      InvalidInputError: a file is missing or malformed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        where = str(self.folder / "manifest.json")
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text("utf-8"))
            self.layout = manifest["layout"]
            self._scale = [np.asarray(manifest[part], np.float32).reshape(-1) for part in ("mean", "std")]
            entries = [Entry(**{field: model[field] for field in FIELDS}) for model in manifest["models"]]
        except OSError as error:
            raise InvalidInputError("A zoo has a manifest", got=error.strerror or str(error), where=where) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError("A zoo's manifest has its fields", got=f"{error!r}", where=where) from error
        if self.layout not in ("NCHW", "NHWC"):
            raise InvalidInputError("A zoo's layout is NCHW or NHWC", got=repr(self.layout), where=where)
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise InvalidInputError("Names are unique", got="two models of one name", where=where)
        for entry in entries:
            unknown = [name for name in (entry.root, entry.parent) if name is not None and name not in self.entries]
            if unknown:
                raise InvalidInputError("Roots and parents are models of the zoo", got=unknown[0], where=entry.name)

    @cached_property
    def _images(self) -> dict[str, np.ndarray]:
        return read_arrays(self.folder / "probes.npz", DEFAULT, "probe_bytes")

    def images(self, dataset: str, part: str) -> tuple[UInt8[np.ndarray, "n ..."], np.ndarray]:
        """Returns images and labels of a dataset's "train" or "test" part."""
        try:
            return self._images[f"{dataset}_{part}_x"], self._images[f"{dataset}_{part}_y"]
        except KeyError as error:
            where = str(self.folder / "probes.npz")
            raise InvalidInputError("A zoo has images of its datasets", got=f"no {error}", where=where) from error

    def normalised(self, x: UInt8[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Returns images normalised for the models."""
        mean, std = (
            part.reshape((-1, 1, 1) if self.layout == "NCHW" else (1, 1, -1)) if part.size > 1 else part
            for part in self._scale
        )
        return ((x.astype(np.float32) / 255 - mean) / std).astype(np.float32)

    def path(self, name: str) -> Path:
        """Returns the path of a model's file."""
        return self.folder / self.entries[name].file


def write(folder: Path, entries: Sequence[Mapping[str, Any]], images: Mapping[str, np.ndarray], about: Any) -> None:
    """Writes a zoo's manifest and images; the models' files exist already."""
    from bench.modelreuse.data import MEAN, STD

    np.savez_compressed(folder / "probes.npz", **images)
    manifest = {"mean": list(MEAN), "std": list(STD), "layout": "NCHW", "about": about, "models": list(entries)}
    part = folder / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=1), "utf-8")
    part.replace(folder / "manifest.json")
