"""The documentation is true and complete: its examples run, its pages hold every option and name, its site builds."""

import re
import subprocess
import sys

import click
import nbformat
import pytest

import modeldiff_jax as md
from bench import tables
from docs.docstrings import separated
from docs.site_hooks import OPTIONS, command_options, kernels
from modeldiff_jax.cli.commands import cli
from modeldiff_jax.models.agreement import TOLERANCES
from modeldiff_jax.profiling import machine
from tests.helpers.pages import DOCS, ROOT, alike, examples, executed, labels, printed_by, run

MEASURED = {"commands/doctor.md", "commands/profile.md"}
"""Pages whose examples print figures of the machine."""
LONG = {"commands/demo.md"}
NEEDED = {"backend.md": ("torch",), "pytorch.md": ("torch", "onnxscript")}
"""Packages that a page's reader has."""


def pages():
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).as_posix()
        if any(example.language == "python" or "modeldiff " in example.code for example in examples(path.read_text())):
            yield pytest.param(name, marks=pytest.mark.long if name in LONG else ())


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporter emits warnings
@pytest.mark.parametrize("name", list(pages()))
def test_examples_print_what_the_page_shows(name, in_models, monkeypatch):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package, reason=f"{package}, which the page's reader has, is not installed")
    monkeypatch.setattr(machine, "_LARGE_COPY", 2**20)  # no page is about the size of such figures
    monkeypatch.setattr(machine, "_LARGEST_PRODUCT", 512)
    names = {}
    for example in examples((DOCS / name).read_text("utf-8")):
        printed = run(example, names)
        if example.printed is not None and name in MEASURED:
            assert labels(example.printed) == labels(printed)
        elif example.printed is not None:
            assert alike(example.printed, printed), f"now:\n{printed}"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Jupyter emits warnings
@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_print_what_they_show(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shown, run_again = nbformat.read(path, as_version=4), executed(path, tmp_path)
    for before, after in zip(shown.cells, run_again.cells, strict=True):
        if before.cell_type == "code":
            assert alike(printed_by(before), printed_by(after)), after.source


# What must be in the pages


@pytest.mark.parametrize("name", cli.commands)
def test_a_commands_page_holds_its_options_and_an_example_with_its_output(name):
    page, command = (DOCS / "commands" / f"{name}.md").read_text("utf-8"), cli.commands[name]
    shown = [example for example in examples(page) if f"modeldiff {name}" in example.code]
    assert shown[0].printed
    assert page.count(OPTIONS) == 1
    options = command_options(name)
    visible = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    assert len(visible) >= 7
    for param in visible:
        assert f"`{param.opts[0]}" in options
        assert " ".join((param.help or "").split("[")[0].split()) in options


def test_the_page_of_types_holds_the_tolerances():
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.e-]+ \| [\d.e-]+) \|$", (DOCS / "types.md").read_text("utf-8"), re.M))
    bounds = {name: f"{bound.share:.0e} | {bound.absolute:.0e}" for name, bound in TOLERANCES.items()}
    assert rows == {name: text.replace("e-0", "e-") for name, text in bounds.items()}


def test_the_python_guide_shows_every_public_name():
    code = "\n".join(e.code for e in examples((DOCS / "python.md").read_text("utf-8")) if e.language == "python")
    assert set(md.__all__) - set(re.findall(r"\bmd\.(\w+)", code)) == set()


def test_the_api_reference_holds_every_public_name():
    reference = "\n".join(path.read_text("utf-8") for path in (DOCS / "api").glob("*.md"))
    assert set(md.__all__) - set(re.findall(r"^::: modeldiff_jax\.(\w+)$", reference, re.M)) == {"ModelDiffError"}
    assert "::: modeldiff_jax.errors" in reference  # its root
    listed = re.findall(r"members: \[([\w, ]+)\]", kernels())
    public = [name for name in vars(md.kernels) if callable(getattr(md.kernels, name)) and not name.startswith("_")]
    assert sorted(", ".join(listed).split(", ")) == sorted(public)


@pytest.mark.parametrize(
    "term",
    [
        *("target", "suspect", "reference", "model", "seed", "partner", "probe pair", "probe set", "probe space"),
        *("adapter", "reaction", "reaction function", "decision distance", "decision distance vector", "evidence"),
        *("representational dissimilarity matrix", "representation", "related", "within-class whitening"),
        *("cohort normalisation", "conformal p-value", "modelled tail", "identity", "verdict", "access level"),
        *("lineage", "arborescence", "trait", "dialect", "folding", "layout", "bounded dynamism", "certificate"),
        *("cascade", "top-2 filter", "catalogue", "isolation", "limit"),
    ],
)
def test_the_glossary_defines_a_term_and_names_its_source(term):
    glossary = (DOCS / "glossary.md").read_text("utf-8")
    entry = re.search(rf"^### {re.escape(term)}\n(.+?)(?=\n#|\Z)", glossary, re.M | re.S)
    assert entry, term
    assert re.search(r"\*[^*]+\.\*\n*$", entry[1].strip()), "an entry ends with its source, in italics"


def test_a_glossary_has_each_term_once():
    terms = re.findall(r"^### (.+)$", (DOCS / "glossary.md").read_text("utf-8"), re.M)
    assert len(terms) == len(set(terms)) > 60


def test_files_of_the_repository_that_pages_name_exist():
    texts = [path.read_text("utf-8") for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]]
    names = set(re.findall(r"`((?:modeldiff_jax|kernels|bench|tests|docs)/[\w./]+\w)`", "\n".join(texts)))
    assert len(names) > 5
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_the_page_of_benchmarks_follows_the_results():
    for name, text in tables.pages(tables.recorded()).items():
        assert (DOCS / name).read_text("utf-8") == text, "python -m bench.tables writes it again"


# The site


def test_grouped_names_of_a_docstring_are_separated():
    docstring = "Does it.\n\nArgs:\n  low, high: the range.\n  x: where\n    it is."
    assert separated(docstring) == "Does it.\n\nArgs:\n  low: the range.\n  high: the range.\n  x: where\n    it is."


@pytest.mark.long
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > 40
    for page in built:
        text = page.read_text("utf-8")
        assert not re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="?(?:https?:)?//', text), page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet
