"""Black boxes: what a callable may give, what it is given, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.callable import from_callable
from modeldiff_jax.types import TensorSpec

X = np.arange(12, dtype=np.float32).reshape(4, 3)
DOUBLE = 2 * X

own_error = pytest.mark.types_unchecked("the error is the product's own")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (lambda x: 2 * x, DOUBLE),
        (lambda x: jnp.asarray(x) * 2, DOUBLE),
        (lambda x: (2 * x).tolist(), DOUBLE),
        (lambda x: (2 * x[:, 0]).tolist(), DOUBLE[:, 0]),
        (lambda x: (2 * x,), DOUBLE),
        (lambda x: [2 * x, x], (DOUBLE, X)),
        (lambda x: (x, 2 * x), (X, DOUBLE)),
        (lambda x: {"b": x, "a": 2 * x}, (DOUBLE, X)),
        (lambda x: {"scores": (2 * x).tolist()}, DOUBLE),
        (lambda x: x > 3, X > 3),
    ],
)
def test_outputs(answer, wanted):
    model = from_callable(answer, (None, 3))
    given = model(X)
    assert isinstance(given, tuple) == isinstance(wanted, tuple)
    for one, two in zip(_several(given), _several(wanted), strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_array_equal(one, two)


def _several(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_it_is_a_black_box():
    model = from_callable(lambda x: x, (None, 3), name="api")
    assert not model.traceable
    assert not model.has_gradients
    assert jax.tree.leaves(model.params) == []
    assert (model.origin.path, model.origin.format, model.origin.sha256) == ("api", "callable", "")
    assert model.outputs == ()


def test_the_callable_gets_numpy_of_the_declared_types_that_it_may_change():
    seen = []

    def fn(tokens, mask):
        seen.extend([tokens, mask])
        mask += 1
        return mask

    spec = [jax.ShapeDtypeStruct((4, 3), np.int64), TensorSpec("mask", ("n", 3), np.dtype(np.float32))]
    mask = np.zeros((4, 3), np.float32)
    result = from_callable(fn, spec)(X.astype(np.int32), mask=mask)
    assert [type(a) for a in seen] == [np.ndarray, np.ndarray]
    assert [a.dtype for a in seen] == [np.int64, np.float32]
    assert mask.sum() == 0
    assert result.sum() == 12


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: None, "None"),
        (lambda x: [[1.0], [1.0, 2.0], [3.0], [4.0]], "different lengths"),
        (lambda x: ["cat"] * len(x), "dtype <U3"),
        (lambda x: x.astype(complex), "complex"),
        (lambda x: {"a": x, "b": None}, "output 'b': None"),
        (lambda x: x[:2], "each of its 4"),
        (lambda x: 3.0, "each of its 4"),
        (lambda x: x.T, "each of its 4"),
        (lambda x: list(x), "np.stack"),
        (lambda x: (), "at least one"),
        (lambda x: {}, "at least one"),
        (lambda x: {1, 2}, "set"),
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x, y: x, "TypeError"),
    ],
)
def test_a_wrong_answer_names_the_callable(answer, says):
    with pytest.raises(InvalidInputError) as caught:
        from_callable(answer, (None, 3), name="their-api")(X)
    assert says in str(caught.value)
    assert "their-api" in str(caught.value)


def test_the_exception_of_the_callable_is_kept():
    def fn(x):
        raise TimeoutError("no answer in 30 s")

    with pytest.raises(InvalidInputError, match="fn") as caught:
        from_callable(fn, (None, 3))(X)
    assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize(
    ("declared", "answer", "says"),
    [
        ((None, 3), lambda x: x, None),
        ((None, 3), lambda x: x.tolist(), None),
        ([(None, 3), (None,)], lambda x: [x.tolist(), x[:, 0].tolist()], None),
        ((None, 4), lambda x: x, "float32[batch, 4]"),
        ((None, 3, 1), lambda x: x, "float32[batch, 3, 1]"),
        ([(None, 3), (None, 3)], lambda x: (x,), "2 declared outputs"),
    ],
)
def test_declared_outputs_are_checked(declared, answer, says):
    model = from_callable(answer, (None, 3), output_spec=declared)
    assert len(model.outputs) == (2 if isinstance(declared, list) else 1)
    if says is None:
        assert len(_several(model(X))) == len(model.outputs)
    else:
        with pytest.raises(InvalidInputError) as caught:
            model(X)
        assert says in str(caught.value)


def test_inputs_are_checked_before_the_callable_is_asked():
    model = from_callable(lambda x: pytest.fail("asked"), (None, 3))
    with pytest.raises(InvalidInputError, match="shape"):
        model(np.ones((4, 5), np.float32))


@own_error
@pytest.mark.parametrize("spec", [None, 3, [], "3", [(None, 3), "x"], [3.5], (True, 3)])
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(InvalidInputError, match="input_spec"):
        from_callable(lambda x: x, spec)


def test_two_inputs_of_one_name_are_refused():
    one = TensorSpec("x", ("n", 3), np.dtype(np.float32))
    with pytest.raises(InvalidInputError, match="x, x"):
        from_callable(lambda x: x, [one, one])


@own_error
def test_only_a_callable_is_one():
    with pytest.raises(InvalidInputError, match="ndarray"):
        from_callable(X, (None, 3))
