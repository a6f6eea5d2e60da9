#!/usr/bin/env bash
# onnxruntime 1.32.0: TreeEnsemble (ai.onnx.ml opset 5) takes the softmax where a model asks for the logistic
# function, and the logistic function where it asks for the softmax. onnx 1.23.2: its reference evaluator takes
# neither.
#
# Done: two trees of one split each, for two targets, whose scores for the input 1 are (2, -1), with each transform.
# Expected: the ONNX documentation of TreeEnsemble, post_transform: "One of 'NONE' (0), 'SOFTMAX' (1), 'LOGISTIC' (2),
# 'SOFTMAX_ZERO' (3) or 'PROBIT' (4)". So 1 is softmax(2, -1) = (0.953, 0.047), which adds up to 1, and 2 is
# (sigmoid(2), sigmoid(-1)) = (0.881, 0.269).
# Seen: onnxruntime gives (0.881, 0.269) for 1 and (0.953, 0.047) for 2; the reference evaluator (2, -1) for both.
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

x = np.float32([[1]])
trees = {
    "n_targets": 2,
    "tree_roots": [0, 1],
    "nodes_modes": numpy_helper.from_array(np.uint8([0, 0])),  # x <= split
    "nodes_splits": numpy_helper.from_array(np.float32([0.5, 0.5])),
    "nodes_featureids": [0, 0],
    "nodes_truenodeids": [0, 2],
    "nodes_falsenodeids": [1, 3],
    "nodes_trueleafs": [1, 1],
    "nodes_falseleafs": [1, 1],
    "leaf_weights": numpy_helper.from_array(np.float32([0, 2, 0, -1])),
    "leaf_targetids": [0, 0, 1, 1],
}


def results(post_transform):
    attributes = {**trees, "post_transform": post_transform}
    node = helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 1), ("y", 2))]
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [run.run(None, {"x": x})[0][0].round(3) for run in (session, ReferenceEvaluator(model))]


scores = np.array([2.0, -1.0])
right = {1: np.exp(scores) / np.exp(scores).sum(), 2: 1 / (1 + np.exp(-scores))}
seen = {1: results(1), 2: results(2)}
for number, name in ((1, "SOFTMAX"), (2, "LOGISTIC")):
    theirs, evaluated = seen[number]
    print(f"{name} ({number}): {right[number].round(3)}; onnxruntime {theirs}; reference {evaluated}")
same = [np.allclose(seen[i][0], right[3 - i], atol=2e-3) and seen[i][1].tolist() == [2, -1] for i in (1, 2)]
if not all(same):
    raise SystemExit("the behaviour has changed")
EOF
