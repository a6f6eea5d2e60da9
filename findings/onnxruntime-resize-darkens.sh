#!/usr/bin/env bash
# onnxruntime 1.32.0: enlarging an image of one grey value, 8 bits a pixel, makes some of its pixels darker.
#
# Done: Resize (ai.onnx opset 21) of a uint8 image whose every pixel is 100, mode "linear", by 1.7 along both axes.
# Expected: 100 everywhere. The ONNX documentation of Resize: "it calculates every value in the output tensor as a
# weighted average of neighborhood (a.k.a. sampling locations) in the input tensor", and the average of 100 is 100.
# The same node on the same numbers in float32 gives 100 after rounding, and onnx's reference evaluator gives 100 in
# uint8.
# Seen: pixels of 99. The weights are float32 and do not quite add up to 1, and 99.99999 is cut off, not rounded.
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

image, scales = np.full((1, 1, 16, 16), 100, np.uint8), np.float32([1, 1, 1.7, 1.7])


def resized(image, runtime):
    dtype = "uint8" if image.dtype == np.uint8 else "float"
    arguments = f"{dtype}[1,1,16,16] image, float[4] scales"
    node = 'y = Resize<mode = "linear">(image, , scales)'
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> graph ({arguments}) => ({dtype}[a,b,c,d] y) {{ {node} }}'
    )
    onnx.checker.check_model(proto, full_check=True)
    if runtime == "onnxruntime":
        run = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    else:
        run = ReferenceEvaluator(proto)
    return run.run(None, {"image": image, "scales": scales})[0]


theirs, evaluated = resized(image, "onnxruntime"), resized(image, "reference")
floats = resized(image.astype(np.float32), "onnxruntime")
print(f"onnxruntime, uint8: {np.sum(theirs == 99)} pixels of 99, {np.sum(theirs == 100)} of 100")
print(f"onnxruntime, float32: from {floats.min()} to {floats.max()}")
print(f"reference evaluator, uint8: {np.unique(evaluated).tolist()}")
values = [np.unique(image).tolist() for image in (theirs, evaluated, floats.round())]
if values != [[99, 100], [100], [100]]:
    raise SystemExit("the behaviour has changed")
EOF
