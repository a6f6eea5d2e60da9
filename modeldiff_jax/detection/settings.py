"""The settings that comparing and screening share: one record, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.access import ALL, check_access
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.probed_input import InputHint


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings: how probes are made, the access level of the outputs compared, and the error rate of verdicts.

    Attributes:
      seeds: a folder of images, an array or its file, or a pack's name; None for the built-in pack.
      n_pairs: probe pairs; None for 100, fewer on models too heavy for the default effort.
      n_steps: attack steps; None for 50, fewer likewise.
      key: random key; the same key, models and seeds give the same probes.
      alpha: error rate of the verdicts, in (0, 1).
      black_box: whether to make partners by queries alone, without gradients of any model.
      access: which part of its outputs the suspect exposes; see `modeldiff_jax.evidence.access`.
      hint: which input is probed, and its layout and value range, where they cannot be inferred from the model.
      limits: limits on untrusted files.
      isolate: whether to measure model files in a child process with limits on memory and time, `limits.process_bytes`
        and so on.
    """

    seeds: Any = None
    n_pairs: int | None = None
    n_steps: int | None = None
    key: int = 0
    alpha: float = 0.05
    black_box: bool = False
    access: str = ALL
    hint: InputHint | None = None
    limits: Limits = DEFAULT
    isolate: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidInputError("alpha lies strictly between 0 and 1", got=str(self.alpha), where="alpha")
        check_access(self.access)
