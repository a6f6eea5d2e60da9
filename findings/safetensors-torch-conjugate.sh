#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0: a conjugated complex tensor is written without its conjugation, silently.
#
# Done: save and load a complex64 tensor and its conjugate, torch.Tensor.conj().
# Expected: what was saved. The documentation of safetensors.torch.save asks only that "Tensors need to be contiguous
# and dense"; conj() of a contiguous tensor says is_contiguous() and is dense. Since torch 1.10 conj() is a view with
# a flag (the documentation of torch.conj and torch.Tensor.is_conj), and torch.save keeps the flag.
# Seen: the numbers before the conjugation come back; resolve_conj() before saving helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import io

import torch
from safetensors.torch import load, save

z = torch.tensor([1 + 2j, 3 - 4j])
kept = {}
for name, x in (("z", z), ("z.conj()", z.conj()), ("z.conj().resolve_conj()", z.conj().resolve_conj())):
    stream = io.BytesIO()
    torch.save(x, stream)
    stream.seek(0)
    read, by_torch = load(save({"x": x}))["x"], torch.load(stream)
    kept[name] = torch.equal(x, read)
    print(f"{name}: contiguous {x.is_contiguous()}, {x.tolist()}; read {read.tolist()}")
    if not (torch.equal(x, by_torch) and x.is_contiguous()):
        raise SystemExit("the behaviour of torch has changed")
if list(kept.values()) != [True, False, True]:
    raise SystemExit("the behaviour has changed")
EOF
