"""Regular expressions in the syntax of RE2, matched in time linear in the text: a pattern comes out of the model.

Python's own `re` tries one way after the other and may take exponential time. Here a pattern becomes a list of steps,
and all steps that the text so far can have led to are followed at once (Thompson 1968).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeAlias

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.limits import check_pattern

_MOST_REPEATS = 1000  # RE2's own bound
_DEEPEST = 100

Test: TypeAlias = Callable[[str], bool]
"""Whether a character fits."""
Place: TypeAlias = Callable[[str, int], bool]
"""Whether a place in the text fits: its start, its end, the border of a word."""


@dataclass(slots=True)
class _Step:
    """Go on to every step of `next`; first read a character that fits `test`, or be at a place that fits `place`."""

    next: list[int]
    test: Test | None = None
    place: Place | None = None


def _is_digit(c: str) -> bool:
    return "0" <= c <= "9"


def _is_word(c: str) -> bool:
    return c.isascii() and (c.isalnum() or c == "_")


def _is_space(c: str) -> bool:
    return c in "\t\n\f\r "


def _inverse(test: Test) -> Test:
    return lambda c: not test(c)


def _at_border(text: str, at: int) -> bool:
    return (at > 0 and _is_word(text[at - 1])) != (at < len(text) and _is_word(text[at]))


_CLASSES: dict[str, Test] = {"d": _is_digit, "w": _is_word, "s": _is_space}
_CLASSES |= {name.upper(): _inverse(test) for name, test in list(_CLASSES.items())}
_PLACES: dict[str, Place] = {
    "b": _at_border,
    "B": lambda text, at: not _at_border(text, at),
    "A": lambda text, at: at == 0,
    "z": lambda text, at: at == len(text),
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class Pattern:
    """A compiled pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0
        self._steps: list[_Step] = []
        self._end = self._add(_Step([]))
        self._start = self._alternatives(self._end)
        if self._at < len(pattern):
            self._refuse("a `)` too many")

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` matches."""
        reached = self._closure({self._start}, text, 0)
        for at, c in enumerate(text, 1):
            after = {
                follower
                for i in reached
                if (test := self._steps[i].test) is not None and test(c)
                for follower in self._steps[i].next
            }
            if not after:
                return False
            reached = self._closure(after, text, at)
        return self._end in reached

    def _closure(self, reached: set[int], text: str, at: int) -> set[int]:
        """All steps that can be reached without reading a character."""
        found, pending = set(reached), list(reached)
        while pending:
            step = self._steps[pending.pop()]
            if step.test is None and (step.place is None or step.place(text, at)):
                fresh = set(step.next) - found
                found |= fresh
                pending += fresh
        return found

    # Patterns are read from their front, and steps are made for what follows first: each reader below takes the
    # step that comes after what it reads. A part to be repeated is read once for each time.

    def _add(self, step: _Step) -> int:
        check_pattern(len(self._steps) + 1)
        self._steps.append(step)
        return len(self._steps) - 1

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._pattern):
            self._refuse("an early end")
        self._at += 1
        return self._pattern[self._at - 1]

    def _alternatives(self, after: int) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"groups nested more than {_DEEPEST} deep")
        starts = [self._sequence(after)]
        while self._peek() == "|":
            self._take()
            starts.append(self._sequence(after))
        self._depth -= 1
        return self._add(_Step(starts))

    def _sequence(self, after: int) -> int:
        """Parts one after the other. What a part leads to is not made yet: it gets a step of its own to go through."""
        first = self._add(_Step([]))
        last = first
        while self._peek() not in ("", "|", ")"):
            through = self._add(_Step([]))
            self._steps[last].next.append(self._repeated(through))
            last = through
        self._steps[last].next.append(after)
        return first

    def _repeated(self, after: int) -> int:
        begin, gate = self._at, self._add(_Step([]))
        starts, gates = [self._part(gate)], [gate]
        least, most = self._quantifier()
        resume = self._at
        if most == 0:
            return after
        for _ in range((max(least, 1) if most is None else most) - 1):
            self._at = begin
            gates.append(self._add(_Step([])))
            starts.append(self._part(gates[-1]))
        self._at = resume
        for times, gate in enumerate(gates, 1):
            following = starts[times : times + 1] or ([starts[-1]] if most is None else [])
            self._steps[gate].next = following + ([after] if times >= least else [])
        return self._add(_Step([starts[0], after])) if least == 0 else starts[0]

    def _quantifier(self) -> tuple[int, int | None]:
        match self._peek():
            case "*":
                found: tuple[int, int | None] = (0, None)
            case "+":
                found = (1, None)
            case "?":
                found = (0, 1)
            case "{":
                return self._counted()
            case _:
                return 1, 1
        self._take()
        self._lazy()
        return found

    def _lazy(self) -> None:
        if self._peek() == "?":  # a lazy repeat prefers fewer, which does not change whether the whole matches
            self._take()
        if self._peek() in ("*", "+"):
            self._refuse("a repeat of a repeat")

    def _counted(self) -> tuple[int, int | None]:
        close = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : max(close, self._at + 1)].partition(",")
        if close < 0 or not (low.isascii() and low.isdigit()) or (high and not (high.isascii() and high.isdigit())):
            return 1, 1  # a brace that is no count stands for itself
        if len(low) > 4 or len(high) > 4 or max(int(low), int(high or 0)) > _MOST_REPEATS:
            self._refuse(f"more than {_MOST_REPEATS} repeats")
        least, most = int(low), (int(high) if high else None) if comma else int(low)
        if most is not None and most < least:
            self._refuse("a count that ends before it begins")
        self._at = close + 1
        self._lazy()
        return least, most

    def _part(self, after: int) -> int:
        match self._take():
            case "(":
                if self._peek() == "?":
                    self._take()
                    if self._take() != ":":
                        self._refuse("a group that begins with `(?`, other than `(?:`")
                start = self._alternatives(after)
                if self._take() != ")":
                    self._refuse("a group without an end")
                return start
            case "[":
                return self._add(_Step([after], self._set()))
            case ".":
                return self._add(_Step([after], lambda c: c != "\n"))
            case "^":
                return self._add(_Step([after], place=_PLACES["A"]))
            case "$":
                return self._add(_Step([after], place=_PLACES["z"]))
            case "\\":
                if self._peek() in _PLACES and self._peek():
                    return self._add(_Step([after], place=_PLACES[self._take()]))
                return self._add(_Step([after], self._escape()))
            case "*" | "+" | "?":
                self._refuse("a repeat of nothing")
            case c:
                return self._add(_Step([after], c.__eq__))

    def _escape(self) -> Test:
        c = self._take()
        if c in _CLASSES:
            return _CLASSES[c]
        return self._literal(c).__eq__

    def _literal(self, c: str) -> str:
        if c in _CONTROLS:
            return _CONTROLS[c]
        if _is_word(c):
            self._refuse(f"`\\{c}`")
        return c

    def _set(self) -> Test:
        negative = self._peek() == "^"
        if negative:
            self._take()
        tests: list[Test] = []
        first = True
        while self._peek() != "]" or first:
            first = False
            c = self._take()
            if c == "[" and self._peek() == ":":
                self._refuse("a named class")
            if c == "\\":
                if self._peek() and self._peek() in _CLASSES:
                    tests.append(_CLASSES[self._take()])
                    continue
                c = self._literal(self._take())
            last = c
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._take()
                last = self._take()
                last = self._literal(self._take()) if last == "\\" else last
                if last < c:
                    self._refuse("a range that ends before it begins")
            tests.append(partial(_between, c, last))
        self._take()
        return (lambda c: not any(t(c) for t in tests)) if negative else (lambda c: any(t(c) for t in tests))

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedModelError(
            "A pattern is a regular expression of the common kind",
            got=f"{what} at {self._at} in {self._pattern[:80]!r}",
            fix="write it without",
        )


def _between(low: str, high: str, c: str) -> bool:
    return low <= c <= high


def compile_pattern(pattern: str) -> Pattern:
    """A pattern ready to match.

    Raises:
      UnsupportedModelError: not in the syntax understood here.
      LimitExceededError: more steps than the limits allow.
    """
    return Pattern(pattern)
