"""Black boxes: what a callable may give, what it is given, and what is refused by name."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.callable import from_callable
from modeldiff_jax.types import TensorSpec

pytestmark = pytest.mark.default_promotion

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


# Calls that fail and pass


def failing(times, calls):
    def fn(x):
        calls.append(x.copy())
        x += 1  # the next call gets a copy of its own
        if len(calls) <= times:
            raise TimeoutError("503")
        return 2 * x

    return fn


def test_a_call_is_made_again_after_an_error_and_waits_between(monkeypatch):
    waits, calls = [], []
    monkeypatch.setattr(time, "sleep", waits.append)
    model = from_callable(failing(7, calls), (None, 3), retries=7)
    np.testing.assert_array_equal(model(X), 2 * (X + 1))
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert len(calls) == 8
    assert all(np.array_equal(call, X) for call in calls)


@pytest.mark.parametrize("retries", [0, 2])
def test_the_last_error_comes_out(monkeypatch, retries):
    calls = []
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(InvalidInputError, match="TimeoutError: 503") as caught:
        from_callable(failing(99, calls), (None, 3), retries=retries)(X)
    assert len(calls) == retries + 1
    assert "retries" in caught.value.fix


def test_a_wrong_answer_is_not_asked_for_again():
    calls = []

    def fn(x):
        calls.append(x)
        return "cat"

    with pytest.raises(InvalidInputError):
        from_callable(fn, (None, 3), retries=3)(X)
    assert len(calls) == 1


@pytest.mark.types_unchecked("the error is the product's own")
@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
def test_retries_are_a_number_of_calls(retries):
    with pytest.raises(InvalidInputError, match="retries"):
        from_callable(lambda x: x, (None, 3), retries=retries)


# Functions that JAX can trace

WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.ones(2, np.float32)}


def dense(params, x):
    return jnp.tanh(x @ params["w"] + params["b"])


def test_a_traceable_function_keeps_its_gradients_and_weights():
    model = from_callable(dense, (None, 3), traceable=True, params=WEIGHTS)
    assert model.traceable
    assert model.has_gradients
    assert [str(spec) for spec in model.outputs] == ["output: float32[batch, 2]"]
    assert (model.origin.path, model.origin.format) == ("dense", "jax")
    np.testing.assert_allclose(model(X), np.tanh(X @ WEIGHTS["w"] + 1), rtol=1e-6)
    gradient = jax.grad(lambda x: model.apply(model.params, x).sum())(X / 10)
    expected = jax.grad(lambda x: dense(WEIGHTS, x).sum())(X / 10)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    bare = from_callable(lambda x: dense(WEIGHTS, x), (None, 3), traceable=True)
    np.testing.assert_allclose(bare(X), model(X), rtol=1e-6)
    assert jax.tree.leaves(bare.params) == []


def test_models_of_one_function_share_one_program():
    other = {**WEIGHTS, "b": np.zeros(2, np.float32)}
    one, two = (from_callable(dense, (None, 3), traceable=True, params=params) for params in (WEIGHTS, other))
    assert one.apply is two.apply
    assert one.origin.content_sha256 != two.origin.content_sha256
    assert one.origin == from_callable(dense, (None, 3), traceable=True, params=WEIGHTS).origin


def test_the_identity_of_a_function_covers_what_it_closes_over():
    models = [from_callable(lambda x, c=c: x * c, (None, 3), traceable=True) for c in (X[0], X[0], X[1])]
    assert models[0].origin.content_sha256 == models[1].origin.content_sha256 != models[2].origin.content_sha256
    assert models[0].origin.sha256 == ""


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return {"b": x, "a": x.sum(1)}


def test_any_callable_and_any_tree_of_outputs():
    model = from_callable(Unhashable(), (None, 3), traceable=True)
    assert [str(spec) for spec in model.outputs] == ["a: float32[batch]", "b: float32[batch, 3]"]
    np.testing.assert_array_equal(model(X)[0], X.sum(1))


@pytest.mark.parametrize(
    ("fn", "options", "says"),
    [
        (np.asarray, {}, "TracerArrayConversionError"),
        (lambda x: x if x.sum() > 0 else -x, {}, "TracerBoolConversionError"),
        (lambda x: {}, {}, "gives arrays"),
        (lambda x, y: x, {}, "TypeError"),
        (dense, {"params": {"w": "text"}}, "str"),
        (lambda x: x, {"output_spec": (None, 4)}, "float32[batch, 4]"),
        (lambda x: x, {"output_spec": [(None, 3), (None, 3)]}, "2 declared outputs"),
        (lambda x: x, {"retries": 2}, "black boxes"),
    ],
)
def test_what_cannot_be_traced_is_refused(fn, options, says):
    with pytest.raises(InvalidInputError) as caught:
        from_callable(fn, (None, 3), traceable=True, **options)
    assert says in str(caught.value)


def test_params_need_a_traceable_function():
    with pytest.raises(InvalidInputError, match="traceable=True"):
        from_callable(dense, (None, 3), params=WEIGHTS)
