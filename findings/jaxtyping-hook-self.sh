#!/usr/bin/env bash
# jaxtyping 0.3.11 with beartype 0.23.1: a module with typing.Self in a method's signature cannot be imported under
# the hook.
#
# Done: a module whose class has a method that returns Self, imported plainly, under beartype's own import hook, and
# under jaxtyping.install_import_hook(..., "beartype.beartype").
# Expected: it is imported in all three. PEP 673 (Python 3.11's typing documentation) defines Self in just this place,
# beartype documents it as supported, and jaxtyping documents its hook, with this very argument, as one that applies
# "to every function and dataclass over a whole codebase".
# Seen: BeartypeDecorHintPep673Exception while importing: the hook decorates methods, where beartype wants their
# class. A dataclass, which the hook does decorate, fails alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import importlib
import pathlib
import sys
import warnings

from beartype.claw import beartype_package
from jaxtyping import install_import_hook

SOURCE = """
from dataclasses import dataclass
from typing import Self


{decorator}
class Plain:
    def same(self) -> Self:
        return self
"""
MODULES = {"plain": "", "under_beartype": "", "under_jaxtyping": "", "dataclass_under_jaxtyping": "@dataclass"}
for name, decorator in MODULES.items():
    pathlib.Path(f"{name}.py").write_text(SOURCE.format(decorator=decorator))
sys.path.insert(0, ".")


def outcome(name):
    try:
        importlib.import_module(name).Plain().same()
    except Exception as error:
        return type(error).__name__
    return "imported"


warnings.simplefilter("error")
beartype_package("under_beartype")
seen = [outcome("plain"), outcome("under_beartype")]
with install_import_hook(["under_jaxtyping", "dataclass_under_jaxtyping"], "beartype.beartype"):
    seen += [outcome("under_jaxtyping"), outcome("dataclass_under_jaxtyping")]
print("plainly, under beartype's hook, under jaxtyping's hook, a dataclass there:", seen)
if seen != ["imported", "imported"] + ["BeartypeDecorHintPep673Exception"] * 2:
    raise SystemExit("the behaviour has changed")
EOF
