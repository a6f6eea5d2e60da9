"""The outcome of profiling something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeldiff_jax.profiling.programs import ProgramProfile
from modeldiff_jax.report import HtmlReport, roofline_plot
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment


@dataclass(frozen=True)
class Profile(HtmlReport):
    """What a kernel, a model or a comparison costs, how long it takes, and how near that is to the machine's limit.

    Attributes:
      subject: `kind` (`kernel`, `model` or `comparison`), `name`, `models` and `options`.
      programs: one for a kernel or a model; for a comparison each that it ran, the longest in all first.
      machine: the device's measured ceilings.
      comparison: verdict, similarity and wall time by step of a comparison; None for the others.
      trace: folder and files of the trace, or None.
      notes: what a careful reader should know.
      key: random key.
      seconds: wall time, `total`.
    """

    subject: Mapping[str, Any]
    programs: tuple[ProgramProfile, ...]
    machine: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    trace: Mapping[str, Any] | None
    notes: tuple[str, ...]
    key: int
    seconds: Mapping[str, float]

    @property
    def flops(self) -> float:
        """Operations of all programs, as often as they were called."""
        return sum(program.calls * program.work.flops for program in self.programs)

    @property
    def share(self) -> float | None:
        """Time at the roofline as a share of the measured time, over all calls; None where nothing was compiled."""
        measured = sum(program.calls * program.median for program in self.programs)
        return sum(program.calls * program.ideal for program in self.programs) / measured if measured else None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "profile",
            **environment(),
            "subject": dict(self.subject),
            "machine": dict(self.machine),
            "programs": [program.to_dict() for program in self.programs],
            "flops": self.flops,
            "share": self.share,
            "comparison": self.comparison,
            "trace": self.trace,
            "notes": list(self.notes),
            "key": self.key,
            "seconds": dict(self.seconds),
        }

    def to_svg(self) -> str:
        """The roofline plot: the machine's ceilings, and each program below them."""
        return roofline_plot(self.to_dict())
