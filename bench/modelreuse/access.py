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
      make: returns a study of the zoo, by gradients or, if true, by queries alone. It is called once for each, and
        models are run once for all levels.
    Returns:
      One row for each combination, as `evaluate` gives them, with `method`, `access`, `black_box`; `owner_queries` and
      `suspect_queries` are the average numbers of inputs that a model was run on (None for an owner whose gradients
      were used).
    """
    rows = []
    for black_box in (False, True):
        study = make(black_box)
        for level in LEVELS:
            restricted = study.with_access(level)
            for method in _METHODS:
                result = PROTOCOLS["strict"](restricted, METHODS[method], "owner")
                row = {"method": method, "access": level, "black_box": black_box, **result}
                queries = list(study.queries.values())
                row["owner_queries"] = sum(queries) / len(queries) if queries else None
                rows.append({**row, "suspect_queries": 2 * study.n_pairs})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns all rows as Markdown: for each kind the area under the ROC curve and the true-positive rate at 5 %."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    head = ["method", "suspect exposes", "pairs by", "queries to owner, suspect", "strict", "AUC", "TPR 5 %, 1 %"]
    lines = []
    for row in rows:
        to_owner = "" if row["owner_queries"] is None else f"{row['owner_queries']:.0f}, "
        line = [f"`{row['method']}`", row["access"], "queries" if row["black_box"] else "gradients"]
        line += [f"{to_owner}{row['suspect_queries']}", f"{row['strict_correct']}/{row['strict_total']}"]
        line += [_number(row["auc"], 3), f"{_number(row['tpr_at_5_fpr'])}, {_number(row['tpr_at_1_fpr'])}"]
        by_kind = (row["kinds"][kind] for kind in kinds)
        lines.append([*line, *(f"{_number(kind['auc'], 3)}, {_number(kind['tpr_at_5_fpr'])}" for kind in by_kind)])
    return markdown([*head, *kinds], lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
