"""Regions of interest that ONNX's own suite has no case of."""

import numpy as np

from tests.models.onnx.helpers import check_node


def test_the_largest_of_a_dark_bin_is_minus_infinity_and_of_an_empty_one_zero():
    x = np.full((1, 1, 4, 4), -np.inf, np.float32)
    rois = np.float32([[0, 0, 3, 3], [-9, -9, -5, -5]])
    want = np.zeros((2, 1, 1, 1), np.float32)
    want[0] = -np.inf
    check_node("MaxRoiPool", [x, np.float32([[0, *roi] for roi in rois])], {"pooled_shape": [1, 1]}, want=[want])


def test_max_roi_pool_is_onnxruntimes():
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
    rois = np.asarray(
        [[0, 0, 0, 10, 8], [1, 2, 1, 7, 6], [0, 4, 4, 4, 4], [1, 9, 7, 30, 20], [1, 12, 12, 30, 20]], np.float32
    )
    check_node("MaxRoiPool", [x, rois], {"pooled_shape": [2, 3]})
    check_node("MaxRoiPool", [x, rois], {"pooled_shape": [3, 2], "spatial_scale": 0.5})
