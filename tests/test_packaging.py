"""The wheel has the files of the tree, and imports follow the contracts."""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import modeldiff_jax

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"jax", "jaxlib", "onnx", "flax", "numpy", "sklearn", "PIL", "onnxruntime", "jinja2", "rich"}


def python(program, cwd, **environment):
    """Returns the standard output of a program in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=environment or None, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources to build and to break."""
    copy = tmp_path_factory.mktemp("tree") / "source"
    skip = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skip)
    return copy


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


# The link


def test_the_kernels_link_is_relative_and_resolves():
    link = ROOT / "modeldiff_jax" / "kernels"
    assert link.is_symlink()
    assert str(link.readlink()) == "../kernels"
    assert link.resolve() == ROOT / "kernels"


def test_an_install_imports_from_anywhere(tmp_path):
    program = "import modeldiff_jax, modeldiff_jax.kernels as k; print(modeldiff_jax.__version__, k.__name__)"
    assert python(program, tmp_path) == f"{modeldiff_jax.__version__} modeldiff_jax.kernels"


# The wheel


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for folder in ("modeldiff_jax", "kernels")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".json", ".html", ".css") or path.name == "py.typed"
    }
    expected = {re.sub("^kernels/", "modeldiff_jax/kernels/", name) for name in package}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {"modeldiff_jax/py.typed", "modeldiff_jax/report/schema.json"} <= names


def test_the_wheel_has_its_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"modeldiff_jax-{modeldiff_jax.__version__}.dist-info"
    assert "modeldiff = modeldiff_jax.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
    assert archive.read(f"{info}/top_level.txt").decode().split() == ["modeldiff_jax"]


def test_the_wheel_works_without_the_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "import modeldiff_jax, modeldiff_jax.kernels as k; from modeldiff_jax.report.formats.json import schema;"
        "print(modeldiff_jax.__file__, k.__path__[0], schema()['title'], sep='\\n')"
    )
    file, kernels, title = python(program, tmp_path, PYTHONPATH=str(tmp_path / "site")).splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert Path(kernels) == tmp_path / "site" / "modeldiff_jax" / "kernels"
    assert "modeldiff" in title


# Imports


def heavy_after(program, cwd):
    """Returns the heavy packages a fresh process has imported after a program."""
    return set(python(f"{program}\nimport sys; print(*({HEAVY!r} & set(sys.modules)))", cwd).split())


@pytest.mark.parametrize(
    "module", ["modeldiff_jax", "modeldiff_jax.cli", "modeldiff_jax.report", "modeldiff_jax.errors"]
)
def test_heavy_packages_wait_until_they_are_needed(module, tmp_path):
    assert heavy_after(f"import {module}", tmp_path) == set()


def test_heavy_imports_would_be_seen(tmp_path):
    assert {"jax", "numpy"} <= heavy_after("import modeldiff_jax; modeldiff_jax.compare", tmp_path)


def test_a_comparison_of_arrays_does_without_the_packages_of_other_jobs(tmp_path):
    program = (
        "import sys; sys.modules |= dict.fromkeys(['onnx', 'onnxruntime', 'flax', 'sklearn', 'PIL', 'click'])\n"
        "import numpy as np, modeldiff_jax as md\n"
        "model = md.from_callable(lambda x: x @ np.ones((4, 3), np.float32), [('n', 4)], name='linear')\n"
        "seeds = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 4)\n"
        "print(md.compare(model, model, seeds=seeds, n_pairs=4).similarity > 0.999)"
    )
    assert python(program, tmp_path) == "True"


@pytest.mark.parametrize("name", modeldiff_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(modeldiff_jax, name).__doc__


def lint_imports(tree):
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False)


def test_imports_go_downwards_only(tree):
    done = lint_imports(tree)
    assert done.returncode == 0, done.stdout
    assert "KEPT" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/dispatch.py", "import modeldiff_jax.models.model"),
        ("kernels/dispatch.py", "import flax"),
        ("modeldiff_jax/models/model.py", "import modeldiff_jax.detection.compare"),
        ("modeldiff_jax/models/model.py", "import onnx"),
        ("modeldiff_jax/errors.py", "import modeldiff_jax.limits"),
        ("modeldiff_jax/errors.py", "import bench.measure"),
        ("bench/measure.py", "import tests.model_packages"),
        ("bench/measure.py", "import bench.plot, bench.tables"),
    ],
)
def test_an_upward_import_would_be_seen(tree, file, line):
    source = (tree / file).read_text()
    try:
        (tree / file).write_text(f"{source}\n{line}\n")
        done = lint_imports(tree)
        assert done.returncode != 0
        assert "BROKEN" in done.stdout
    finally:
        (tree / file).write_text(source)


# The files about the package


def test_each_tool_is_set_up_in_one_file():
    project = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"])
    static = configparser.ConfigParser()
    static.read(ROOT / "setup.cfg")
    tools = {section.split(":")[0].split("-")[0] for section in static.sections()}
    assert project == {"setuptools", "ruff", "pytest"}
    assert tools == {"importlinter", "mypy", "coverage"}


def test_all_files_name_one_version():
    number = modeldiff_jax.__version__
    assert version("modeldiff-jax") == number
    assert f"\nversion: {number}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## \[({re.escape(number)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_contributing_opens_with_a_line_for_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text[: text.index("\n## ")]
    rooms = [
        path.name + ("/" if path.is_dir() else "")
        for folder in (ROOT / "modeldiff_jax", ROOT)
        for path in folder.iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or path.suffix == ".py"
    ]
    assert [room for room in rooms if room not in tree] == []
