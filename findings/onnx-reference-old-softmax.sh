#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator gives Softmax, LogSoftmax and Hardmax of opsets 1 to 12 the meaning of opset
# 13.
#
# Done: the three operators at opset 11, axis 1 (their default), of an input of shape (1, 2, 2).
# Expected: the ONNX documentation of Softmax-11, LogSoftmax-11 and Hardmax-11: for axis k the input "will be coerced
# into a 2-dimensional tensor with dimensions [a_0 * ... * a_{k-1}, a_k * ... * a_{n-1}]". So the softmax is over all
# four numbers, which add up to 1, and Hardmax has a single 1. onnxruntime 1.32.0 gives that.
# Seen: the softmax along axis 1 alone, whose four numbers add up to 2, and two ones for Hardmax; no error, no
# warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

x = np.float32([[[1, 2], [3, 4]]])
changed = False
for op, back in (("Softmax", np.asarray), ("LogSoftmax", np.exp), ("Hardmax", np.asarray)):
    text = f'<ir_version: 10, opset_import: ["": 11]> graph (float[1,2,2] x) => (float[1,2,2] y) {{ y = {op}<axis = 1>(x) }}'
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs, evaluated = (run.run(None, {"x": x})[0] for run in (session, ReferenceEvaluator(proto)))
    print(f"{op}: reference {evaluated.ravel().round(3)}, onnxruntime {theirs.ravel().round(3)}")
    changed |= not (np.isclose(back(theirs).sum(), 1) and np.isclose(back(evaluated).sum(), 2))
if changed:
    raise SystemExit("the behaviour has changed")
EOF
