"""Losses where ONNX's own suite has no case."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

IMPOSSIBLE = np.float32([[-np.inf, -0.7, -0.7], [-0.1, -np.inf, -2.4], [-1.1, -1.1, -1.1]])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_an_ignored_label_counts_nothing_where_its_loss_is_infinite(reduction):
    attrs = {"reduction": reduction, "ignore_index": 1}
    check_node("NegativeLogLikelihoodLoss", [IMPOSSIBLE, np.int64([0, 1, 2])], attrs, 13)
    check_node("SoftmaxCrossEntropyLoss", [IMPOSSIBLE, np.int64([0, 1, 2])], attrs, 13, n_outputs=2)
