"""Every record can be read in every format, and names of models are only text."""

import copy

import pytest

from modeldiff_jax.report import FORMATS, HtmlReport, render
from tests.helpers import records

EVIL = "a\x1b[2J\u202e\nmodeldiff compare: reused|<script>`[bold red]x[/]:smile:"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_every_record_renders_in_every_format(record, form):
    original = copy.deepcopy(record)
    text = render(record, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "None" not in text
    assert "nan" not in text
    assert record == original


@pytest.mark.parametrize("form", ["text", "html", "md"])
@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_every_report_has_its_date_and_versions(record, form):
    text = render(record, form)
    assert "2026-07-31 12:00:05 UTC" in text
    assert "modeldiff-jax 0.1.0" in text.replace("\\", "")


def poisoned(value):
    """Returns a record whose every free text is hostile."""
    if isinstance(value, dict):
        kept = ("command", "created", "verdict", "says", "kind", "state", "tool", "made_on", "sha256")
        return {key: entry if key in kept else poisoned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [poisoned(entry) for entry in value]
    return EVIL if isinstance(value, str) else value


@pytest.mark.parametrize("form", ["text", "html", "md"])
@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_a_hostile_name_cannot_forge_a_line_or_a_colour(record, form):
    text = render(poisoned(record), form)
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("modeldiff compare: reused|") for line in text.splitlines())
    if form != "text":
        assert "<script" not in text


@pytest.mark.parametrize("colour", [False, True])
def test_names_are_no_markup_of_the_terminal(colour):
    record = records.screen("reused")
    record["rows"][0]["suspect"]["path"] = "[bold]x[/bold] [link=http://evil.example]y[/link] :smile:"
    assert "[bold]x[/bold] [link=http://evil.example]y[/link] :smile:" in render(record, "text", colour=colour)


class Result(HtmlReport):
    def to_dict(self):
        return records.compare()


def test_a_result_is_a_page_and_a_fragment():
    assert Result().to_html() == render(records.compare(), "html")
    assert "<html" not in Result()._repr_html_()
