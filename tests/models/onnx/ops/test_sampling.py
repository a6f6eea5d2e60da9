"""Regions of interest that ONNX's own suite has no case of."""

import numpy as np

from tests.models.onnx.helpers import check_node


def test_max_roi_pool_is_onnxruntimes():
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
    rois = np.asarray(
        [[0, 0, 0, 10, 8], [1, 2, 1, 7, 6], [0, 4, 4, 4, 4], [1, 9, 7, 30, 20], [1, 12, 12, 30, 20]], np.float32
    )
    check_node("MaxRoiPool", [x, rois], {"pooled_shape": [2, 3]})
    check_node("MaxRoiPool", [x, rois], {"pooled_shape": [3, 2], "spatial_scale": 0.5})
