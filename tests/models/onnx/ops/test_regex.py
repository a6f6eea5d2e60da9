"""Patterns of models: what they match is what Python's `re` says, and no pattern takes long."""

import re
import time

import pytest

from modeldiff_jax.errors import LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import Limits, active
from modeldiff_jax.models.onnx.ops.regex import compile_pattern

TEXTS = ["", "a", "b", "ab", "aab", "abb", "aaa", "ba b", "a-b", "a.b", "10", "x_1", "a\nb", "]", "-", "^", "a{2}", "{"]
# fmt: off
PATTERNS = [
    "", "a", "ab", "a*", "a+b", "a?b?", "a{2}b", "a{1,2}b+", "a{2,}", "a{0}b", "a{0,1}", "(a|b)*", "(a|b|)+",
    "(?:ab)?",
    "a|ab|b", "[ab]+", "[^ab]", "[a-c]{2}", "[\\w.-]+", r"\d+", r"\w+", r"\W", r"\S*\s\S*", r"a.b", r"a\.b", r"^a$",
    "^$",
    r"\ba\b", r"a\b.\bb", r"a\Bb", "[]]", "[-]", "[a-]+", "a.*?b", "(a*)*", "((a|b)(a|b))*", "[^\\d]+", r"\{",
    "(a?){3}",
    r"\^", "(|a)(b|)",
]
# fmt: on


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_are_those_of_re(pattern):
    ours = compile_pattern(pattern)
    theirs = re.compile(pattern, re.ASCII)
    assert [ours.matches(t) for t in TEXTS] == [theirs.fullmatch(t) is not None for t in TEXTS]


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(a+)+b", "(.*)*x", "([a-z]+)*1", "(a?){50}a{50}"])
def test_time_is_linear_in_the_text(pattern):
    start = time.process_time()
    compile_pattern(pattern).matches("a" * 5000 + "!")
    assert time.process_time() - start < 10


@pytest.mark.types_unchecked("checked calls take three times the stack, of which nested groups take much")
@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "*", "a**", "a{3,2}", "(?=a)", "(?P<n>a)", r"\1", r"\p{L}", "[[:alpha:]]", "[b-a]", "\\",
     "a{5000}", "a{2}+",
     "(" * 2000],
)  # fmt: skip
def test_other_patterns_are_refused(pattern):
    with pytest.raises(UnsupportedModelError, match="pattern"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["((((a{99}){99}){99}){99}){99}", "(((a{1000}){1000}){1000})*"])
def test_counts_within_counts_are_bounded(pattern):
    with pytest.raises(LimitExceededError, match="pattern_steps"), active(Limits()):
        compile_pattern(pattern)
