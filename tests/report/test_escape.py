"""Untrusted text cannot act on a terminal or on a Markdown viewer."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldiff_jax.report.escape import markdown, printable

HOSTILE = ["\x1b[2J", "\r", "\n", "\x07", "\x9b31m", "\u202e", "\u2066", "\u200b", "\u2028", "\ud800", "\x00", "\x7f"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_active_characters_are_shown_as_escapes(text):
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")


@given(st.text())
def test_any_text_becomes_one_printable_line_that_can_be_encoded(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")  # raises where it cannot


@given(st.text(alphabet=string.ascii_letters + string.digits + " äλ漢._-/", max_size=300))
def test_ordinary_text_is_left_alone(text):
    assert printable(text) == text


def test_names_that_differ_look_different():
    assert printable("model\u200b.onnx") != printable("model.onnx")


def test_very_long_text_is_cut_in_the_middle():
    shown = printable("a" * 10**6 + "end")
    assert len(shown) < 500
    assert shown.endswith("end")


@pytest.mark.parametrize(
    ("text", "must_not_hold"),
    [
        ("<img src=x onerror=alert(1)>", "<img"),
        ("a|b", " a|b"),
        ("`code`", "a`"),
        ("[link](http://evil.example)", "](http://"),
        ("http://evil.example", "http://"),
        ("www.evil.example", "www."),
        ("@everyone", "@e"),
        ("&lt;b&gt;", "&lt;b"),
        ("**bold**", "**b"),
        ("![i](x)", "!["),
        ("line\n# heading", "\n"),
    ],
)
def test_markdown_is_shown_literally(text, must_not_hold):
    assert must_not_hold not in markdown(text).replace("\\`", "").replace("\\|", "").replace("\\*", "")


@given(st.text() | st.sampled_from(["www.", "http://", "@x"]))
def test_markdown_leaves_no_special_character_bare(text):
    shown = markdown(text)
    for i, c in enumerate(shown):
        if c in "`*_[]|~#":
            backslashes = len(shown[:i]) - len(shown[:i].rstrip("\\"))
            assert backslashes % 2 == 1
    assert "<" not in shown.replace("@<!-- -->", "")
