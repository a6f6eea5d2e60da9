"""Markdown keeps its tables whatever models are called."""

import re

from modeldiff_jax.report import render
from tests.helpers import records


def test_tables_keep_their_columns():
    record = records.demo()
    record["rows"][0]["name"] = "a|b"
    table = next(block for block in render(record, "md").split("\n\n") if "a\\|b" in block)
    lines = table.strip().splitlines()
    assert len(lines) == 2 + len(record["rows"])
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_there_is_no_colour():
    assert render(records.with_verdict("reused", 0.05), "md", colour=True) == render(
        records.with_verdict("reused", 0.05), "md"
    )
