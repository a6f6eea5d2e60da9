#!/usr/bin/env bash
# onnxruntime 1.32.0: pooling with automatic padding forgets the dilations, so the output is too short.
#
# Done: MaxPool and AveragePool (ai.onnx opset 21) of seven numbers, kernel 3, dilation 2, stride 1, auto_pad
# SAME_UPPER.
# Expected: seven numbers. The ONNX documentation of both operators (auto_pad): "SAME_UPPER or SAME_LOWER mean pad the
# input so that `output_shape[i] = ceil(input_shape[i] / strides[i])` for each axis `i`". onnx's shape inference says
# 7.
# Seen: five, as the padding is made for the window without its gaps: the window covers 5 entries, the padding allows
# for 3. The log warns that the result has not the shape onnxruntime itself inferred; the result is given all the
# same.
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

x = np.arange(7, dtype=np.float32)[None, None]
seen = {}
for op in ("MaxPool", "AveragePool"):
    attributes = 'kernel_shape = [3], dilations = [2], auto_pad = "SAME_UPPER"'
    text = f'<ir_version: 10, opset_import: ["": 21]> graph (float[1,1,7] x) => (float[a,b,c] y) {{ y = {op}<{attributes}>(x) }}'
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output[0].type.tensor_type.shape.dim[2].dim_value
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    seen[op] = session.run(None, {"x": x})[0].ravel().tolist()
    print(f"{op} of {x.ravel().tolist()}: {seen[op]}, {len(seen[op])} values; the specification: {inferred} values")
if seen != {"MaxPool": [3, 4, 5, 6, 5], "AveragePool": [2, 2, 3, 4, 4]} or inferred != 7:
    raise SystemExit("the behaviour has changed")
EOF
