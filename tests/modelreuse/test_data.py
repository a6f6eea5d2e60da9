"""Rendered tasks have their labels and shapes, and are equal for equal seeds."""

import numpy as np
import pytest

from bench.modelreuse.data import CLASSES, make_task


@pytest.mark.parametrize("name", ["objects", "digits"])
def test_same_seed_same_images_other_seed_others(name):
    one, again, other = (make_task(name, 60, 20, seed) for seed in (0, 0, 1))
    assert one.train.x.shape == (60, 32, 32, 3)
    assert one.train.x.dtype == np.uint8
    np.testing.assert_array_equal(one.train.x, again.train.x)
    np.testing.assert_array_equal(one.test.y, again.test.y)
    assert (one.train.x != other.train.x).any()


@pytest.mark.parametrize("name", ["objects", "digits"])
def test_labels_fill_the_label_space(name):
    task = make_task(name, 600, 20, 0)
    assert task.classes == CLASSES[name]
    assert set(task.train.y) == set(range(task.classes))


def test_pictures_are_cut_from_separate_parts():
    pytest.importorskip("skimage", reason="scikit-image, which holds the pictures, is not installed")
    task = make_task("pictures", 200, 40, 0)
    assert task.train.x.shape == (200, 32, 32, 3)
    assert task.train.x.std(axis=(1, 2, 3)).min() > 0
