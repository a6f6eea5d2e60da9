"""Grids and regions of interest that ONNX's own suite has no case of."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)
EIGHTHS = (RNG.integers(-16, 17, (1, 30, 5, 2)) / 8).astype(np.float32)  # ends, middles and ties among them
GRIDS = {"anywhere": (2.5 * (2 * RNG.random((1, 30, 5, 2)) - 1)).astype(np.float32), "eighths": EIGHTHS}


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_reach_beyond_the_edges(grid, mode, padding, align_corners):
    x = np.random.default_rng(1).standard_normal((1, 2, 5, 6)).astype(np.float32)
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    check_node("GridSample", [x, GRIDS[grid]], attrs, 20, concrete=False, atol=2e-5)


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
