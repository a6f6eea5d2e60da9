"""scikit-learn's checks of estimators, from the installed scikit-learn, run against our `NearestNeighbors`."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from modeldiff_jax.compat.neighbors import NearestNeighbors

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.long,
    pytest.mark.types_unchecked("some checks pass wrong types"),
]


@parametrize_with_checks([NearestNeighbors()])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)
