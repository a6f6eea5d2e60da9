"""Scores of methods when a suspect exposes less than its whole outputs, and when pairs are made by queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.modelreuse.methods import METHODS
from bench.modelreuse.protocols import PROTOCOLS
from bench.modelreuse.study import Study
from bench.tables import table as markdown

LEVELS = ("outputs", "probabilities", "top-5", "labels")
_METHODS = ("ours", "modeldiff")


def less_access(make: Callable[[bool], Study]) -> list[dict[str, Any]]:
    """Returns the scores of each method at each access level, with pairs made on the owner's model.

    Args:
      make: the study of a zoo, by gradients or, if true, black box. Each is made once, and models are run once for all
        levels.
    Returns:
      One row each, as `evaluate` gives them, with `method`, `access`, `black_box`; `asked_owner` and `asked_suspect`
      are inputs that each model was run on, on average (None for an owner whose gradients were used).
    """
    rows = []
    for black_box in (False, True):
        study = make(black_box)
        for level in LEVELS:
            seen = study.through(level)
            for method in _METHODS:
                found = PROTOCOLS["strict"](seen, METHODS[method], "owner")
                row = {"method": method, "access": level, "black_box": black_box, **found}
                queries = list(study.queries.values())
                row["asked_owner"] = sum(queries) / len(queries) if queries else None
                rows.append({**row, "asked_suspect": 2 * study.n_pairs})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns all rows as Markdown: for each kind the area under the ROC curve and the true-positive rate at 5 %."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    head = ["method", "suspect exposes", "pairs by", "queries to owner, suspect", "strict", "AUC", "TPR 5 %, 1 %"]
    lines = []
    for row in rows:
        asked = "" if row["asked_owner"] is None else f"{row['asked_owner']:.0f}, "
        line = [f"`{row['method']}`", row["access"], "queries" if row["black_box"] else "gradients"]
        line += [f"{asked}{row['asked_suspect']}", f"{row['strict_correct']}/{row['strict_total']}"]
        line += [_number(row["auc"], 3), f"{_number(row['tpr_at_5_fpr'])}, {_number(row['tpr_at_1_fpr'])}"]
        found = (row["kinds"][kind] for kind in kinds)
        lines.append([*line, *(f"{_number(kind['auc'], 3)}, {_number(kind['tpr_at_5_fpr'])}" for kind in found)])
    return markdown([*head, *kinds], lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
