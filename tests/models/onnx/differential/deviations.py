"""Variations on which onnxruntime and this package rightly differ, by cause; one no longer needed fails a test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Deviation:
    """Variations that may differ.

    Attributes:
      ops: operators.
      cause: why, and what decides: the specification's text, the definition, onnx's reference evaluator.
      example: (case of the suite, seed) of a variation that differs for this cause; None where that depends on the
        processor, so that nothing can be said of whether it is needed.
      holds: (variation, the difference in words) -> whether this is one of them.
      reference: whether onnx's reference evaluator has the last word; then it must give what this package gives.
    """

    ops: frozenset[str]
    cause: str
    example: tuple[str, int] | None
    holds: Callable[[Any, str], bool]
    reference: bool = False

    def covers(self, variation, off):
        """Whether this explains a difference."""
        return variation.op in self.ops and self.holds(variation, off)


def _deviation(ops, cause, example, holds, reference=False):
    return Deviation(frozenset(ops.split()), cause, example, holds, reference)


def _is_training(variation, off):
    return "inference mode" in off


def _labels_are_outside(variation, off):
    scores, labels = variation.inputs[:2]
    ignored = variation.attributes.get("ignore_index")
    outside = (labels < 0) | (labels >= scores.shape[1])
    return bool(np.any(outside & (labels != ignored)))


def _condition_is_longer(variation, off):
    x, condition = variation.inputs
    axis = variation.attributes.get("axis")
    return condition.size > (x.size if axis is None else x.shape[axis])


def _is_out_of_range(variation, off):
    return any(v is not None and v.dtype.kind == "f" for v in variation.inputs) and "int" in off


# the specification leaves the result open, or the input is not one of the operator
_LEFT_OPEN = (
    _deviation(
        "Bernoulli Multinomial RandomNormalLike RandomUniformLike",
        "the numbers a generator draws are the runtime's own",
        ("test_bernoulli_double", 0),
        lambda v, off: "values" in off,
    ),
    _deviation(
        "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
        "the specification: a label is a class or ignore_index; here some are neither",
        ("test_sce_NCd1_mean_weight_negative_ii", 0),
        _labels_are_outside,
    ),
    _deviation(
        "Cast CastLike Pow",
        "the specification: a float out of an integer type's range has no defined value",
        None,
        _is_out_of_range,
    ),
    _deviation(
        "TopK",
        "the specification: unsorted entries come in any order; here they are always in order",
        ("test_top_k_same_values", 0),
        lambda v, off: v.attributes.get("sorted", 1) != 1,
    ),
    _deviation(
        "CumSum CumProd",
        "the specification: the axis is one number",
        ("test_cumprod_1d_reverse", 0),
        lambda v, off: v.inputs[1].size != 1,
    ),
    _deviation(
        "GatherND",
        "the specification: data and indices have the same batch dimensions",
        ("test_gathernd_example_float32", 2),
        lambda v, off: v.inputs[0].shape[: (n := v.attributes.get("batch_dims", 0))] != v.inputs[1].shape[:n],
    ),
    _deviation(
        "BatchNormalization",
        "the specification: only training mode, which is 1, gives running statistics",
        ("test_batchnorm_epsilon_training_mode", 4),
        lambda v, off: v.n_outputs > 1 and v.attributes.get("training_mode", 0) != 1,
    ),
    _deviation(
        "ReverseSequence",
        "the specification: time and batch axes are 0 and 1, not counted from the end",
        ("test_reversesequence_time", 1),
        lambda v, off: min(v.attributes.get("batch_axis", 1), v.attributes.get("time_axis", 0)) < 0,
    ),
)

# refused here, with a reason; onnxruntime gives something
_REFUSED = (
    _deviation(
        "Dropout",
        "dropping in training mode is random, and refused",
        ("test_training_dropout_default", 0),
        _is_training,
    ),
    _deviation(
        "Compress",
        "a condition that holds beyond the end of its axis is refused here, as by numpy, and cut off by onnxruntime",
        ("test_compress_0", 0),
        _condition_is_longer,
    ),
    _deviation(
        "AveragePool MaxPool LpPool",
        "a window one step too long for its input is refused here; onnxruntime gives an empty result",
        ("test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False", 8),
        lambda v, off: "pooling window must fit" in off,
    ),
    _deviation(
        "Attention",
        "a scale is not negative",
        ("test_attention_local_window_ext_cache_rank4_batch_mask", 2),
        lambda v, off: v.attributes.get("scale", 1) < 0,
    ),
    _deviation(
        "MeanVarianceNormalization",
        "an axis named twice is refused",
        ("test_mvn", 0),
        lambda v, off: "must be named once" in off,
    ),
    _deviation(
        "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
        "there is no loss without a class",
        ("test_nllloss_NCd1d2d3d4d5_mean_weight", 0),
        lambda v, off: v.inputs[0].shape[1] == 0,
    ),
    _deviation(
        "TfIdfVectorizer",
        "an n-gram without an index is refused",
        ("test_tfidfvectorizer_tf_onlybigrams_levelempty", 2),
        lambda v, off: "has an index" in off,
    ),
    _deviation(
        "SplitToSequence",
        "lengths that do not fill the axis are refused, also where the parts would be empty",
        ("test_split_to_sequence_2", 2),
        lambda v, off: "fill its axis" in off,
    ),
    _deviation(
        "RNN GRU LSTM",
        "a clip threshold is not negative",
        ("test_simple_rnn_reverse", 1),
        lambda v, off: v.attributes.get("clip", 0) < 0,
    ),
    _deviation(
        "TreeEnsemble",
        "a tree whose nodes or leaves do not exist is refused",
        ("test_ai_onnx_ml_tree_ensemble_set_membership", 5),
        lambda v, off: "refused: InvalidModelError" in off,
    ),
    _deviation(
        "DFT",
        "a transform over nothing is refused",
        ("test_dft_irfft_opset19", 5),
        lambda v, off: "at least one entry" in off,
    ),
    _deviation(
        "LpPool",
        "there is no p-norm of p 0 or less",
        ("test_lppool_2d_same_lower", 10),
        lambda v, off: v.attributes.get("p", 2) <= 0,
    ),
    _deviation(
        "Attention",
        "the specification: softmax_precision is a type of floats; others are refused here and ignored by onnxruntime",
        ("test_attention_4d_attn_mask_4d", 0),
        lambda v, off: v.attributes.get("softmax_precision", 1) not in (1, 10, 11, 16),
    ),
)

# onnxruntime does not give what the specification says
_OF_THE_RUNTIME = (
    _deviation(
        "Cast CastLike",
        "onnxruntime writes no output where `saturate` is neither 0 nor 1 and the type is no 8-bit float",
        ("test_cast_FLOAT_to_DOUBLE", 0),
        lambda v, off: v.attributes.get("saturate", 1) not in (0, 1),
        reference=True,
    ),
    _deviation(
        "StringSplit",
        "onnxruntime strips the end of the last part; the reference evaluator and Python's split keep it",
        ("test_string_split_empty_string_delimiter", 1),
        lambda v, off: v.attributes.get("maxsplit") is not None and not v.attributes.get("delimiter"),
        reference=True,
    ),
    _deviation(
        "AveragePool LpPool MaxPool",
        "onnxruntime leaves dilations out of automatic padding",
        ("test_maxpool_3d_dilations", 4),
        lambda v, off: v.attributes.get("auto_pad", b"")[:4] == b"SAME" and "dilations" in v.attributes,
        reference=True,
    ),
    _deviation(
        "Resize",
        "onnxruntime copies a crop whose size is that of the whole, as a policy may make it",
        ("test_resize_tf_crop_and_resize_extrapolation_value", 0),
        lambda v, off: v.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize",
        reference=True,
    ),
    _deviation(
        "Shrink",
        "integers beyond 2**24 go through float32 in onnxruntime",
        ("test_shrink_hard", 3),
        lambda v, off: v.inputs[0].dtype.kind in "iu" and np.abs(v.inputs[0].astype(np.float64)).max(initial=0) > 2**24,
    ),
    _deviation(
        "QLinearMatMul MatMulInteger",
        "a sum of nothing is 0, whose quantised value is the zero point; onnxruntime writes no output",
        ("test_qlinearmatmul_2D_uint8_float32", 0),
        lambda v, off: v.inputs[0].size == 0,
    ),
    _deviation(
        "Attention",
        "onnxruntime's causal mask is the least number of the other mask's type, which for integers hides nothing",
        ("test_attention_4d_attn_mask_4d_causal", 10),
        lambda v, off: (
            v.attributes.get("is_causal") == 1 and v.inputs[3] is not None and v.inputs[3].dtype.kind in "iu"
        ),
    ),
    _deviation(
        "Attention",
        "onnxruntime's causal mask is the least finite number where the definition has -inf",
        ("test_attention_4d_with_past_and_present_qk_matmul_bias", 0),
        lambda v, off: "np.float32(-inf) for np.float32(-3.4028235e+38)" in off,
        reference=True,
    ),
)

DEVIATIONS = (*_LEFT_OPEN, *_REFUSED, *_OF_THE_RUNTIME)
