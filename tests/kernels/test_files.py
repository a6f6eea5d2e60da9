"""The list of files that opens the package is the tree."""

import re
from pathlib import Path

from modeldiff_jax import kernels

FOLDER = Path(kernels.__file__).parent


def test_the_list_of_files_is_the_tree():
    listed = re.findall(r"^  (\S+(?:\.py|/)) {2,}\S", kernels.__doc__, re.M)
    files = [path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py"]
    folders = [f"{path.name}/" for path in FOLDER.iterdir() if (path / "__init__.py").exists()]
    assert sorted(listed) == sorted([*files, *folders])


def test_operations_come_first_and_each_part_is_in_order():
    parts = [re.findall(r"^  (\S+) {2,}", part, re.M) for part in kernels.__doc__.split("The operations use these:")]
    assert all(names == sorted(names) for names in parts)
    helpers = [name for name in parts[1] if re.search(r"^VARIANTS\b", source(name), re.M)]
    assert helpers == []


def source(name):
    path = FOLDER / name
    return (path / "__init__.py" if path.is_dir() else path).read_text()
