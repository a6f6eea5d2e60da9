#!/usr/bin/env bash
# safetensors 0.8.0: an array in Fortran (column-major) order comes back with its entries in other places; 0.7.0 kept
# them.
#
# Done: safetensors.numpy.save and load of a 2 x 3 array in column-major order, as numpy.asfortranarray and linear
# algebra give it, in both versions.
# Expected: the same array. The documentation of safetensors.numpy.save: "Tensors need to be contiguous and dense";
# numpy calls this array contiguous (F_CONTIGUOUS) and it has no gaps. The format stores row-major data, so either the
# entries are put in that order, as up to 0.7.0, or the array is refused, as safetensors.torch refuses tensors that
# are not contiguous.
# Seen: 0.7.0 gives the array back, 0.8.0 another one of the same shape and type, without an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.7.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import sys

program = """
import numpy as np, safetensors
from safetensors.numpy import load, save
x = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
y = load(save({"x": x}))["x"]
print(safetensors.__version__, "wrote", x.tolist(), "and read", y.tolist())
raise SystemExit(not np.array_equal(x, y))
"""
program = "\n".join(line.strip() for line in program.splitlines())


def keeps(version):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, f"safetensors=={version}"], check=True)
    return subprocess.run([sys.executable, "-c", program]).returncode == 0


if [keeps("0.7.0"), keeps("0.8.0")] != [True, False]:
    raise SystemExit("the behaviour has changed")
EOF
