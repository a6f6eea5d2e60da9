"""Probe sets: N probe pairs, frozen and content-hashed, and their file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.models.inputs.space import ProbeSpace
from modeldiff_jax.runtime.atomic_file import writing

FORMAT_VERSION = 1
_MEMBERS = ("header", "partners", "seeds")


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """N pairs of a seed and its partner; DDVs compare only under one probe set.

    Attributes:
      seeds, partners: (N, *space.shape) in the space's dtype and range, read-only.
      space: the probes' space.
      metric: distance between reactions, by its name in `modeldiff_jax.kernels`.
      origin: JSON-able account of how the pairs were made. It is not part of the identity: equal pairs have equal ids.
    """

    seeds: np.ndarray
    partners: np.ndarray
    space: ProbeSpace
    metric: str = "cosine"
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("seeds", "partners"):
            object.__setattr__(self, role, _frozen(role, getattr(self, role), self.space))
        if len(self.seeds) != len(self.partners) or len(self.seeds) < 2:
            raise InvalidInputError(
                "A probe set has at least two seeds and one partner for each",
                got=f"{len(self.seeds)} seeds, {len(self.partners)} partners",
                where="ProbeSet",
            )
        if not self.metric or not isinstance(self.metric, str):
            raise InvalidInputError("A probe set names its metric", got=repr(self.metric), where="ProbeSet")
        try:
            copy = json.loads(json.dumps(dict(self.origin), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidInputError("A probe set's origin is JSON-able", got=str(error), where="ProbeSet") from error
        object.__setattr__(self, "origin", MappingProxyType(copy))

    def __reduce__(self) -> Any:  # a mapping proxy cannot be pickled
        return ProbeSet, (self.seeds, self.partners, self.space, self.metric, dict(self.origin))

    def __len__(self) -> int:
        return len(self.seeds)

    @cached_property
    def content_sha256(self) -> str:
        """SHA-256 over the pairs, their space and their metric, in hexadecimal.

        It covers a JSON header with sorted keys (metric, number of pairs, space), a newline, then seeds and partners
        as C-ordered little-endian bytes.
        """
        header = {"metric": self.metric, "pairs": len(self), "space": self.space.to_dict()}
        digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for array in (self.seeds, self.partners):
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    @property
    def probe_set_id(self) -> str:
        """`ps1-` and the first 32 digits of `content_sha256`."""
        return f"ps1-{self.content_sha256[:32]}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the set as a `.npz` file: all of it or nothing.

        Args:
          path: file to write or replace; its folder must exist.
        Raises:
          InvalidInputError: the file cannot be written.
        """
        header = {
            "format": "modeldiff-probes",
            "version": FORMAT_VERSION,
            "id": self.probe_set_id,
            "metric": self.metric,
            "space": self.space.to_dict(),
            "origin": dict(self.origin),
        }
        text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
        with writing(path, "A probe set") as file:
            np.savez(file, header=text, seeds=self.seeds, partners=self.partners)

    def __repr__(self) -> str:
        return f"ProbeSet({self.probe_set_id}: {len(self)} pairs, {self.space}, {self.metric})"


def load_probes(path: str | os.PathLike[str], limits: Limits = DEFAULT) -> ProbeSet:
    """Reads a saved probe set and checks it against its id.

    Args:
      path: file written by `ProbeSet.save`.
      limits: limit on its size.
    Raises:
      InvalidInputError: no such file, not a probe set, of another version, damaged or altered.
      LimitExceededError: larger than `limits.probe_bytes`.
    """
    arrays = read_arrays(Path(path), limits, "probe_bytes")
    where = str(path)
    if tuple(sorted(arrays)) != _MEMBERS or arrays["header"].dtype != np.uint8:
        rule = "A probe set's file holds header, seeds and partners"
        raise InvalidInputError(rule, got=str(sorted(arrays))[:200], where=where)
    try:
        header = json.loads(arrays["header"].tobytes())
        version, stored = header["version"], header["id"]
        fields = (ProbeSpace.from_dict(header["space"]), header["metric"], header["origin"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidInputError("A probe set's file has a sound header", got=str(error)[:200], where=where) from error
    if version != FORMAT_VERSION or header.get("format") != "modeldiff-probes":
        raise InvalidInputError(
            f"A probe set's file has format version {FORMAT_VERSION}",
            got=f"version {version!r}",
            where=where,
            fix="make the probes again, or use the release that wrote them",
        )
    probes = ProbeSet(arrays["seeds"], arrays["partners"], *fields)
    if probes.probe_set_id != stored:
        raise InvalidInputError(
            "A probe set matches its id",
            got=f"{probes.probe_set_id} in a file that says {stored!r}",
            where=where,
            fix="the file was altered or damaged; make the probes again",
        )
    return probes


def concatenate(first: ProbeSet, second: ProbeSet) -> ProbeSet:
    """Returns the pairs of two sets over one space and metric, in order, as a new set."""
    if first.space != second.space or first.metric != second.metric:
        raise InvalidInputError(
            "Probe sets are joined over one space and one metric",
            got=f"{first!r} and {second!r}",
            where="concatenate",
        )
    return ProbeSet(
        np.concatenate([first.seeds, second.seeds]),
        np.concatenate([first.partners, second.partners]),
        first.space,
        first.metric,
        {"method": "joined", "parts": [dict(first.origin), dict(second.origin)]},
    )


def _frozen(role: str, values: Any, space: ProbeSpace) -> np.ndarray:
    """Returns a read-only copy, checked against the space."""
    array = np.asarray(values)
    fits = array.shape[1:] == space.shape and array.ndim == len(space.shape) + 1
    if not fits or array.dtype.newbyteorder("=") != space.dtype:
        raise InvalidInputError(
            f"{role.capitalize()} are {space.dtype} of shape (N, {', '.join(map(str, space.shape))})",
            got=f"{array.dtype} of shape {array.shape}",
            where="ProbeSet",
        )
    # attacks clip in float32, so the end of a range, as 0.1, may come back as the nearest float32
    low, high = np.array([space.low, space.high], space.dtype)
    if not np.isfinite(array).all() or (array.size and (array.min() < low or array.max() > high)):
        raise InvalidInputError(
            f"{role.capitalize()} are finite and within [{space.low:g}, {space.high:g}]",
            got="values outside" if np.isfinite(array).all() else "NaN or infinity",
            where="ProbeSet",
        )
    copy = np.array(array, space.dtype, order="C")
    copy.flags.writeable = False
    return copy
