"""A page loads nothing and fits a phone and paper; a fragment leaves the page around it alone."""

import re
from html.parser import HTMLParser

import pytest

from modeldiff_jax.report import render
from modeldiff_jax.report.documents import document
from modeldiff_jax.report.formats.html import to_fragment
from tests.helpers import records

VOID = {"meta", "wbr", "br"}
SHAPES = {"rect", "line", "circle", "path", "polyline"}


class Nesting(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_a_page_is_whole_and_loads_nothing(record):
    page = render(record, "html")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert not re.search(r"<script|<link|<img|src=|url\(|@import", page)
    elements = Nesting(page)
    assert elements.open == []
    assert "default-src 'none'" in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements.seen


def selectors(style):
    """Returns every selector of a style sheet, including those inside media queries."""
    inner = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", r"\1", style)
    return [part.strip() for rule in re.findall(r"([^{}]+)\{", inner) for part in rule.split(",")]


def test_a_fragment_styles_itself_alone():
    fragment = to_fragment(document(records.with_verdict("reused", 0.05)))
    assert not re.search(r"<(html|body|head|!doctype)\b", fragment)
    (style,) = re.findall(r"<style>(.*?)</style>", fragment, re.S)
    names = selectors(style)
    assert len(names) > 30
    assert [name for name in names if not name.startswith(".modeldiff")] == []
    assert Nesting(fragment).open == []


def test_the_colours_of_text_and_background_are_the_readers():
    page = render(records.with_verdict("reused", 0.05), "html")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert not re.search(r"[{;]\s*(color|background(-color)?)\s*:(?!\s*none)", style)
    assert '<meta name="color-scheme" content="light dark">' in page


def test_every_cell_names_its_column_for_narrow_windows():
    cells = [attributes for tag, attributes in Nesting(render(records.screen("reused"), "html")).seen if tag == "td"]
    assert [cell["data-label"] for cell in cells][:2] == ["suspect", "verdict"]


def test_hashes_and_versions_are_whole():
    page = render(records.with_verdict("reused", 0.05), "html")
    assert "ab" * 32 in page
    assert records.PROBE_SET_ID in page
    assert "jax 0.12.0" in page


@pytest.mark.parametrize("word", ["verdict", "no evidence of reuse", "a" * 32])
def test_ordinary_words_of_a_table_stay_whole(word):
    record = records.screen("no_evidence")
    record["rows"][0]["suspect"]["path"] = word
    assert f">{word}</td>" in render(record, "html")


def test_paths_break_behind_separators_and_endless_words_anywhere():
    record = records.screen("reused")
    record["rows"][0]["suspect"]["path"] = "zoo/a_model.onnx"
    assert "zoo/<wbr>a_<wbr>model.<wbr>onnx</td>" in render(record, "html")
    record["rows"][0]["suspect"]["path"] = "a" * 33
    assert f'<span class="long">{"a" * 33}</span></td>' in render(record, "html")


def test_numbers_are_never_broken():
    record = records.screen("reused")
    record["rows"][0]["tail"] = {"method": "Student's t", "deviations": 9.0, "p_value": 9.3e-13, "floor": 0.001}
    page = render(record, "html")
    assert 'class="numeric">9.3e-13</td>' in page
    assert re.search(r"\.numeric \{[^}]*white-space: nowrap", page)
