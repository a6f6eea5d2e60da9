"""Text is stable in files, fitted to the window on terminals, and in colour on request."""

import re

import pytest

from modeldiff_jax.report import render
from tests.helpers import records

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [None, 80])
@pytest.mark.parametrize("record", records.ALL.values(), ids=records.ALL)
def test_colour_changes_nothing_but_colour(record, width):
    plain, coloured = (render(record, "text", colour=colour, width=width) for colour in (False, True))
    assert not ANSI.search(plain)
    assert coloured != plain
    assert ANSI.sub("", coloured) == plain


@pytest.mark.parametrize("variable", ["NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "TERM", "JPY_PARENT_PID"])
def test_the_environment_does_not_change_text(monkeypatch, variable):
    monkeypatch.delenv(variable, raising=False)
    record = records.screen("reused", "no_evidence")
    texts = [render(record, "text", colour=colour) for colour in (False, True)]
    monkeypatch.setenv(variable, "20")
    assert [render(record, "text", colour=colour) for colour in (False, True)] == texts


def test_tables_in_files_have_a_line_for_each_row():
    record = records.screen("reused", "no_evidence")
    record["rows"][0]["suspect"]["path"] = "a/very/long/folder/" * 15 + "model.onnx"
    lines = render(record, "text").splitlines()
    assert any(line.startswith(record["rows"][0]["suspect"]["path"]) and "reused" in line for line in lines)


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_window(width):
    record = records.screen("reused", "no_evidence")
    record["rows"][0]["suspect"]["path"] = "a/very/long/folder/" * 5 + "model.onnx"
    table = render(record, "text", width=width).split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= width


@pytest.mark.parametrize("record", [records.profile(), records.screen("reused")], ids=lambda r: r["command"])
def test_a_table_without_room_keeps_its_lines_whole(record):
    assert render(record, "text", width=40).split("\n\n")[-3] == render(record, "text").split("\n\n")[-3]


def test_paths_and_hashes_are_never_broken_in_fields():
    record = records.compare()
    record["target"]["path"] = "folder/" * 30 + "model.onnx"
    text = render(record, "text", width=60)
    assert record["target"]["path"] in text
    assert "sha256:" + "ab" * 32 in text


def test_columns_of_wide_letters_stay_aligned():
    from rich.cells import cell_len

    record = records.screen("reused", "reused")
    record["rows"][0]["suspect"]["path"] = "\u6a21\u578b.onnx"
    table = render(record, "text").split("\n\n")[1].splitlines()
    assert cell_len(table[1][: table[1].index("reused")]) == table[2].index("reused")
