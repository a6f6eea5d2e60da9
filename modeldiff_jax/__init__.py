"""Did this model come from that one, and how sure are you? Behavioural comparison of trained models on JAX.

Names are imported at first use: JAX takes seconds to import, and `modeldiff --help` should not wait for it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeldiff_jax.detection.compare import Comparison as Comparison
    from modeldiff_jax.detection.compare import compare as compare
    from modeldiff_jax.detection.lineage import Lineage as Lineage
    from modeldiff_jax.detection.lineage import lineage as lineage
    from modeldiff_jax.detection.screen import Screening as Screening
    from modeldiff_jax.detection.screen import screen as screen
    from modeldiff_jax.errors import ModelDiffError as ModelDiffError
    from modeldiff_jax.evidence.decision_distance import DDV as DDV
    from modeldiff_jax.evidence.decision_distance import ddv as ddv
    from modeldiff_jax.evidence.decision_distance import ddv_similarity as ddv_similarity
    from modeldiff_jax.limits import Limits as Limits
    from modeldiff_jax.models.callable import from_callable as from_callable
    from modeldiff_jax.models.flax import from_flax as from_flax
    from modeldiff_jax.models.inputs.probed_input import InputHint as InputHint
    from modeldiff_jax.models.load import load as load
    from modeldiff_jax.models.model import Model as Model
    from modeldiff_jax.models.weights.load import load_weights as load_weights
    from modeldiff_jax.probes.commitment import commit as commit
    from modeldiff_jax.probes.commitment import drawn_key as drawn_key
    from modeldiff_jax.probes.commitment import verify_commitment as verify_commitment
    from modeldiff_jax.probes.make import make_probes as make_probes
    from modeldiff_jax.probes.probe_set import ProbeSet as ProbeSet
    from modeldiff_jax.probes.probe_set import load_probes as load_probes
    from modeldiff_jax.probes.remake import remake_probes as remake_probes
    from modeldiff_jax.profiling import Profile as Profile
    from modeldiff_jax.profiling import profile as profile
    from modeldiff_jax.types import TensorSpec as TensorSpec

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "detection.compare",
    "DDV": "evidence.decision_distance",
    "InputHint": "models.inputs.probed_input",
    "Limits": "limits",
    "Lineage": "detection.lineage",
    "Model": "models.model",
    "ModelDiffError": "errors",
    "ProbeSet": "probes.probe_set",
    "Profile": "profiling",
    "Screening": "detection.screen",
    "TensorSpec": "types",
    "commit": "probes.commitment",
    "compare": "detection.compare",
    "ddv": "evidence.decision_distance",
    "ddv_similarity": "evidence.decision_distance",
    "drawn_key": "probes.commitment",
    "from_callable": "models.callable",
    "from_flax": "models.flax",
    "lineage": "detection.lineage",
    "load": "models.load",
    "load_probes": "probes.probe_set",
    "load_weights": "models.weights.load",
    "make_probes": "probes.make",
    "profile": "profiling",
    "remake_probes": "probes.remake",
    "screen": "detection.screen",
    "verify_commitment": "probes.commitment",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "kernels":
        value = _import_module(f"{__name__}.kernels")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__", "kernels"]
