"""The README's examples print what it shows, and the files that it names exist."""

import re

import pytest

from modeldiff_jax.cli.commands import cli
from tests.helpers.pages import ROOT, alike, examples, run

TEXT = (ROOT / "README.md").read_text("utf-8")


def test_examples_print_what_the_readme_shows(in_models):
    names = {}
    for example in examples(TEXT):
        printed = run(example, names)
        assert example.printed is None or alike(example.printed, printed), printed
    assert names["similarities"].shape == (5, 3)


def test_every_command_has_a_line_and_a_page():
    for name in cli.commands:
        assert f"[`modeldiff {name}" in TEXT
        assert f"(docs/commands/{name}.md)" in TEXT


def test_files_that_the_readme_names_exist():
    names = re.findall(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)", TEXT) + re.findall(r"docs/examples/\w+\.py", TEXT)
    missing = [name for name in names if not (ROOT / name).exists()]
    assert len(names) > 20
    assert not missing


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) < 140


@pytest.mark.parametrize("word", ["views", "keyhole", "stranger"])
def test_words_of_the_glossary_only(word):
    assert word not in TEXT
