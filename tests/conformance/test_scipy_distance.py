"""scipy's tests of its distances, from the installed scipy, run against `modeldiff_jax.compat.distance`.

The functions of one pair are scipy's there as here; what these tests try is `cdist` and `pdist`, beside everything the
module checks them against.
"""

import importlib.util
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.spatial.tests

from modeldiff_jax.compat import distance

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.long]


def suite():
    """Loads scipy's test module, importing our functions under scipy's names."""
    path = Path(scipy.spatial.tests.__file__).with_name("test_distance.py")
    spec = importlib.util.spec_from_file_location("scipy_distance_suite", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.multiple(scipy.spatial.distance, **{name: getattr(distance, name) for name in distance.__all__}):
        spec.loader.exec_module(module)
    return module


SUITE = suite()
metric = SUITE.metric  # the fixture
globals().update({name: value for name, value in vars(SUITE).items() if name.lower().startswith("test")})


def test_every_name_of_scipy_is_here():
    assert sorted(distance.__all__) == sorted(scipy.spatial.distance.__all__)


def test_the_suite_calls_ours():
    assert SUITE.cdist is distance.cdist
    assert SUITE.pdist is distance.pdist
    assert not np.shares_memory(distance.cdist([[1.0]], [[2.0]]), scipy.spatial.distance.cdist([[1.0]], [[2.0]]))
