#!/usr/bin/env bash
# onnx 1.23.2: in the reference evaluator MaxUnpool does not undo MaxPool where the input's length is no multiple of
# the stride.
#
# Done: MaxPool of a 5 x 5 image (kernel 2, stride 2), MaxUnpool of its two outputs with the image's shape as
# output_shape, and MaxPool of that again.
# Expected: each maximum where it was, and the second MaxPool equal to the first. The ONNX documentation of MaxUnpool:
# "Pooling the result of an unpooling operation should give back the original input to the unpooling op"; "the third
# input argument, output_size, is meant to disambiguate the op". Its indices are those of MaxPool, "flattened 1-D
# tensor". onnxruntime 1.32.0 gives that.
# Seen: the reference evaluator reads the indices in an image of 4 x 4, which it then pads to 5 x 5: 11 and 13 change
# places.
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
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

window = {"kernel_shape": [2, 2], "strides": [2, 2]}
nodes = [
    helper.make_node("MaxPool", ["x"], ["pooled", "indices"], **window),
    helper.make_node("Shape", ["x"], ["shape"]),
    helper.make_node("MaxUnpool", ["pooled", "indices", "shape"], ["unpooled"], **window),
    helper.make_node("MaxPool", ["unpooled"], ["again"], **window),
]
sizes = {"x": 5, "pooled": 2, "unpooled": 5, "again": 2}
x, *outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, n, n]) for name, n in sizes.items()]
graph = helper.make_graph(nodes, "graph", [x], outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)[:, :, ::-1].copy()
undone = {}
for name, run in (("reference", ReferenceEvaluator(model)), ("onnxruntime", session)):
    pooled, unpooled, again = run.run(None, {"x": image})
    in_place = bool(np.all((unpooled == image) | (unpooled == 0)))
    undone[name] = in_place and np.array_equal(pooled, again)
    print(f"{name}: pooled {pooled.ravel()}, pooled again {again.ravel()}, maxima in place: {in_place}")
if undone != {"reference": False, "onnxruntime": True}:
    raise SystemExit("the behaviour has changed")
EOF
