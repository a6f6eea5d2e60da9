#!/usr/bin/env bash
# ai-edge-litert 2.3.0: the reference kernel of an int8 SUM is wrong as soon as a negative entry meets a carry.
#
# Done: a model of one operator, SUM over the entries of an int8 vector, scale 1 and zero point 0 in and out, run with
# the default kernels, the optimised ones without delegates, and the reference ones (OpResolverType.BUILTIN_REF).
# Expected: the sum, 20 + (-10) = 10, in all three. The docstring of OpResolverType says that BUILTIN_REF is "the op
# resolver for built-in ops with reference kernel implementation", "generally used for testing and debugging": the one
# to check others against. The TensorFlow Lite 8-bit quantization specification defines real = (int8 - zero point) *
# scale.
# Seen: both others give the sum; the reference gives -1 for 20 + (-10) and for -20 + (-10), and 30 for 20 + 10.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
venv/bin/python - <<'EOF'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def tensor(name, shape, dtype, buffer, quantized):
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, shape, dtype, buffer
    if quantized:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [1.0], [0]
    return made


def model_of_sum(length):
    axis = schema.BufferT()
    axis.data = np.frombuffer(np.int32([1]).tobytes(), np.uint8)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SUM
    code.version = 2  # the first with int8
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
    operator.builtinOptions = schema.ReducerOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [1, length], schema.TensorType.INT8, 0, True),
        tensor("axis", [1], schema.TensorType.INT32, 1, False),
        tensor("y", [1], schema.TensorType.INT8, 0, True),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT(), axis], [code], [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def result(x, kernels):
    interpreter = Interpreter(model_content=model_of_sum(len(x)), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.int8([x]))
    interpreter.invoke()
    return int(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])


seen = {}
for x in ([20, 10], [20, -10], [-10, 20], [-20, -10]):
    kinds = ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
    seen[tuple(x)] = [result(x, OpResolverType[kind]) for kind in kinds]
    print(f"sum of {x}: {sum(x)}; default, without delegates, reference: {seen[tuple(x)]}")
if seen != {(20, 10): [30, 30, 30], (20, -10): [10, 10, -1], (-10, 20): [10, 10, -1], (-20, -10): [-30, -30, -1]}:
    raise SystemExit("the behaviour has changed")
EOF
