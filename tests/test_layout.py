"""A newcomer finds the tests of every module: by its name, or in the map of tests/README.md."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAP = {
    module: re.findall(r"`(tests/[^`]+)`", files)
    for module, files in re.findall(
        r"^\| `((?:modeldiff_jax|kernels)/[^`]+)` \| (.+) \|$", (ROOT / "tests" / "README.md").read_text("utf-8"), re.M
    )
}


def modules():
    """Every module of the product, as a path from the root; `__init__` and `__main__` are left out."""
    for tree in ("modeldiff_jax", "kernels"):
        for path in sorted((ROOT / tree).rglob("*.py")):
            name = path.relative_to(ROOT)
            if path.name not in ("__init__.py", "__main__.py") and name.parts[:2] != ("modeldiff_jax", "kernels"):
                yield name


def has_test_of_its_name(module):
    folder = module.parent if module.parts[0] == "kernels" else Path(*module.parts[1:-1])
    return (ROOT / "tests" / folder / f"test_{module.name}").exists()


NAMELESS = [module.as_posix() for module in modules() if not has_test_of_its_name(module)]


@pytest.mark.parametrize("module", NAMELESS)
def test_every_module_has_a_test_of_its_name_or_a_row_in_the_map(module):
    assert any(fnmatch(module, row) for row in MAP), "name its tests test_<module>.py, or add a row to tests/README.md"


@pytest.mark.parametrize("row", MAP)
def test_every_row_of_the_map_is_needed_and_right(row):
    assert MAP[row]
    assert [file for file in MAP[row] if not (ROOT / file).exists()] == []
    first = {module: next((r for r in MAP if fnmatch(module, r)), None) for module in NAMELESS}
    assert row in first.values(), "no module without a test of its name needs this row: leave it out of tests/README.md"
