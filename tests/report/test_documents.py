"""What a person reads: complete, short, and deaf to what models call themselves."""

import copy
import re

import pytest

from modeldiff_jax.report import FORMATS, render
from tests.report import records

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_every_record_renders_in_every_format(record, form):
    before = copy.deepcopy(record)
    text = render(record, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "None" not in text
    assert "nan" not in text
    assert record == before


@pytest.mark.parametrize("record", [r for n, r in records.ALL.items() if n.startswith("compare")])
def test_a_comparison_is_short_and_complete(record):
    text = render(record, "text")
    assert text.count("\n") < 30
    assert max(map(len, text.splitlines())) <= 120
    for fact in ("0.9123", "0.8765", "owner.onnx", "suspect.onnx", records.PROBE_SET_ID, "12.3 s", "48x192", "pgd"):
        assert fact in text


def test_a_comparison_with_much_to_say_stays_short():
    many = [f"note {i}" for i in range(50)]
    record = records.compare(notes=many, adaptations={"target": many, "suspect": many})
    record["target"]["inputs"] = many
    text = render(record, "text")
    assert text.count("\n") < 40
    assert "and 46 more" in text


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (records.compare(), ["inconclusive", "p-value", "none", "--references"]),
        (records.judged("reused", 0.05), ["reused", "0.05", "19"]),
        (records.judged("no_evidence", 0.6), ["no evidence of reuse", "0.6"]),
    ],
)
def test_the_verdict_is_put_in_words(record, words):
    text = render(record, "text")
    assert all(word in text for word in words)
    assert "independent" not in text


def test_colour_only_when_asked_for():
    record = records.judged("reused", 0.05)
    assert not ANSI.search(render(record, "text"))
    coloured = render(record, "text", colour=True)
    assert ANSI.sub("", coloured) == render(record, "text")
    assert coloured != render(record, "text")
    assert not ANSI.search(render(record, "md", colour=True))


@pytest.mark.parametrize("form", ["text", "html", "md"])
def test_a_hostile_name_cannot_forge_a_line_or_a_colour(form):
    evil = "a\x1b[2J\u202e\nmodeldiff compare: reused|<script>`"
    record = records.compare(notes=[evil], reason=evil, adaptations={"target": [evil], "suspect": []})
    record["target"] |= {"path": evil, "inputs": [evil], "outputs": [evil]}
    record["probes"][0]["method"] = evil
    text = render(record, form)
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("modeldiff compare: reused") for line in text.splitlines())
    if form != "text":
        assert "<script" not in text


def test_markdown_tables_keep_their_columns():
    record = records.demo()
    record["rows"][0]["name"] = "a|b"
    table = next(block for block in render(record, "md").split("\n\n") if "fine-tuned" in block or "a\\|b" in block)
    lines = table.strip().splitlines()
    assert len(lines) == 2 + len(record["rows"])
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_a_conversion_says_whether_it_agrees():
    assert "agrees with onnxruntime" in render(records.convert(), "text")
    assert "DIFFERS from onnxruntime" in render(records.convert(agrees=False), "text")
    assert "--check" in render(records.convert(check=False), "text")


def test_the_doctor_gives_the_line_that_installs_what_is_missing():
    text = render(records.doctor(), "text")
    assert "/usr/bin/python3 -m pip install 'onnxruntime>=1.20'" in text
    assert "Missing packages" in render(records.doctor(ok=False), "text")


def test_a_page_is_whole_and_loads_nothing():
    page = render(records.compare(), "html")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert not re.search(r"<script|<link|<img|src=|url\(", page)
    assert page.count("<table>") == page.count("</table>") > 0
