"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from modeldiff_jax.cli import commands as cli
from tests.helpers.onnx_graphs import classifier

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files the README speaks of."""
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    classifier(tmp_path / "owner.onnx")
    classifier(tmp_path / "suspect.onnx", noise=0.05)
    (tmp_path / "refs").mkdir()
    for seed in range(20, 39):
        classifier(tmp_path / "refs" / f"{seed}.onnx", seed=seed)


def test_python_blocks_run(files, capsys):
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) == 4
    names = {}
    for code in blocks:
        exec(compile(code, "README.md", "exec"), names)  # one session, as a reader would type it
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[0].split()[0]) > 0.9
    assert lines[1].split()[0] == names["probes"].probe_set_id
    assert names["vectors"].shape == (2, 100)


def commands():
    lines = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
    return [line for line in lines if line.startswith("modeldiff ")]


@pytest.mark.parametrize("command", commands())
def test_commands_run(files, capsys, command):
    assert cli.main(shlex.split(command)[1:]) == 0
    verdict = "reused" if "--references" in command else "inconclusive"
    assert capsys.readouterr().out.startswith(f"modeldiff compare: {verdict}")


def test_every_command_and_option_is_in_the_readme():
    for name, command in cli.cli.commands.items():
        assert f"`modeldiff {name}" in TEXT
        for option in command.params:
            long = next((o for o in option.opts if o.startswith("-")), None)
            assert long is None or long in TEXT, (name, long)


def test_files_the_readme_names_exist():
    root = Path(__file__).resolve().parent.parent
    for name in re.findall(r"`((?:modeldiff_jax|bench|tests)/[\w./]+)`", TEXT):
        assert (root / name).exists(), name
