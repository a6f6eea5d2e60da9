"""Every access in one command: what is run, and what the table shows of it."""

import pytest

from bench.modelreuse import access

from .test_protocols import STUDY, Judged, nothing, told


class Seen(Judged):
    """A study that notes through which access it was looked at."""

    n_pairs = 30

    def __init__(self, black_box, asked):
        super().__init__(STUDY.zoo)
        self.queries = {"a": 600, "b": 660} if black_box else {}
        self.black_box, self.asked = black_box, asked

    def through(self, level):
        self.asked.append((self.black_box, level))
        return self


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(access, "METHODS", {"ours": told, "modeldiff": nothing})
    asked = []
    found = access.less_access(lambda black_box: Seen(black_box, asked))
    assert asked == [(how, level) for how in (False, True) for level in access.LEVELS]
    return found


def test_each_method_is_judged_under_each_access(rows):
    assert len(rows) == 4 * len(access.LEVELS)
    assert {(row["method"], row["strict_correct"]) for row in rows} == {("ours", 84), ("modeldiff", 0)}
    assert {row["asked_suspect"] for row in rows} == {60}
    assert {row["asked_owner"] for row in rows if row["black_box"]} == {630}
    assert {row["asked_owner"] for row in rows if not row["black_box"]} == {None}


def test_the_table_has_a_line_for_each(rows):
    head, _, *lines = access.table(rows).splitlines()
    assert len(lines) == len(rows)
    assert all(line.count("|") == head.count("|") for line in lines)
    assert lines[0].startswith("| `ours` | outputs | gradients | 60 | 84/84 | 1.000 |")
    assert lines[-1].startswith("| `modeldiff` | labels | queries | 630, 60 | 0/84 | 0.500 |")
