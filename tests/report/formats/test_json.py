"""The schema is sound, strict, and every record prints as JSON that it accepts."""

import json
import math

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.report.failure import failure
from modeldiff_jax.report.formats.json import schema, to_json
from tests.helpers import records

VALIDATOR = Draft202012Validator(schema())
RECORDS = {
    **records.ALL,
    "error": failure("compare", InvalidModelError("A model is a file", got="a folder", where="x", fix="check"), 2),
    "bug": failure("demo", ZeroDivisionError("division by zero"), 2),
}


def test_the_schema_is_valid():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_records_follow_the_schema(record):
    VALIDATOR.validate(json.loads(to_json(record)))


def paths(value, path=()):
    """Yields the path to every field of a record, in nested objects and lists too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        if isinstance(value, dict):
            yield (*path, key)
        yield from paths(entry, (*path, key))


OPEN = ("bound", "opsets", "operators", "limits", "evidence", "inputs", "method", "steps", "seeds", "load")
OPEN += ("shape", "metric", "flops_by_kind", "null_scores")


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_missing_field_is_refused(record):
    whole = json.loads(to_json(record))
    for *parents, name in paths(whole):
        if any(part in OPEN for part in (*parents, name)) and name not in (
            "limits",
            "evidence",
            "bound",
            "flops_by_kind",
            "null_scores",
        ):
            continue
        damaged = json.loads(to_json(record))
        place = damaged
        for part in parents:
            place = place[part]
        del place[name]
        assert not VALIDATOR.is_valid(damaged), (*parents, name)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_an_unknown_field_is_refused(record):
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**json.loads(to_json(record)), "surprise": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "independent"},
        {"similarity": 1.5},
        {"similarity": None},
        {"p_value": 0.0},
        {"p_value": 1.1},
        {"alpha": 0},
        {"schema_version": "3.0"},
        {"created": "yesterday"},
        {"probes": []},
        {"command": "scan"},
        {"target": {**records.side("a"), "sha256": "not a hash"}},
    ],
    ids=str,
)
def test_impossible_values_are_refused(change):
    assert not VALIDATOR.is_valid(json.loads(to_json(records.compare(**change))))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(value):
    text = to_json({"a": [value, {"b": value}], "c": 1.5})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, {"b": None}], "c": 1.5}


def test_no_byte_of_a_name_reaches_the_terminal_as_it_is():
    text = to_json({"path": "\x1b[31mred\u202e\ud800é"})
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text)["path"] == "\x1b[31mred\u202e\ud800é"
