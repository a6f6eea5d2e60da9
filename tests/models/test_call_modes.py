"""Models whose shapes depend on data: operator by operator, specialised on an example, bounded."""

import jax
import numpy as np
import pytest
from onnx import TensorProto, helper

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError, NotStaticError
from modeldiff_jax.models.inputs.probed_input import probed_input
from modeldiff_jax.probes.probe_set import ProbeSet
from tests.helpers.onnx_graphs import branch, dense, model, node, tensor, value
from tests.models.onnx.helpers import convert, expected

BOXES, CLASSES = 12, 3


def detector(most=10):
    """Images (1, 3, 16, 16) -> boxes, scores and classes after suppression, as object detectors end."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((BOXES * (4 + CLASSES), 3 * 16 * 16)).astype(np.float32) / 16,
        "form": np.int64([1, BOXES, 4 + CLASSES]),
        "parts": np.int64([4, CLASSES]),
        "most": np.int64([most]),
        "overlap": np.float32([0.3]),
        "least": np.float32([0.5]),
        "box": np.int64([2]),
        "class": np.int64([1]),
        "zero": np.int64([0]),
        "pair": np.int64([0, 2, 1]),
    }
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat w", "raw", transB=1),
        node("Reshape", "raw form", "table"),
        node("Sigmoid", "table", "unit"),
        node("Split", "unit parts", "boxes probabilities", axis=2),
        node("Transpose", "probabilities", "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores most overlap least", "kept"),
        node("Gather", "kept box", "places", axis=1),
        node("Squeeze", "places class", "place"),
        node("Squeeze", "boxes zero", "flat_boxes"),
        node("Gather", "flat_boxes place", "found_boxes", axis=0),
        node("Gather", "kept pair", "where_", axis=1),
        node("Transpose", "scores", "by_place", perm=[0, 2, 1]),
        node("GatherND", "by_place where_", "found_scores"),
        node("Gather", "kept class", "found_classes", axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info("found_boxes", TensorProto.FLOAT, ["found", 4]),
        helper.make_tensor_value_info("found_scores", TensorProto.FLOAT, ["found"]),
        helper.make_tensor_value_info("found_classes", TensorProto.INT64, ["found", 1]),
    ]
    inputs = [value("x", (1, 3, 16, 16))]
    return model(nodes, inputs, outputs, [tensor(name, array) for name, array in constants.items()])


def image(seed):
    return np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)


def counted(threshold=0.0):
    """Returns a model of the mean of the values above a threshold, whose number of rows depends on data."""
    nodes = [
        node("Greater", "x least", "big"),
        node("NonZero", "big", "at"),
        node("Transpose", "at", "places"),
        node("GatherND", "x places", "values"),
        node("ReduceMean", "values", "mean", keepdims=0),
        node("Shape", "values", "count"),
        node("ConstantOfShape", "count", "zeros"),
        node("Add", "zeros mean", "y"),
    ]
    return model(nodes, [value("x", (2, 5))], [value("y")], [tensor("least", np.float32(threshold))])


def test_a_detector_bounded_agrees_with_the_runtime():
    proto = detector()
    bounded = convert(proto).bounded(36)
    assert [str(spec) for spec in bounded.outputs[3:]] == ["kept.mask: bool[36]", "kept.count: int32[]"]
    batch = np.stack([image(seed) for seed in range(4)])
    together = jax.jit(jax.vmap(lambda x: bounded.apply(bounded.params, x)))(batch)
    counts = set()
    for i, x in enumerate(batch):
        *result, mask, count = (part[i] for part in together)
        want = expected(proto, {"x": x})
        counts.add(int(count))
        for output, reference in zip(result, want, strict=True):
            assert len(reference) == count
            np.testing.assert_allclose(np.asarray(output)[mask], reference, rtol=1e-5, atol=1e-6)
    assert len(counts) > 1


def test_the_count_exceeds_the_size_where_rows_are_missing():
    *_, mask, count = convert(detector()).bounded({"kept": 2})(image(0))
    assert count > 2
    assert mask.all()
    assert count == len(expected(detector(), {"x": image(0)})[0])


def test_a_bounded_detector_has_gradients_and_a_ddv():
    bounded = convert(detector()).bounded(36)
    slope = jax.jit(jax.grad(lambda x: bounded.apply(bounded.params, x)[1].sum()))(image(0))
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0
    space = probed_input(bounded).space
    seeds = np.random.default_rng(0).random((6, *space.shape), np.float32)
    probes = ProbeSet(seeds, 1 - seeds, space, "cosine", {"method": "test"})
    assert (md.ddv([bounded, convert(detector()).bounded(36)], probes) > 0).all()


@pytest.mark.parametrize("size", [0, -1, True, 2.5, {"kept": 0}, {"other": 3}, {}, {"kept": 3, "other": 3}])
def test_sizes_must_name_what_is_bounded(size):
    with pytest.raises((InvalidInputError, TypeError)):
        convert(detector()).bounded(size)


def test_a_model_without_such_operators_has_nothing_to_bound():
    with pytest.raises(InvalidInputError, match="without any"):
        convert(dense()).bounded(5)


def test_what_shapes_alone_decide_is_not_bounded():
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "ones", value=tensor("one", np.float32([1]))),
        node("NonZero", "ones", "fixed"),
        node("NonZero", "x", "free"),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("fixed", "free")]
    bounded = convert(model(nodes, [value("x", (4,))], outputs)).bounded(3)
    fixed, free, mask, count = bounded(np.float32([0, 2, 0, 0]))
    np.testing.assert_array_equal(fixed, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(free, [[1, 0, 0]])
    np.testing.assert_array_equal(mask, [True, False, False])
    assert count == 1


@pytest.mark.parametrize("proto", [detector(), counted()], ids=["detector", "counted"])
def test_operator_by_operator_any_values_will_do(proto):
    shape = (1, 3, 16, 16) if proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1 else (2, 5)
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        got = convert(proto).eager(x)
        for output, reference in zip(got if isinstance(got, tuple) else (got,), expected(proto, {"x": x}), strict=True):
            np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-6)


def test_specialised_it_is_right_or_an_error():
    proto = counted()
    rng = np.random.default_rng(0)
    examples = [rng.standard_normal((2, 5)).astype(np.float32) for _ in range(24)]
    special = convert(proto).specialise(examples[0])
    assert not special.traceable
    taken = 0
    for x in examples:
        if np.count_nonzero(x > 0) == np.count_nonzero(examples[0] > 0):
            np.testing.assert_allclose(special(x), expected(proto, {"x": x})[0], rtol=1e-5)
            taken += 1
        else:
            with pytest.raises(InvalidInputError, match="NonZero"):
                special(x)
    assert 1 < taken < 24


def deciding():
    """A branch, a shape and a range that inputs decide."""
    nodes = [
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "up"),
        node("If", "up", "part", then_branch=branch([node("Slice", "x zero_ n", "head")], "head", "p"),
             else_branch=branch([node("Slice", "x n far", "tail")], "tail", "q")),
        node("ReduceSum", "part", "sum", keepdims=0),
        node("Range", "start stop step", "steps"),
        node("Mul", "steps sum", "y"),
    ]  # fmt: skip
    inputs = [value("x", (6,)), value("n", (1,), TensorProto.INT64), value("stop", (), TensorProto.FLOAT)]
    constants = {"zero": np.float32(0), "zero_": np.int64([0]), "far": np.int64([9])}
    constants |= {"start": np.float32(0), "step": np.float32(1)}
    return model(nodes, inputs, [value("y", None)], [tensor(name, array) for name, array in constants.items()])


def test_branches_shapes_and_ranges_are_decided_by_the_example():
    proto, x = deciding(), np.float32([1, 2, 3, -4, 5, 6])
    special = convert(proto).specialise(x, np.int64([2]), np.float32(3))
    for values in (x, 2 * x):
        feeds = {"x": values, "n": np.int64([2]), "stop": np.array(3, np.float32)}
        np.testing.assert_allclose(special(**feeds), expected(proto, feeds)[0], rtol=1e-6)
    for other, what in [
        ({"n": np.int64([3])}, "Slice"),
        ({"stop": np.array(4, np.float32)}, "Range"),
        ({"x": -x}, "If"),
    ]:
        with pytest.raises(InvalidInputError, match=what):
            special(**{"x": x, "n": np.int64([2]), "stop": np.array(3, np.float32)} | other)


def test_a_specialised_model_is_not_traced():
    special = convert(counted()).specialise(np.ones((2, 5), np.float32))
    with pytest.raises(NotStaticError, match="bounded"):
        jax.jit(special.apply)(special.params, np.ones((2, 5), np.float32))


def test_decisions_within_a_loop_are_refused():
    body = helper.make_graph(
        [node("Cast", "v", "n", to=7), node("Unsqueeze", "n zero", "k"), node("Slice", "x zero k", "part"),
         node("ReduceSum", "part", "w", keepdims=0), node("Identity", "go", "on")],
        "body",
        [value("i", (), TensorProto.INT64), value("go", (), TensorProto.BOOL), value("v", ())],
        [value("on", (), TensorProto.BOOL), value("w", ())],
    )  # fmt: skip
    proto = model(
        [node("Loop", "trips yes first", "y", body=body)],
        [value("x", (6,)), value("first", ())],
        [value("y", ())],
        [tensor("trips", np.int64(2)), tensor("yes", np.array(True)), tensor("zero", np.int64([0]))],
    )
    special = convert(proto).specialise(np.ones(6, np.float32), np.float32(2))
    with pytest.raises(NotStaticError, match="Slice"):
        special(np.ones(6, np.float32), np.float32(2))


def test_without_a_mode_the_error_says_how_to_go_on():
    with pytest.raises(NotStaticError, match=r"model.bounded\(\{'kept': size\}\)"):
        convert(detector())(image(0))
