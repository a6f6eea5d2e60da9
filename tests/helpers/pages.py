"""Runs examples in Markdown pages and notebooks, and compares their output with the page.

Blocks marked `python` run in one session, as a reader would type them; lines of `sh` blocks that begin with `modeldiff`
run too, all others are left to the reader. A `text` block after either shows its output, or the beginning of it if the
last line is `...`.
`python -m tests.helpers.pages FILE...` writes these blocks, and the outputs of notebooks, again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeldiff_jax.cli import commands

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)
_NUMBER = re.compile(r"(-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)")
_VARYING = re.compile(r"^\d{4}-\d\d-\d\d .*UTC.*$|^run\s.*$|^time\s.*$|[0-9a-f]{16,}|(?<=onnxruntime )[\d.]+", re.M)
"""Parts that differ from run to run: dates, versions, seconds, hashes of trained weights."""


@dataclass
class Example:
    """One block of code, and its output on the page; None where the page shows none."""

    language: str
    code: str
    printed: str | None
    place: slice


def examples(page: str) -> list[Example]:
    """Returns the `python` and `sh` blocks of a page, each with the `text` block that follows it."""
    fences = list(_FENCE.finditer(page))
    blocks = []
    for i, fence in enumerate(fences):
        after = fences[i + 1] if i + 1 < len(fences) else None
        shown = after if after and after[1] == "text" and not page[fence.end() : after.start()].strip() else None
        if fence[1] in ("python", "sh"):
            place = slice(*shown.span(2)) if shown else slice(0, 0)
            blocks.append(Example(fence[1], fence[2], shown and shown[2], place))
    return blocks


def make_models(folder: Path) -> None:
    """Writes the models that pages use, by the script that readers use."""
    spec = importlib.util.spec_from_file_location("make_models", DOCS / "examples" / "make_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder)


def run(example: Example, names: dict[str, object]) -> str:
    """Runs a block in the current folder; returns its output.

    Args:
      example: a block of a page.
      names: variables of the page's session.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if example.language == "python":
            exec(compile(example.code, "page", "exec"), names)
        else:
            for line in command_lines(example.code):
                stated = re.search(r"# exits with (\d+)", line)
                code = commands.main(shlex.split(line, comments=True)[1:])
                assert code == int(stated[1] if stated else 0), line
    return printed.getvalue()


def command_lines(code: str) -> list[str]:
    """Returns the lines of a shell block that call `modeldiff`, continued ones joined."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.startswith("modeldiff ")]


def alike(shown: str, printed: str) -> bool:
    """Returns whether two outputs have the same words, and numbers that are equal but for rounding and the machine."""
    shown, printed = shown.strip("\n"), _beginning(printed, shown)
    ours, theirs = (_NUMBER.split(" ".join(_VARYING.sub("", text).split())) for text in (shown, printed))
    if len(ours) != len(theirs) or ours[::2] != theirs[::2]:
        return False
    pairs = zip(ours[1::2], theirs[1::2], strict=True)
    return all(a == b or abs(_value(a) - _value(b)) <= 0.01 + 0.05 * abs(_value(a)) for a, b in pairs)


def _beginning(printed: str, shown: str) -> str:
    """Returns as many lines of an output as a page shows, and `...` where the page ends in that."""
    lines = shown.strip("\n").splitlines()
    if not lines or lines[-1] != "...":
        return printed.strip("\n")
    return "\n".join([*printed.strip("\n").splitlines()[: len(lines) - 1], "..."])


def _value(number: str) -> float:
    return float(number.replace(",", "")) if number.count(".") < 2 else float("nan")


def labels(text: str) -> set[str]:
    """Returns the first words of an output's lines, for outputs whose figures depend on the machine."""
    lines = [line for line in text.splitlines() if line[:1].isalpha() and not line.startswith("install ")]
    return {line.split()[0] for line in lines}


def rewritten(page: str) -> str:
    """Returns a page with current outputs; runs in the current folder."""
    names: dict[str, object] = {}
    shown = [(example, run(example, names)) for example in examples(page)]
    for example, printed in reversed(shown):
        if example.printed is not None:
            page = (
                page[: example.place.start] + _beginning(printed, example.printed) + "\n" + page[example.place.stop :]
            )
    return page


def executed(notebook: Path, folder: Path) -> Any:
    """Runs a notebook in a folder, by the kernel that Jupyter would use, and returns it with outputs of text only."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    NotebookClient(content, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in content.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            text = printed_by(cell)
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    return content


def printed_by(cell: Any) -> str:
    """Returns the printed output of a code cell, without the value of its last expression."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


if __name__ == "__main__":
    os.environ.update(MODELDIFF_CACHE_DIR="", PYTHONPATH=str(ROOT))
    pages = [Path(name).absolute() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder))
        os.chdir(folder)
        for path in pages:
            if path.suffix == ".ipynb":
                import nbformat

                nbformat.write(executed(path, Path(folder)), path)
            else:
                path.write_text(rewritten(path.read_text("utf-8")), "utf-8")
