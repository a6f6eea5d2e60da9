"""Measuring models in a child process with limits, so that a harmful model causes an error and ends no program.

The parent sends paths and settings as JSON and gets measurements as `.npz` files, neither of which can hold code.
`python -m modeldiff_jax.detection.isolated` is the child.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from modeldiff_jax.detection.measurement import Measurement, measure, pack, unpack
from modeldiff_jax.detection.settings import Settings
from modeldiff_jax.errors import ChildFailedError, ModelDiffError, error_from
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.load import load
from modeldiff_jax.probes.adapt import adapt
from modeldiff_jax.probes.probe_set import ProbeSet, load_probes
from modeldiff_jax.runtime import compilation_cache, network
from modeldiff_jax.runtime.isolation import Child

_RESPONSE_BYTES = 2**32
_FAILED, _MEASURED = b"\0", b"\1"
_LENGTH = struct.Struct("<Q")


class IsolatedMeasurer:
    """Measures model files, one after another, in a child process that is replaced when it dies.

    Args:
      probes: probe set that models are measured under.
      settings: access level, hint and limits.
      n_labels: as for `measure`.
    """

    def __init__(self, probes: ProbeSet, settings: Settings, n_labels: int) -> None:
        self._settings, self._n_labels = settings, n_labels
        self._folder = tempfile.TemporaryDirectory(prefix="modeldiff-")
        self._probes = Path(self._folder.name, "probes.npz")
        probes.save(self._probes)
        self._child: Child | None = None

    def measure(self, path: str | os.PathLike[str]) -> Measurement:
        """Measures one model file.

        Raises:
          ModelDiffError: the model cannot be read, adapted or run, a limit was hit, or the child died.
        """
        import jax

        request = {
            "path": os.fspath(path),
            "probes": str(self._probes),
            "access": self._settings.access,
            "n_labels": self._n_labels,
            "hint": _hint_fields(self._settings.hint),
            "limits": self._settings.limits.to_dict(),
            "offline": network.is_forbidden(),
            "cache": bool(jax.config.values["jax_compilation_cache_dir"]),
        }
        if self._child is None:
            arguments = ["-m", "modeldiff_jax.detection.isolated"]
            self._child = Child(arguments, self._settings.limits, _RESPONSE_BYTES)
        try:
            response = self._child.request(json.dumps(request).encode(), str(path))
        except ModelDiffError:
            self._replace()
            raise
        if self._child.resident_bytes > self._settings.limits.process_bytes // 2:  # memory that earlier models left
            self._replace()
        if response[:1] == _FAILED:
            raise error_from(json.loads(response[1:]))
        return unpack(response[1:])

    def _replace(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None

    def close(self) -> None:
        """Ends the child and removes the probes."""
        self._replace()
        self._folder.cleanup()


def _hint_fields(hint: InputHint | None) -> dict[str, Any] | None:
    if hint is None:
        return None
    fixed = {name: [np.asarray(value).dtype.name, np.asarray(value).tolist()] for name, value in hint.fixed.items()}
    return {**asdict(hint), "fixed": fixed}


def _hint_from(fields: dict[str, Any] | None) -> InputHint | None:
    if fields is None:
        return None
    fixed = {name: np.asarray(value, dtype) for name, (dtype, value) in fields["fixed"].items()}
    sizes = {name: tuple(size) if isinstance(size, list) else size for name, size in fields["sizes"].items()}
    value_range = fields["value_range"] and tuple(fields["value_range"])
    return InputHint(**{**fields, "fixed": fixed, "sizes": sizes, "value_range": value_range})


def serve() -> None:
    """Responds to requests on standard input until it ends."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps output that libraries print out of the responses
    probe_sets: dict[str, ProbeSet] = {}
    while head := sys.stdin.buffer.read(_LENGTH.size):
        request = json.loads(sys.stdin.buffer.read(_LENGTH.unpack(head)[0]))
        response = _respond(request, probe_sets)
        responses.write(_LENGTH.pack(len(response)) + response)
        responses.flush()


def _respond(request: dict[str, Any], probe_sets: dict[str, ProbeSet]) -> bytes:
    try:
        if request["offline"]:
            network.forbid()
        if request["cache"]:
            compilation_cache.enable()
        limits = Limits(**request["limits"])
        if request["probes"] not in probe_sets:
            probe_sets[request["probes"]] = load_probes(request["probes"])
        probes = probe_sets[request["probes"]]
        adapter = adapt(load(request["path"], limits=limits), probes.space, _hint_from(request["hint"]))
        return _MEASURED + pack(measure(adapter, probes, request["access"], request["n_labels"]))
    except ModelDiffError as error:
        return _FAILED + json.dumps(error.to_dict()).encode()
    except Exception as error:  # a fault of ours or a library's: it is reported, and the next model is measured
        got = f"{type(error).__name__}: {str(error)[:200]}"
        failed = ChildFailedError("A model runs in a child process to its end", got=got, where=request["path"])
        return _FAILED + json.dumps(failed.to_dict()).encode()


if __name__ == "__main__":
    serve()
