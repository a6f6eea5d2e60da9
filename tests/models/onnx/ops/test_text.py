"""Patterns of models match in linear time and bounded memory, and what they match is what Python's `re` says."""

import re
import time

import numpy as np
import pytest
from onnx import helper

from modeldiff_jax.errors import LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx import backend
from tests.models.onnx.helpers import expected, node_model

# fmt: off
TEXTS = [
    "", "a", "b", "ab", "aab", "aaa", "ba b", "a-b", "a.b", "10", "x_1", "a\nb", "a\n", "]", "a{2}", "\u00e9",
    "\u00e9b",
]
PATTERNS = [
    "", "a*", "a+b", "a?b?", "a{2}b", "a{1,2}b+", "a{2,}", "a{0}b", "(a|b|)+", "a|ab|b", "[^ab]", r"[\w.-]+", r"\d+",
    r"\W", r"\S*\s\S*", "a.b", "^a$", r"a\b.\bb", r"a\Bb", "[]]", "a.*?b", "(a*)*", r"[^\d]+", "(|a)(b|)", "(?i)AB",
    ".", "..",
]
# fmt: on


def match(pattern, *texts, **options):
    node = helper.make_node("RegexFullMatch", ["x"], ["y"], pattern=pattern)
    return backend.run_node(node, [np.array(texts, object)], **options)[0].tolist()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_are_those_of_re(pattern):
    assert match(pattern, *TEXTS) == [re.compile(pattern, re.ASCII).fullmatch(text) is not None for text in TEXTS]


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\pL+", "[[:alpha:]]+"])
def test_matches_are_those_of_onnxruntime(pattern):
    x = np.array(TEXTS, object)
    proto = node_model("RegexFullMatch", [x], {"pattern": pattern}, 20)
    assert match(pattern, *TEXTS) == expected(proto, {"x0": x})[0].tolist()


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(a+)+b", "(.*)*x", "(a?){50}a{50}"])
def test_time_is_linear_in_the_text(pattern):
    start = time.process_time()
    match(pattern, "a" * 50_000 + "!")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "pattern", ["(", ")", "[a", "*", "a**", "a{3,2}", "(?=a)", r"\1", "[b-a]", "\\", "a{5000}", "((a{99}){99}){99}"]
)
def test_what_is_not_of_the_syntax_is_refused(pattern):
    with pytest.raises(UnsupportedModelError, match="RE2"):
        match(pattern, "a")


def test_memory_is_bounded():
    with pytest.raises(LimitExceededError, match="pattern_bytes"):
        match(r"(?:\pL{500}){2}" * 20, "a")
    assert match("(?:.{500}){2}", "a" * 1000) == [True]
    with pytest.raises(LimitExceededError, match="pattern_bytes"):
        match("(?:.{500}){2}", "a" * 1000, limits=Limits(pattern_bytes=10_000))
