"""Values on the host stay there, traced ones are traced, and narrow floats are computed in float32."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph import values
from modeldiff_jax.models.graph.values import in_float32


def test_numpy_is_for_concrete_values_alone():
    host, device = np.ones(2), jnp.ones(2)
    assert values.concrete(host, None, 3)
    assert not values.concrete(host, device)
    assert values.xp(host, None) is np
    assert values.xp(host, device) is jnp
    assert values.known(device)
    jax.jit(lambda x: values.known(x) and pytest.fail("a tracer's numbers cannot be read"))(device)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_evaluated_in_float32(dtype):
    calls = []

    @in_float32
    def norm(x, y, /, *, scale=1.0):
        """A documented operator."""
        calls.append((x.dtype, y.dtype))
        return scale * (x * x).sum(), y, np.int64(3)

    norms = norm(jnp.full(4, 300, dtype), np.ones(2, np.int8), scale=0.1)
    assert calls == [(np.float32, np.int8)]
    assert [np.dtype(result.dtype) for result in norms] == [dtype, np.int8, np.int64]
    assert float(norms[0]) == pytest.approx(36_000, rel=1e-2)
    assert norm.__name__ == "norm"
    assert norm.__doc__ == "A documented operator."


def test_results_have_the_type_of_the_first_float():
    add = in_float32(lambda index, x, y: x + y)
    assert add(np.int32(1), np.float32(1), np.float16(2)).dtype == np.float32
    assert add(np.int32(1), np.float16(1), np.float32(2)).dtype == np.float16
    assert add(np.int32(1), np.float64(1), np.float64(2)).dtype == np.float64


@pytest.mark.parametrize("module", [np, jnp])
def test_division_and_saturation_on_both_sides(module):
    x = module.asarray([-300.0, 2.5, 300.0], np.float32)
    np.testing.assert_array_equal(values.divide(x, np.float32(2.5)), np.float32([-120, 1, 120]))
    np.testing.assert_array_equal(values.saturate(module.rint(x), np.dtype(np.int8)), np.int8([-128, 2, 127]))
    np.testing.assert_array_equal(
        values.add_at(x, np.asarray([0, 0]), np.float32([1, 2])), np.float32([-297, 2.5, 300])
    )


def test_axes():
    assert values.axis_index(-1, 3) == 2
    assert values.axis_indices(np.asarray([0, -1]), 3) == (0, 2)
    with pytest.raises(InvalidInputError, match="within"):
        values.axis_index(3, 3)
    with pytest.raises(InvalidInputError, match="once"):
        values.axis_indices([1, -2], 3)


def test_a_traced_axis_chooses_among_all():
    x = np.arange(6.0).reshape(2, 3)
    flip = jax.jit(lambda axis: values.along_axis(lambda index: jnp.flip(x, index), axis, 2))
    np.testing.assert_array_equal(flip(-1), np.flip(x, 1))
    np.testing.assert_array_equal(flip(0), np.flip(x, 0))
