"""Errors are reported once, in full, and safely."""

from modeldiff_jax.errors import LimitExceededError, UnsupportedModelError
from modeldiff_jax.report.failure import failure, message


def test_the_message_has_rule_finding_place_and_remedy():
    error = UnsupportedModelError("Ops are known", got="Foo", where="a.onnx", fix="export again")
    assert message(error) == "Error: Ops are known.\n  got    Foo\n  where  a.onnx\n  to do  export again\n"


def test_parts_without_text_are_left_out():
    assert message(LimitExceededError("Too much")) == "Error: Too much.\n"


def test_a_hostile_name_stays_on_its_line():
    text = message(UnsupportedModelError("Ops are known", got="\x1b[2J\nError: none"))
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()


def test_other_exceptions_are_called_internal_errors():
    text = message(KeyError("x"))
    assert text.startswith("Internal error: KeyError")
    assert "--debug" in text


def test_the_record_names_the_class_and_the_parts():
    record = failure("compare", UnsupportedModelError("Ops are known", got="Foo"), 2)
    assert record["error"]["type"] == "UnsupportedModelError"
    assert record["error"]["got"] == "Foo"
    assert record["exit_code"] == 2
    assert record["command"] == "compare"
