"""A model's behaviour under a probe set, as a record that can be stored, and ranked like any other."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.access import ALL, infer_access, restrict
from modeldiff_jax.evidence.decision_distance import DDV, react_to_pairs
from modeldiff_jax.evidence.reactions import Reactions
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.models.model import ModelSummary, Origin
from modeldiff_jax.probes.adapt import Adapter
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.types import TensorSpec


@dataclass(frozen=True)
class Measurement:
    """A model's decision distances and reactions under a probe set. It holds no model, so it can be stored.

    Attributes:
      model: where the model came from, and its interface.
      ddv: (N,) decision distance vector.
      reactions: to the N pairs.
      weights_sha256: of the values of all weights, whatever their names and order; empty without enough of them.
      inferred_access: the most restrictive access level consistent with the outputs (`modeldiff_jax.evidence.access`).
      adaptations: every change that turned probes into the model's input, in words.
      queries: inputs the model was run on so far.
    """

    model: ModelSummary
    ddv: DDV
    reactions: Reactions
    weights_sha256: str
    inferred_access: str
    adaptations: tuple[str, ...] = ()
    queries: int = 0

    @property
    def origin(self) -> Origin:
        """Where the model came from."""
        return self.model.origin


def pack(measurement: Measurement) -> bytes:
    """Returns a measurement as the bytes of an `.npz` file, without pickles; `unpack` reads it."""
    model = measurement.model
    header = {
        "origin": asdict(model.origin),
        "inputs": [_spec_fields(spec) for spec in model.inputs],
        "outputs": [_spec_fields(spec) for spec in model.outputs],
        "bound": dict(model.bound),
        "probe_set_id": measurement.ddv.probe_set_id,
        "n_outputs": measurement.reactions.n_outputs,
        "weights_sha256": measurement.weights_sha256,
        "inferred_access": measurement.inferred_access,
        "adaptations": list(measurement.adaptations),
        "queries": measurement.queries,
    }
    arrays: dict[str, Any] = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "ddv": np.asarray(measurement.ddv),
        "seeds": measurement.reactions.seeds,
        "partners": measurement.reactions.partners,
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def unpack(content: bytes) -> Measurement:
    """Returns the measurement that `pack` wrote.

    Raises:
      InvalidInputError: it did not write this.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            ddv, seeds, partners = (arrays[name] for name in ("ddv", "seeds", "partners"))
        inputs, outputs = (tuple(_spec(fields) for fields in header[side]) for side in ("inputs", "outputs"))
        return Measurement(
            model=ModelSummary(Origin(**header["origin"]), inputs, outputs, header["bound"]),
            ddv=DDV(ddv, header["probe_set_id"]),
            reactions=Reactions(seeds, partners, header["n_outputs"]),
            weights_sha256=header["weights_sha256"],
            inferred_access=header["inferred_access"],
            adaptations=tuple(header["adaptations"]),
            queries=header["queries"],
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError("A stored measurement is whole", got=str(error)[:200], where="unpack") from error


def _spec_fields(spec: TensorSpec) -> list[Any]:
    return [spec.name, list(spec.shape), spec.dtype.name]


def _spec(fields: list[Any]) -> TensorSpec:
    name, shape, dtype = fields
    return TensorSpec(name, tuple(shape), np.dtype(dtype))


def measure(adapter: Adapter, probes: ProbeSet, access: str = ALL, n_labels: int | None = None) -> Measurement:
    """Runs an adapted model on probes.

    Args:
      adapter: of the probes' space.
      probes: N pairs.
      access: level to which its outputs are restricted.
      n_labels: how many labels there are, for models that return label numbers.
    """
    ddv, seeds, partners = react_to_pairs(adapter, probes)
    inferred = infer_access(seeds)
    if access != ALL:
        seeds, partners = (np.asarray(restrict(x, access, n_labels), np.float32) for x in (seeds, partners))
        ddv = DDV(paired_distances(seeds, partners, metric="cosine"), probes.probe_set_id)
    reactions = Reactions.of(seeds, partners)
    return Measurement(
        model=adapter.model.summary,
        ddv=ddv,
        reactions=reactions,
        weights_sha256=adapter.model.weights_sha256,
        inferred_access=inferred,
        adaptations=adapter.steps,
        queries=adapter.queries,
    )
