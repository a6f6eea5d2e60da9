"""Documents of records, which are the `to_dict()` of results: one file per command."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modeldiff_jax.report.document import Document
from modeldiff_jax.report.documents.common import Record
from modeldiff_jax.report.documents.compare import compare_report
from modeldiff_jax.report.documents.convert import convert_report
from modeldiff_jax.report.documents.demo import demo_report
from modeldiff_jax.report.documents.doctor import doctor_report
from modeldiff_jax.report.documents.lineage import lineage_report
from modeldiff_jax.report.documents.profile import profile_report
from modeldiff_jax.report.documents.screen import screen_report

_BY_COMMAND: Mapping[str, Callable[[Record], Document]] = {
    "compare": compare_report,
    "convert": convert_report,
    "demo": demo_report,
    "doctor": doctor_report,
    "lineage": lineage_report,
    "profile": profile_report,
    "screen": screen_report,
}


def document(record: Record) -> Document:
    """Returns the document of any command's record."""
    return _BY_COMMAND[record["command"]](record)
