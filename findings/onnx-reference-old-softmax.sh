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
from onnx import helper


def model(op, inputs, opset, **attributes):
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    y = helper.make_tensor_value_info("y", values[0].type.tensor_type.elem_type, [None] * inputs[0].ndim)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "graph", values, [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made, {name: x for name, x in zip(names, inputs, strict=True) if x is not None}


import onnxruntime
from onnx.reference import ReferenceEvaluator

x = np.float32([[[1, 2], [3, 4]]])
changed = False
for op, back in (("Softmax", np.asarray), ("LogSoftmax", np.exp), ("Hardmax", np.asarray)):
    proto, feed = model(op, [x], 11, axis=1)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs, evaluated = (run.run(None, feed)[0] for run in (session, ReferenceEvaluator(proto)))
    print(f"{op}: reference {evaluated.ravel().round(3)}, onnxruntime {theirs.ravel().round(3)}")
    changed |= not (np.isclose(back(theirs).sum(), 1) and np.isclose(back(evaluated).sum(), 2))
if changed:
    raise SystemExit("the behaviour has changed")
EOF
