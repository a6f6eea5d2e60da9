"""The report of `modeldiff compare`."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.report.document import Document, Figure
from modeldiff_jax.report.documents.common import (
    TONES,
    VERDICTS,
    Record,
    counted,
    fields,
    first_few,
    model_lines,
    run_line,
    titled_document,
)
from modeldiff_jax.report.numbers import decimal
from modeldiff_jax.report.plots.decision_distances import DecisionDistances
from modeldiff_jax.report.plots.distribution import Distribution, ScoreRow

_MEANINGS = {
    "reused": "the suspect is more similar to the target than unrelated models are",
    "no_evidence": "the suspect is no more similar to the target than unrelated models are",
    "inconclusive": "nothing can be concluded at this error rate",
}
_SUPPORTS = {"reuse": "supports reuse", "neither": "neutral", "unrelated": "contradicts reuse"}
SIMILARITY = "similarity of decision distances (cosine)"
DEVIATIONS = "score, in standard deviations of references"


def compare_report(record: Record) -> Document:
    """Returns the report of one comparison."""
    verdict = record["verdict"]
    evidence = [f"{name} {decimal(score)}" for name, score in record["evidence"].items()]
    text = fields(
        ("reason", [record["reason"]]),
        ("similarity", [f"{decimal(record['similarity'])}  (cosine of the decision distance vectors, -1 to 1)"]),
        ("p-value", [_p_value(record)]),
        ("tail", _tail(record["tail"])),
        ("target", model_lines(record["target"])),
        ("suspect", model_lines(record["suspect"])),
        ("evidence", [", ".join(evidence)]),
        ("references", _references(record["references"])),
        ("unrelated pairs", _unrelated_pairs(record["unrelated_pairs"])),
        *((label, _representations(record, supports)) for supports, label in _SUPPORTS.items()),
        ("probes", [_probes(probes) for probes in record["probes"]]),
        ("queries", [", ".join(f"{side} {count:,}" for side, count in record["queries"].items())]),
        ("adapted", first_few([f"{side}: {step}" for side, steps in record["adaptations"].items() for step in steps])),
        ("notes", first_few(record["notes"])),
        ("run", [run_line(record)]),
    )
    return titled_document(
        record, f"{VERDICTS[verdict]}: {_MEANINGS[verdict]}", TONES[verdict], [text, *_figures(record)]
    )


def _p_value(record: Record) -> str:
    n = len(record["references"])
    if not n:
        return "none: no references were given (--references)"
    ranked = sum(reference["counted"] for reference in record["references"])
    if record["p_value"] is None:
        return f"none: of {counted(n, 'reference')} none is of the suspect's kind"
    return f"{record['p_value']:.3g}, from {counted(ranked, 'reference')}; the verdict is at alpha {record['alpha']:g}"


def _tail(tail: Record | None) -> list[str]:
    if tail is None:
        return []
    above = f"the score lies {tail['deviations']:.1f} standard deviations above the references' mean"
    return [f"{tail['p_value']:.2g} by {tail['method']}: {above}"]


def _unrelated_pairs(pairs: Record | None) -> list[str]:
    if pairs is None:
        return []
    between = f"{decimal(pairs['low'], 2)} to {decimal(pairs['high'], 2)}"
    return [
        f"{between} in nine of ten of {pairs['n']} unrelated pairs of image classifiers ({pairs['name']}), at least as "
        f"similar in {100 * pairs['share_as_high']:.3g} %: context, no verdict"
    ]


def _references(references: Sequence[Record]) -> list[str]:
    if not references:
        return []
    similarities = [reference["similarity"] for reference in references]
    ranked = sum(reference["counted"] for reference in references)
    unranked = f", {ranked} of them ranked" if ranked < len(references) else ""
    return [f"{len(references)}{unranked}, similarity {decimal(min(similarities))} to {decimal(max(similarities))}"]


def _representations(record: Record, supports: str) -> list[str]:
    ranked = sum(reference["counted"] for reference in record["references"])
    return [
        f"{each['name']} {decimal(each['score'])}  (reached by {each['exceeded_by']} of {counted(ranked, 'reference')})"
        for each in record["representations"]
        if each["supports"] == supports
    ]


def _probes(probes: Record) -> str:
    made = "given" if probes["made_on"] == "given" else f"made on the {probes['made_on']}"
    method = probes.get("method", "ready-made")
    return f"{made}: {counted(probes['n_pairs'], 'pair')}, {method}, {probes['probe_set_id']}"


def _figures(record: Record) -> list[Figure]:
    figures = []
    null = record["null_scores"]
    if names := [name for name in null if name != "similarity"] or list(null):
        scores = {"similarity": record["similarity"], **record["evidence"]}
        rows = [ScoreRow(name, scores[name], null[name]) for name in names]
        n = len(null[names[0]])
        caption = (
            f"The suspect and {counted(n, 'reference')}. The further the suspect lies to the right of them, "
            "the stronger the evidence of reuse."
        )
        figures.append(Figure(Distribution(rows, SIMILARITY if names == ["similarity"] else DEVIATIONS), caption))
    for probes in record["probes"]:
        origin = "given" if probes["made_on"] == "given" else f"made on the {probes['made_on']}"
        caption = (
            f"Decision distances on the probes {origin}, a dot for each pair. Dots near a line through the origin mean "
            "that both models react alike."
        )
        figures.append(Figure(DecisionDistances(probes["target_ddv"], probes["suspect_ddv"]), caption))
    return figures
