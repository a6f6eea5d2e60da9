"""Probe sets made on a model: attack, effort and origin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError, NonFiniteError
from modeldiff_jax.models.inputs.probed_input import probed_input
from modeldiff_jax.models.inputs.space import generic_space
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.effort import BUDGET, FLOPS_A_VALUE, effort
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.types import TensorSpec
from tests.helpers.jax_models import mlp

own_error = pytest.mark.types_unchecked("the error is the product's own")

FAST = {"n_pairs": 8, "n_steps": 2}


def with_outputs(change, components=5, name="changed"):
    """Returns the small network with its logits passed through `change`."""
    inner = mlp(0, classes=components)

    def apply(params, x):
        return change(inner.apply(params, x))

    return Model(apply, inner.params, inner.inputs, inner.outputs, Origin(name, "test", "ab" * 32))


def black_box(shape=(8, 8, 1), dtype="float32", function=None):
    """Returns a black box, and the list of its batch sizes so far."""
    batches = []

    def apply(params, x):
        batches.append(len(x))
        flat = np.asarray(x).reshape(len(x), -1).astype(np.float64)
        return function(flat) if function else np.tanh(flat @ np.cos(np.arange(flat.shape[1] * 3)).reshape(-1, 3))

    inputs = (TensorSpec("x", ("n", *shape), np.dtype(dtype)),)
    outputs = (TensorSpec("y", ("n", 3), np.dtype(np.float32)),)
    return Model(apply, {}, inputs, outputs, Origin("remote", "callable"), traceable=False), batches


def test_a_model_with_gradients_is_attacked_by_them_and_the_origin_records_it():
    model = mlp(0)
    probes = make_probes(model, key=5, **FAST)
    assert len(probes) == 8
    assert probes.metric == "cosine"
    assert probes.space == probed_input(model).space
    assert np.abs(probes.partners - probes.seeds).max() <= 0.1 + 1e-6
    origin = dict(probes.origin)
    assert origin.pop("seeds").startswith("built-in")
    assert origin == {
        "method": "pgd",
        "eps": 0.1,
        "direction": "away",
        "step": 0.1,
        "steps": 2,
        "key": 5,
        "model": "mlp-0",
        "model_sha256": model.origin.sha256,
        "queries": 8,
    }


@pytest.mark.parametrize("key", [0, 7, jax.random.key(7), jax.random.PRNGKey(3)])
@pytest.mark.parametrize("method", ["pgd", "search"])
def test_the_key_decides_the_probes(key, method):
    first, again = (make_probes(mlp(0), key=key, method=method, **FAST) for _ in range(2))
    assert first.probe_set_id == again.probe_set_id
    assert first.probe_set_id != make_probes(mlp(0), key=8, method=method, **FAST).probe_set_id


@pytest.mark.parametrize(
    ("change", "direction"),
    [(lambda y: y, "away"), (jax.nn.softmax, "toward"), (jax.nn.sigmoid, "toward"), (jax.nn.log_softmax, "away")],
)
def test_probabilities_are_driven_toward_the_others_and_logits_away(change, direction):
    probes = make_probes(with_outputs(change), **FAST)
    assert probes.origin["direction"] == direction
    assert make_probes(with_outputs(change), direction="away", **FAST).origin["direction"] == "away"


def test_probabilities_move_further_toward_the_others_than_away():
    model = with_outputs(lambda y: jax.nn.softmax(8 * y))
    moved = {}
    for direction in ("toward", "away"):
        probes = make_probes(model, direction=direction, n_pairs=20, n_steps=10)
        before, after = model(probes.seeds), model(probes.partners)
        moved[direction] = float(jnp.mean(jnp.linalg.norm(before - after, axis=1)))
    assert moved["toward"] > 1.5 * moved["away"]


@pytest.mark.parametrize(("components", "metric"), [(1, "euclidean"), (2, "cosine")])
def test_one_component_is_measured_by_its_difference(components, metric):
    assert make_probes(mlp(0, classes=components), **FAST).metric == metric
    assert make_probes(mlp(0, classes=components), metric="euclidean", **FAST).metric == "euclidean"


@pytest.mark.parametrize("budget", [33, 100, 257])
def test_a_black_box_is_searched_within_its_budget(budget):
    model, batches = black_box()
    probes = make_probes(model, query_budget=budget)
    assert probes.origin["method"] == "search"
    assert probes.origin["queries"] == sum(batches) <= budget
    assert probes.origin["steps"] >= 5
    assert (probes.partners != probes.seeds).any()


def test_rounds_of_the_search_can_be_given():
    model, batches = black_box()
    probes = make_probes(model, n_pairs=6, n_steps=3)
    assert sum(batches) == probes.origin["queries"] == 6 + 2 * 6 * 3
    assert probes.origin["steps"] == 3


def test_tokens_are_searched_within_the_vocabulary():
    model, _ = black_box(shape=(32,), dtype="int32")
    probes = make_probes(model, **FAST)
    assert probes.origin["method"] == "search"
    assert probes.partners.dtype == np.int32
    assert probes.partners.min() >= 0
    assert probes.partners.max() <= 255


def test_all_of_few_seeds_are_used_unless_n_pairs_is_given():
    seeds = np.random.default_rng(0).uniform(0, 1, (9, 8, 8, 1)).astype(np.float32)
    assert len(make_probes(mlp(0), seeds=seeds, n_steps=1)) == 9
    with pytest.raises(InvalidInputError, match="9 seeds"):
        make_probes(mlp(0), seeds=seeds, n_pairs=10, n_steps=1)


def test_models_of_one_function_share_the_compiled_attack():
    traces = []
    inner = mlp(0)

    def apply(params, x):
        traces.append(x.shape)
        return inner.apply(params, x)

    models = [Model(apply, mlp(seed).params, inner.inputs, inner.outputs, Origin("m", "test")) for seed in (0, 1)]
    first = make_probes(adapt(models[0]), **FAST)
    adapter = adapt(models[1])
    once = len(traces)
    assert make_probes(adapter, **FAST).probe_set_id != first.probe_set_id
    assert len(traces) == once


class Priced(Adapter):
    """A substitute for an adapter, of a known cost."""

    def __init__(self, cost):
        self.cost = cost

    def flops(self, n, gradient=False):
        return None if self.cost is None else n * self.cost / 2

    def values(self, n):
        return None if self.cost is None else n * self.cost / 2 / FLOPS_A_VALUE


COSTS = [1e3, 1e6, 2e7, 3e7, 1e8, 3e8, 1e9, 4e9, 1e12]


@pytest.mark.parametrize("method", ["pgd", "search"])
@pytest.mark.parametrize("cost", [None, 0.0, *COSTS])
def test_effort_keeps_to_its_budget_down_to_a_floor(cost, method):
    pairs, steps = effort(Priced(cost), method=method)
    full = {"pgd": 50, "search": 10}[method]
    assert pairs in (100, 50, 25)
    assert 2 <= steps <= full
    spent = pairs * (1 + 2 * steps) * (cost or 0)
    assert spent <= BUDGET or (pairs, steps) == (25, 2)
    if steps < 3:
        assert pairs == 25  # pairs go before the last steps
    if not cost or 100 * (1 + 2 * full) * cost <= BUDGET:
        assert (pairs, steps) == (100, full)


def test_effort_goes_down_from_all_to_the_floor_as_models_grow():
    efforts = [effort(Priced(cost)) for cost in COSTS]
    assert [pairs for pairs, _ in efforts] == sorted((pairs for pairs, _ in efforts), reverse=True)
    assert efforts[0] == (100, 50)
    assert efforts[-1] == (25, 2)


@pytest.mark.parametrize(("pairs", "steps"), [(500, None), (None, 70), (3, 1), (500, 70)])
def test_given_pairs_and_steps_are_never_lowered(pairs, steps):
    assert effort(Priced(1e12), pairs, steps) == (pairs or 25, steps or 2)


def test_a_heavy_model_beside_lowers_the_pairs_unless_they_are_given():
    heavy = [Priced(1e12)]
    assert len(make_probes(mlp(0), beside=heavy, n_steps=1)) == 25
    assert len(make_probes(mlp(0), beside=heavy, n_steps=1, n_pairs=30)) == 30
    assert make_probes(mlp(0), beside=heavy).origin["steps"] == 50


@pytest.mark.parametrize(
    "bad",
    [
        {"n_pairs": 1},
        {"n_steps": 0},
        pytest.param({"method": "magic"}, marks=own_error),
        {"key": -1},
        {"query_budget": 100},
        {"method": "search", "query_budget": 100, "n_steps": 3},
        {"method": "search", "query_budget": 5},
        {"space": generic_space((3,))},
        {"eps": 2.0, "n_pairs": 4},
    ],
)
def test_bad_arguments_are_refused(bad):
    model = adapt(mlp(0)) if "space" in bad else mlp(0)
    with pytest.raises(InvalidInputError):
        make_probes(model, **bad)


def test_pgd_on_a_black_box_is_refused():
    with pytest.raises(InvalidInputError, match="gradients"):
        make_probes(black_box()[0], method="pgd")


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError):
        make_probes(with_outputs(lambda y: y / 0.0), **FAST)
