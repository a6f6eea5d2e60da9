"""Exit codes: findings, failures, and results without some of the models."""

import pytest

from modeldiff_jax import cli
from modeldiff_jax.cli.exit_codes import exit_code
from tests.helpers import records


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("reused", None, 0),
        ("reused", "reused", 1),
        ("reused", "inconclusive", 1),
        ("inconclusive", "reused", 0),
        ("inconclusive", "inconclusive", 1),
        ("no_evidence", "inconclusive", 0),
        ("no_evidence", "reused", 0),
    ],
)
def test_fail_on_is_a_threshold(stub, verdict, fail_on, code, capsys):
    stub.result.record = records.with_verdict(verdict, 0.5)
    assert cli.main(["compare", "a", "b", *(["--fail-on", fail_on] if fail_on else [])]) == code
    assert "modeldiff compare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "fail_on", "code"),
    [
        (records.convert(), None, 0),
        (records.convert(agrees=False), None, 2),
        (records.doctor(), None, 0),
        (records.doctor(ok=False), None, 2),
        (records.screen("no_evidence", "reused"), "reused", 1),
        (records.screen("no_evidence"), "reused", 0),
        (records.demo(), "reused", 1),
        (records.lineage(None, 0), None, 2),  # one model was left out
        (records.compare(failures=[records.failure("reference")]), None, 2),
        (records.compare(verdict="reused", failures=[records.failure("reference")]), "reused", 1),
    ],
    ids=lambda value: value["command"] if isinstance(value, dict) else str(value),
)
def test_the_code_of_a_record(record, fail_on, code):
    assert exit_code(record, fail_on) == code
