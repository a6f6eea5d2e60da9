"""Hooks of MkDocs: pages made of other files of the repository, options of commands, and links between all of them.

A page of docs/ reads well where the repository is browsed, and its links are relative to the file. This module adds
what the site has beyond that: `CONTRIBUTING.md`, `CHANGELOG.md` and the benchmarks' pages, the notebooks as pages, the
options of each command as click has them, and drawings that follow the site's colours.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File

from modeldiff_jax.cli.commands import cli

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = "<!-- options -->"
"""Replaced by a command's usage, options and exit codes in `commands/NAME.md`."""
KERNELS = "<!-- kernels -->"
"""Replaced by the public functions of `kernels/__init__.py`, each with the preface of its module."""
COPIED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/README.md": "benchmark-suite.md",
    "bench/modelreuse/README.md": "modelreuse/benchmark.md",
}
"""File of the repository -> page of the site."""
_DOWNLOAD = "Download this notebook"
_LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^()\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that come from elsewhere."""
    for source, page in COPIED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
        for drawing in (ROOT / source).parent.glob("*.svg"):
            address = posixpath.join(posixpath.dirname(page), drawing.name)
            files.append(File.generated(config, address, abs_src_path=str(drawing)))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text = notebook_page(json.loads(notebook.read_text("utf-8")), notebook.name)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills in options and drawings, and turns links into the site's."""
    address = page.file.src_uri
    folder, _, name = address.removesuffix(".md").rpartition("/")
    if folder == "commands" and name in cli.commands:
        markdown = markdown.replace(OPTIONS, command_options(name))
        page.meta["hide"] = ["toc"]  # outputs are 110 columns wide
    markdown = markdown.replace(KERNELS, kernels())
    source = next((file for file, copy in COPIED.items() if copy == address), f"docs/{address}")
    return _LINK.sub(lambda link: _on_site(link, source, address), _with_drawings(markdown, source))


def on_page_content(html: str, **_: Any) -> str:
    """Marks short code within text, so that `--pairs` is not broken after its hyphens."""
    return re.sub(r"<code>([^<]{1,40})</code>", r'<code class="short">\1</code>', html)


def command_options(name: str) -> str:
    """Returns usage and options of a command in Markdown: its own first, then those that all commands have."""
    command = cli.commands[name]
    context = click.Context(command, info_name=f"modeldiff {name}")
    shared = {param.name for param in cli.commands["doctor"].params}
    visible = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    own = [param for param in visible if param.name not in shared]
    common = [param for param in visible if param.name in shared]
    parts = ["## Options", f"```text\n{command.get_usage(context)}\n```"]
    if own:
        parts += [*(_definition(param, context) for param in own), "Options of every command:"]
    parts += [_definition(param, context) for param in common]
    return "\n\n".join(parts)


def _definition(param: click.Option, context: click.Context) -> str:
    """Returns an option as an entry of a definition list, its default and range in brackets as in `--help`."""
    names, text = param.get_help_record(context) or ("", "")
    names, text = names.replace(" INTEGER RANGE", " N"), re.sub(r"\s+", " ", text)
    extra = re.findall(r"\[[^\]]*\]", text)
    for part in extra:
        text = text.replace(part, "")
    return f"`{names}`\n:   {' '.join([text.strip(), *(f'*{part}*' for part in extra)])}"


def kernels() -> str:
    """Returns directives of mkdocstrings for all kernels, grouped by module in the order of the package's imports."""
    names: dict[str, list[str]] = {}
    package = (ROOT / "kernels" / "__init__.py").read_text("utf-8")
    for module, name in re.findall(r"^from ([\w.]+) import (\w+) as", package, re.M):
        names.setdefault(module, []).append(name)
    options = "    options:\n      members: [{}]\n      show_root_toc_entry: false\n"
    return "\n\n".join(f"::: {module}\n{options.format(', '.join(each))}" for module, each in names.items())


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Returns a notebook as Markdown: text, code, and the text that code printed."""
    title, *cells = ("".join(cell["source"]) for cell in notebook["cells"][:1])
    parts = [title, f"[{_DOWNLOAD}]({name})"]
    for cell in notebook["cells"][1:]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join(
            "".join(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]
        )
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join([*parts, *cells])


def _with_drawings(markdown: str, source: str) -> str:
    """Puts the drawings of docs/ into the page, where they take its colours."""

    def drawn(link: re.Match[str]) -> str:
        file = ROOT / posixpath.normpath(posixpath.join(posixpath.dirname(source), link[3]))
        if link[1] and file.suffix == ".svg" and "var(--md-" in (text := file.read_text("utf-8")):
            return f'<div class="drawing">{text[text.index("<svg") :].strip()}</div>'
        return link[0]

    return _LINK.sub(drawn, markdown)


def _on_site(link: re.Match[str], source: str, address: str) -> str:
    """Returns a link as the site has it: to a page, or its text alone where the site has no such page."""
    mark, text, target = link.groups()
    place, anchor, section = target.partition("#")
    if not place or re.match(r"\w+:", place):
        return link[0]
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), place))
    if file in COPIED:
        goal = COPIED[file]
    elif file.startswith("docs/"):
        goal = file.removeprefix("docs/")
        if text != _DOWNLOAD:
            goal = re.sub(r"\.ipynb$", ".md", goal)
    elif posixpath.dirname(source) in {posixpath.dirname(copied) for copied in COPIED} and file.endswith(".svg"):
        return link[0]
    elif (ROOT / file).exists():
        return text
    else:
        return link[0]
    return f"{mark}[{text}]({posixpath.relpath(goal, posixpath.dirname(address) or '.')}{anchor}{section})"
