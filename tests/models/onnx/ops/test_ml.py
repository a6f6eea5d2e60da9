"""`ai.onnx.ml` against onnxruntime."""

import jax
import numpy as np
import pytest
from onnx import numpy_helper

from modeldiff_jax.errors import InvalidModelError
from tests.models.onnx.helpers import assert_same, check_node, convert, expected, node_model

ML = "ai.onnx.ml"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 5)).astype(np.float32)


def check(op, inputs, attrs=None, n_outputs=1, ml_opset=3, want=None):
    options = {"domain": ML, "ml_opset": ml_opset, "concrete": False, "n_outputs": n_outputs, "want": want}
    check_node(op, inputs, attrs, 17, **options, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm):
    check("Normalizer", [X], {"norm": norm})


def test_scaler():
    check("Scaler", [X], {"offset": [0.5], "scale": [2.0]})
    check("Scaler", [X], {"offset": list(map(float, X[0])), "scale": list(map(float, X[1]))})
    check("Scaler", [np.arange(6).reshape(2, 3)], {"offset": [0.5], "scale": [2.0]})


def test_binarizer():
    check("Binarizer", [X], {"threshold": 0.3})


@pytest.mark.parametrize("new", [[9.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
@pytest.mark.parametrize("old", [float("nan"), 2.0])
def test_imputer(new, old):
    x = X.copy()
    x[2, 3] = x[4, 0] = old
    check("Imputer", [x], {"imputed_value_floats": new, "replaced_value_float": old})


def test_imputer_of_integers():
    x = RNG.integers(0, 3, (4, 2))
    check("Imputer", [x], {"imputed_value_int64s": [9, 8], "replaced_value_int64": 1})


def test_features():
    check("ArrayFeatureExtractor", [X, np.int64([3, 0, 3])])
    check("FeatureVectorizer", [X, X[:, :2]], {"inputdimensions": [5, 2]})


@pytest.mark.parametrize("zeros", [0, 1])
def test_one_hot(zeros):
    check("OneHotEncoder", [np.int64([3, 1, 7])], {"cats_int64s": [1, 3, 7], "zeros": zeros})
    check("OneHotEncoder", [np.int64([[3], [9]])], {"cats_int64s": [1, 3, 7]})


def test_label_encoder_of_numbers():
    x = np.int64([[4, 2], [9, 7]])
    check("LabelEncoder", [x], {"keys_int64s": [9, 2, 4], "values_floats": [0.5, 1.5, 2.5], "default_float": -3.0})
    check("LabelEncoder", [x], {"keys_int64s": [9, 2, 4], "values_int64s": [5, 1, 2]})
    check("LabelEncoder", [np.float32([1.5, -1, 2])], {"keys_floats": [1.5, 2.0], "values_int64s": [5, 1]})


POST = pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])


@POST
def test_linear_regressor(post):
    attrs = {"coefficients": list(map(float, X.ravel()[:15])), "targets": 3, "post_transform": post}
    check("LinearRegressor", [X], attrs)
    check("LinearRegressor", [X], attrs | {"intercepts": [0.5, 1.0, -1.0]})


@POST
@pytest.mark.parametrize("rows", [1, 3])
def test_linear_classifier(rows, post):
    if rows == 1 and post.startswith("SOFTMAX"):
        post = "NONE"  # of one score
    attrs = {"coefficients": list(map(float, X.ravel()[: 5 * rows])), "post_transform": post}
    attrs |= {"intercepts": [0.5, 1.0, -1.0][:rows], "classlabels_ints": [7, 3, 9][: max(rows, 2)]}
    check("LinearClassifier", [X], attrs, n_outputs=2)


class Tree:
    """Random trees as the attributes of opsets 1 to 3."""

    def __init__(self, n_trees, depth, modes=("BRANCH_LEQ",), seed=0):
        self.rng, self.modes = np.random.default_rng(seed), modes
        self.rows, self.leaves = [], []
        for tree in range(n_trees):
            self.next = 0
            self.grow(tree, depth)

    def grow(self, tree, depth):
        me, self.next = self.next, self.next + 1
        row = len(self.rows)
        if depth == 0 or (depth < 3 and self.rng.random() < 0.3):
            self.rows.append((tree, me, 0, "LEAF", 0.0, 0, 0, 0))
            self.leaves.append((tree, me))
            return me
        self.rows.append(None)
        value = float(np.float32(self.rng.choice(X.ravel())))
        children = self.grow(tree, depth - 1), self.grow(tree, depth - 1)
        self.rows[row] = (tree, me, int(self.rng.integers(5)), str(self.rng.choice(self.modes)), value, *children, 1)
        return me

    def nodes(self):
        names = ["treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids"]
        names.append("missing_value_tracks_true")
        return {f"nodes_{name}": list(column) for name, column in zip(names, zip(*self.rows, strict=True), strict=True)}

    def weights(self, kind, targets, low=-1.0):
        trees, nodes = zip(*self.leaves, strict=True)
        return {
            f"{kind}_treeids": list(trees),
            f"{kind}_nodeids": list(nodes),
            f"{kind}_ids": [int(self.rng.choice(targets)) for _ in nodes],
            f"{kind}_weights": list(map(float, self.rng.uniform(low, 1, len(nodes)).astype(np.float32) / 4)),
        }


WITH_GAPS = np.where(RNG.random((40, 5)) < 0.1, np.nan, RNG.standard_normal((40, 5))).astype(np.float32)
ALL_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("modes", [("BRANCH_LEQ",), ("BRANCH_GT",), ALL_MODES], ids=["leq", "gt", "all"])
@pytest.mark.parametrize("targets", [1, 3])
def test_tree_regressor(targets, modes, aggregate):
    trees = Tree(4, 5, modes)
    attrs = trees.nodes() | trees.weights("target", range(targets))
    attrs |= {"n_targets": targets, "aggregate_function": aggregate, "base_values": [0.5, 1.0, 2.0][:targets]}
    check("TreeEnsembleRegressor", [WITH_GAPS], attrs)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_tree_classifier_of_several(post):
    trees = Tree(6, 4)
    attrs = trees.nodes() | trees.weights("class", range(3))
    attrs |= {"classlabels_int64s": [5, 2, 9], "post_transform": post}
    check("TreeEnsembleClassifier", [WITH_GAPS], attrs, n_outputs=2)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("low", [0.0, -1.0], ids=["probabilities", "scores"])
def test_tree_classifier_of_two(low, post):
    if low == 0 and post == "LOGISTIC":
        post = "NONE"
    trees = Tree(6, 4)
    attrs = trees.nodes() | trees.weights("class", [0], low)
    check("TreeEnsembleClassifier", [WITH_GAPS], attrs | {"classlabels_int64s": [5, 2], "post_transform": post}, 2)


def test_string_labels_are_places_in_a_list_under_jit():
    trees = Tree(3, 3)
    attrs = trees.nodes() | trees.weights("class", range(3)) | {"classlabels_strings": ["a", "b", "c"]}
    proto = node_model("TreeEnsembleClassifier", [X], attrs, n_outputs=2, domain=ML)
    labels, scores = expected(proto, {"x0": X})
    result, output = jax.jit(convert(proto).apply)({}, X)
    assert result.words == ("a", "b", "c")
    assert result.indices.dtype == np.int32
    assert np.asarray(result).tolist() == list(labels)
    assert_same(output, [scores])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "no root leads to"),
        ({"nodes_truenodeids": [2, 0, 0]}, "2 roots for 1"),
        ({"nodes_truenodeids": [99, 0, 0]}, "lies within"),
        ({"nodes_nodeids": [0, 1, 1]}, "one number"),
        ({"nodes_featureids": [17, 0, 0]}, "feature"),
        ({"nodes_featureids": [-1, 0, 0]}, "feature"),
        ({"nodes_modes": ["BRANCH_XX", "LEAF", "LEAF"]}, "BRANCH_XX"),
        ({"nodes_values": [1.0]}, "same nodes"),
        ({"target_ids": [0, 7]}, "target"),
        ({"target_nodeids": [1, 9]}, "lies within"),
        ({"nodes_treeids": [0, 0, 1]}, "lies within"),
    ],
)
def test_malformed_trees_are_refused(change, says):
    attrs = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [1, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    check("TreeEnsembleRegressor", [X], attrs)
    model = convert(node_model("TreeEnsembleRegressor", [X], attrs | change, domain=ML))
    with pytest.raises(InvalidModelError, match=says):
        model.apply(model.params, X)


def ensemble(seed, n_targets, members=False):
    """Random trees as the attributes of opset 5."""
    rng = np.random.default_rng(seed)
    nodes, leaves, roots, sets = [], [], [], []

    def grow(depth):
        if depth == 0 or (depth < 3 and rng.random() < 0.3):
            leaves.append((float(np.float32(rng.standard_normal())), int(rng.integers(n_targets))))
            return len(leaves) - 1, 1
        me = len(nodes)
        mode = int(rng.integers(6 + members))
        if mode == 6:
            sets.append((me, rng.choice(np.arange(1, 10), 3, replace=False)))
        nodes.append(None)
        (true, true_leaf), (false, false_leaf) = grow(depth - 1), grow(depth - 1)
        nodes[me] = (mode, rng.choice(X.ravel()), int(rng.integers(5)), true, false, true_leaf, false_leaf, 1)
        return me, 0

    for _ in range(4):
        roots.append(grow(4)[0])
    modes, splits, features, *children, missing = zip(*nodes, strict=True)
    names = [f"nodes_{name}" for name in ("truenodeids", "falsenodeids", "trueleafs", "falseleafs")]
    weights, targets = zip(*leaves, strict=True)
    attrs = dict(zip(names, map(list, children), strict=True)) | {
        "nodes_modes": numpy_helper.from_array(np.uint8(modes)),
        "nodes_splits": numpy_helper.from_array(np.float32(splits)),
        "nodes_featureids": list(features),
        "nodes_missing_value_tracks_true": list(missing),
        "leaf_weights": numpy_helper.from_array(np.float32(weights)),
        "leaf_targetids": list(targets),
        "tree_roots": roots,
        "n_targets": n_targets,
    }
    if members:
        flat = [v for _, values in sorted(sets, key=lambda s: s[0]) for v in (*values, np.nan)]
        attrs["membership_values"] = numpy_helper.from_array(np.float32(flat))
    return attrs


@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_tree_ensemble(aggregate):
    attrs = ensemble(0, 2) | {"aggregate_function": aggregate}
    check("TreeEnsemble", [WITH_GAPS], attrs, ml_opset=5)


@pytest.mark.parametrize("post", [0, 1, 2])
def test_tree_ensemble_that_asks_for_sets(post):
    x = RNG.integers(0, 12, (40, 5)).astype(np.float32)  # onnxruntime has sets of whole numbers only
    attrs = ensemble(1, 3, members=True)
    exchanged = {1: 2, 2: 1}.get(post, post)  # onnxruntime numbers softmax and logistic the other way round
    reference = node_model("TreeEnsemble", [x], attrs | {"post_transform": exchanged}, 17, 1, "ai.onnx.ml", ml_opset=5)
    check("TreeEnsemble", [x], attrs | {"post_transform": post}, ml_opset=5, want=expected(reference, {"x0": x}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tree_roots": [99]}, "root"),
        ({"nodes_truenodeids": [9]}, "leaf"),
        ({"nodes_trueleafs": [0]}, "two parents|no root"),
        ({"nodes_featureids": [5]}, "feature"),
        ({"leaf_targetids": [0, 4]}, "target"),
        ({"leaf_targetids": [0]}, "same nodes"),
        ({"nodes_modes": numpy_helper.from_array(np.uint8([7]))}, "mode"),
        ({"nodes_modes": numpy_helper.from_array(np.uint8([6]))}, "has a set"),
        ({"aggregate_function": 4}, "aggregate_function"),
    ],
)
def test_malformed_ensembles_are_refused(change, says):
    attrs = {
        "nodes_modes": numpy_helper.from_array(np.uint8([0])),
        "nodes_splits": numpy_helper.from_array(np.float32([0.5])),
        "nodes_featureids": [1],
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [1],
        "nodes_trueleafs": [1],
        "nodes_falseleafs": [1],
        "leaf_weights": numpy_helper.from_array(np.float32([1, 2])),
        "leaf_targetids": [0, 0],
        "tree_roots": [0],
        "n_targets": 1,
    }
    good, bad = (convert(node_model("TreeEnsemble", [X], a, 17, 1, ML, 5)) for a in (attrs, attrs | change))
    np.testing.assert_array_equal(good.apply({}, X)[:, 0], np.where(X[:, 1] <= 0.5, 1, 2))
    with pytest.raises(InvalidModelError, match=says):
        bad.apply({}, X)


def test_zip_map_gives_the_scores():
    model = convert(node_model("ZipMap", [X], {"classlabels_int64s": [1, 2, 3, 4, 5]}, domain=ML))
    np.testing.assert_array_equal(model.apply(model.params, X), X)
