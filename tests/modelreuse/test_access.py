"""Every access level in one command: which studies are run, and the table of their results."""

import pytest

from bench.modelreuse import access

from .test_protocols import STUDY, ScoredStudy, same_root, zeros


class RecordingStudy(ScoredStudy):
    """A study that records the access levels it was restricted to."""

    n_pairs = 30

    def __init__(self, black_box, levels):
        super().__init__(STUDY.zoo)
        self.queries = {"a": 600, "b": 660} if black_box else {}
        self.black_box, self.levels = black_box, levels

    def with_access(self, level):
        self.levels.append((self.black_box, level))
        return self


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(access, "METHODS", {"ours": same_root, "modeldiff": zeros})
    levels = []
    rows = access.less_access(lambda black_box: RecordingStudy(black_box, levels))
    assert levels == [(black_box, level) for black_box in (False, True) for level in access.LEVELS]
    return rows


def test_each_method_is_scored_at_each_access_level(rows):
    assert len(rows) == 4 * len(access.LEVELS)
    assert {(row["method"], row["strict_correct"]) for row in rows} == {("ours", 84), ("modeldiff", 0)}
    assert {row["suspect_queries"] for row in rows} == {60}
    assert {row["owner_queries"] for row in rows if row["black_box"]} == {630}
    assert {row["owner_queries"] for row in rows if not row["black_box"]} == {None}


def test_the_table_has_a_line_for_each(rows):
    head, _, *lines = access.table(rows).splitlines()
    assert len(lines) == len(rows)
    assert all(line.count("|") == head.count("|") for line in lines)
    assert lines[0].startswith("| `ours` | outputs | gradients | 60 | 84/84 | 1.000 |")
    assert lines[-1].startswith("| `modeldiff` | labels | queries | 630, 60 | 0/84 | 0.500 |")
