"""Profiles: the results of profiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeldiff_jax.profiling.programs import ProgramProfile
from modeldiff_jax.report import HtmlReport, roofline_plot
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment


@dataclass(frozen=True)
class Profile(HtmlReport):
    """The profile of a kernel, a model or a comparison: costs, times, and how near these are to the machine's limits.

    Attributes:
      subject: `kind` (`kernel`, `model` or `comparison`), `name`, `models` and `options`.
      programs: one for a kernel or a model; for a comparison all that it ran, the one that took the most time first.
      machine: the device's measured limits.
      comparison: verdict, similarity and wall time by step of a comparison; None for the others.
      trace: folder and files of the trace, or None.
      notes: remarks for a careful reader.
      key: random key.
      seconds: wall time by step.
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
        """Operations of all calls of all programs."""
        return sum(program.calls * program.work.flops for program in self.programs)

    @property
    def share(self) -> float | None:
        """Time at the roofline as a share of the measured time, over all calls; None where nothing was compiled."""
        measured = sum(program.calls * program.median for program in self.programs)
        return sum(program.calls * program.ideal for program in self.programs) / measured if measured else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
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
        """Returns the roofline plot as SVG: the machine's limits, and each program below them."""
        return roofline_plot(self.to_dict())
