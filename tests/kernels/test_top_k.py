"""Search: every metric and precision against float64, then what the certificate must and must not accept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import paired_distances, prepare, top_k
from modeldiff_jax.kernels.prepared import PRECISIONS
from modeldiff_jax.kernels.top_k import bin_filter, top2_filter
from modeldiff_jax.kernels.top_k.cascade import cascade
from modeldiff_jax.kernels.top_k.exact import prepare_queries

from . import neighbours

long = pytest.mark.long


def first_alone(names):
    """The first by default, the others with the long tests: each is a program more to compile."""
    groups = [name if isinstance(name, tuple) else (name,) for name in names]
    return [groups[0] if len(groups[0]) > 1 else groups[0][0], *(pytest.param(*g, marks=long) for g in groups[1:])]


every_metric = pytest.mark.parametrize("metric", first_alone(neighbours.METRICS))
every_precision = pytest.mark.parametrize("precision", first_alone(PRECISIONS))


def assert_exact(queries, rows, k, metric, precision="float32", **options):
    got, index = top_k(queries, prepare(rows, metric, precision), k, **options)
    cost = neighbours.costs(queries, rows, metric)
    want, order = neighbours.expected(cost, k)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(got, neighbours.value(want, metric), rtol=1e-5, atol=1e-6 * np.abs(want).max())


def first_stage(queries, rows, k, metric, precision):
    p = prepare(rows, metric, precision)
    return cascade(p, k)[0](prepare_queries(jnp.asarray(queries), p))


@every_metric
@pytest.mark.parametrize("variant", ["xla", "reference"])
def test_agrees_with_float64(metric, variant):
    assert_exact(neighbours.iid(5, 19, 1), neighbours.iid(701, 19), 7, metric, implementation=variant)


@pytest.mark.parametrize("count", [1, 16, 40])
@pytest.mark.parametrize("metric", first_alone(["euclidean", "cosine", "dot"]))
def test_few_queries_and_many_find_the_same(metric, count):
    """Few are scored against all rows at once, more by bins."""
    assert_exact(neighbours.iid(count, 19, 1), neighbours.iid(701, 19), 7, metric)


@long
@every_precision
def test_precisions_return_the_same(precision):
    for rows in (neighbours.iid(501, 24), neighbours.clustered(501, 24)):
        assert_exact(rows[:6] + np.float32(0.01) * neighbours.iid(6, 24, 2), rows, 5, "cosine", precision)


@pytest.mark.parametrize(("n", "k"), first_alone([(7, 7), (1, 1), (8, 1), (9000, 2)]))
def test_sizes(n, k):
    assert_exact(neighbours.iid(3, 6, 1), neighbours.iid(n, 6), k, "euclidean")
    assert top_k(np.zeros((0, 6), np.float32), neighbours.iid(n, 6), k)[0].shape == (0, k)


@long
def test_ties_are_ordered_by_index():
    rows = np.tile(neighbours.iid(5, 8), (60, 1))
    index = np.asarray(top_k(rows[:5], rows, 70, "cosine")[1])
    for i in range(5):
        np.testing.assert_array_equal(index[i, :60], np.arange(i, 300, 5))
        np.testing.assert_array_equal(index[i, 60:], np.sort(index[i, 60:]))


@long
@pytest.mark.parametrize("size", [1e-4, 1e-7, 1e-9])
def test_near_duplicates_keep_their_order_and_digits(size):
    rng = np.random.default_rng(0)
    queries = neighbours.iid(3, 50)
    noise = rng.standard_normal((3, 30, 50)) * np.linspace(1, 2, 30)[:, None] * np.sqrt(size / 25)
    near = (queries[:, None] * (1 + 0 * noise) + noise).reshape(-1, 50).astype(np.float32)
    rows = np.concatenate([neighbours.iid(200, 50, 3), near])
    want, order = neighbours.expected(neighbours.costs(queries, rows, "cosine"), 12)
    np.testing.assert_array_equal(top_k(queries, rows, 12)[1], order)
    want, order = neighbours.expected(neighbours.costs(queries, rows, "correlation"), 12)
    got, index = top_k(queries, rows, 12, "correlation")
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@long
def test_euclidean_keeps_small_distances_far_from_the_origin():
    rows = neighbours.iid(300, 40) * np.float32(1) + np.float32(100)
    queries = rows[:4] + np.float32(1e-3)
    got, index = top_k(queries, rows, 2, "euclidean")
    want, order = neighbours.expected(neighbours.costs(queries, rows, "euclidean"), 2)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@long
@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_any_magnitude(magnitude, metric):
    rows, queries = neighbours.iid(300, 12), neighbours.iid(4, 12, 1)
    _, index = top_k(queries * np.float32(magnitude), rows * np.float32(magnitude), 6, metric)
    np.testing.assert_array_equal(index, neighbours.expected(neighbours.costs(queries, rows, metric), 6)[1])


@every_precision
def test_zero_vectors_and_not_a_number(precision):
    rows, queries = neighbours.iid(400, 10), neighbours.iid(4, 10, 1)
    rows[[3, 90, 200]], rows[7], queries[1], queries[2, 4] = 0, np.nan, 0, np.inf
    p = prepare(rows, "cosine", precision)
    values, index = map(np.asarray, top_k(queries, p, 5))
    np.testing.assert_array_equal(index[1], [3, 90, 200, 0, 1])
    np.testing.assert_array_equal(values[1], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(index[2], np.arange(5))
    assert np.isnan(values[2]).all()
    values, index = map(np.asarray, top_k(queries[:1], p, 400))
    assert index[0, -1] == 7
    assert np.isnan(values[0]).tolist() == [False] * 399 + [True]


def some_without_direction(n, seed=0):
    """Returns rows, a third of them with NaN or an infinity."""
    rows = neighbours.iid(n, 3, seed)
    rows[1::6, 0], rows[4::6, 1] = np.nan, np.inf
    return rows


@pytest.mark.parametrize(
    ("n", "k"), [(9, 9), (30, 22), *(pytest.param(*x, marks=long) for x in [(4, 4), (129, 129), (700, 500)])]
)
@pytest.mark.parametrize("metric", first_alone(["cosine", "euclidean", "dot", "hamming"]))
def test_rows_without_a_direction_are_found_last(metric, n, k):
    rows = some_without_direction(n)
    values, index = map(np.asarray, top_k(rows[:1], rows, k, metric))
    want_values, want = map(np.asarray, top_k(rows[:1], rows, k, metric, implementation="reference"))
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(values, want_values, rtol=1e-5, atol=1e-6)
    assert len(set(index[0])) == k
    assert index.max() < n


# The certificate


@pytest.mark.parametrize("metric", first_alone(["dot", "cosine"]))
def test_nothing_is_certified_for_a_query_of_zeros(metric):
    rows = neighbours.iid(900, 16)
    rows[5], rows[300:304] = 0, 0  # all at one distance, and bins do not come in order of index
    result = first_stage(np.zeros((40, 16), np.float32), rows, 4, metric, "float32")
    assert not np.asarray(result.certified).any()


@long
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_both_filters_certify_the_same_rows(metric):
    rows, queries = neighbours.iid(2000, 16), neighbours.iid(40, 16, 1)
    p = prepare(rows, metric)
    q = prepare_queries(jnp.asarray(queries), p)
    by_top2, by_bins = top2_filter.filter_and_refine(q, p, 4), bin_filter.filter_and_refine(q, p, 4, "float32", 9)
    both = np.asarray(by_top2.certified & by_bins.certified)
    assert both.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(by_top2.rows)[both], np.asarray(by_bins.rows)[both])


@long
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_rows_that_low_precision_misorders_are_searched_for_again(precision):
    rng = np.random.default_rng(0)
    base = rng.standard_normal(64)
    rows = (base + 1e-3 * rng.standard_normal((900, 64))).astype(np.float32)
    codes = prepare(rows, "cosine", precision).codes
    approximate = np.asarray(codes.codes, np.float64) * np.asarray(codes.scale)[:, None]
    want = neighbours.expected(neighbours.costs(rows[:3], rows, "cosine"), 10)[1]
    query = np.asarray(prepare(rows[:3], "cosine").keys, np.float64)[:3]
    assert (np.argsort(-(query @ approximate.T), axis=1)[:, :10] != want).any()
    assert not np.asarray(first_stage(rows[:3], rows, 10, "cosine", precision).certified).any()
    assert_exact(rows[:3], rows, 10, "cosine", precision)


@pytest.mark.parametrize("precision", first_alone(["float32", "bfloat16", "int8", "sign"]))
@pytest.mark.parametrize("metric", first_alone(["dot", "cosine", "euclidean"]))
def test_no_wrong_row_is_ever_certified(precision, metric):
    total = 0
    for seed, spread in enumerate([1e-4, 1e-3, 1e-2, 0.1, 1.0]):
        rows = neighbours.clustered(900, 16, seed, clusters=8, spread=spread)
        rows[1::7] = rows[0]
        queries = rows[:40] + np.float32(spread / 10) * neighbours.iid(40, 16, seed + 50)
        result = first_stage(queries, rows, 4, metric, precision)
        want = np.argsort(neighbours.costs(queries, rows, metric), axis=1, kind="stable")[:, :4]
        sure = np.asarray(result.certified)
        cost = neighbours.costs(queries, rows, metric)
        gap = np.abs(np.take_along_axis(cost, np.asarray(result.rows), 1) - np.take_along_axis(cost, want, 1))
        assert (gap[sure] <= 1e-5 * np.abs(cost).max() * 1e-1).all()
        total += sure.sum()
    assert total > 0 or precision == "sign"


@long
def test_ordinary_data_are_certified_by_the_first_stage():
    rows, queries = neighbours.iid(3000, 64), neighbours.iid(100, 64, 1)
    for precision in ("float32", "bfloat16"):
        assert np.mean(first_stage(queries, rows, 10, "cosine", precision).certified) > 0.95


@long
def test_signs_certify_entries_of_one_magnitude():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (600, 64)).astype(np.float32)
    p = prepare(signs, "dot", "sign")
    assert float(p.codes.residual) == 0
    assert_exact(signs[:5], signs, 3, "dot", "sign")


# Gradients


def through_pairs(queries, rows, index, metric):
    """Values of the same rows, by `paired_distances`."""
    result = jnp.take(rows, index, axis=0)
    repeated = jnp.broadcast_to(queries[:, None, :], result.shape)
    if metric == "dot":
        return jnp.sum(repeated * result, axis=-1)
    distances = paired_distances(repeated, result, metric)
    return 1 - distances if metric == "cosine" else distances


@pytest.mark.parametrize("metric", first_alone(["cosine", "dot", "euclidean", "cityblock"]))
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradients_are_those_of_the_distances_to_the_rows_found(metric, transform):
    queries, rows = (jnp.asarray(neighbours.iid(n, 6, n)) for n in (5, 33))
    index = top_k(queries, rows, 3, metric)[1]
    weights = jnp.asarray(neighbours.iid(5, 3))

    def gradients(values):
        return jax.grad(lambda *arrays: jnp.sum(jnp.tanh(values(*arrays)) * weights), argnums=(0, 1))(queries, rows)

    got = transform(lambda: gradients(lambda q, r: top_k(q, r, 3, metric)[0]))()
    want = gradients(lambda q, r: through_pairs(q, r, index, metric))
    for output, reference in zip(got, want, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-6)
    assert np.abs(got[1]).max() > 0


@long
def test_forward_mode_and_hessians_of_a_prepared_database():
    queries, p = jnp.asarray(neighbours.iid(4, 5, 1)), prepare(neighbours.iid(30, 5), "sqeuclidean")
    total = lambda q: jnp.sum(top_k(q, p, 2)[0])  # noqa: E731
    np.testing.assert_allclose(
        jax.jvp(total, (queries,), (jnp.ones_like(queries),))[1], jnp.sum(jax.grad(total)(queries)), rtol=1e-5
    )
    hessian = jax.hessian(total)(queries).reshape(20, 20)
    np.testing.assert_allclose(hessian, 4 * np.eye(20), atol=1e-4)  # two rows, each with a second derivative of 2


# Compiling


def test_nearby_sizes_share_a_program(caplog):
    rows = neighbours.iid(270, 5)
    with jax.log_compiles():
        top_k(rows[:17], rows, 8)
        assert any("_first_stage" in record.message for record in caplog.records)
        caplog.clear()
        index = top_k(rows[:18], rows[:260], 9)[1]
    assert index.shape == (18, 9)
    assert [
        record.message for record in caplog.records if "_stage" in record.message or "prepare" in record.message
    ] == []


def test_later_stages_are_compiled_where_they_are_needed(caplog):
    rows = np.tile(neighbours.iid(7, 4), (43, 1))
    with jax.log_compiles():
        top_k(neighbours.iid(3, 4, 9), neighbours.iid(301, 4), 2)
        assert not any("_later_stages" in record.message for record in caplog.records)
        index = top_k(rows[:3], rows, 2)[1]
        assert any("_later_stages" in record.message for record in caplog.records)
    np.testing.assert_array_equal(index, [[0, 7], [1, 8], [2, 9]])


@long
def test_jit_vmap_and_loop_agree():
    rows, queries = neighbours.iid(200, 9), neighbours.iid(6, 9, 1)
    p = prepare(rows)
    want = top_k(queries, p, 4)
    for got in (
        jax.jit(lambda q, p: top_k(q, p, 4))(queries, p),
        [x.reshape(6, 4) for x in jax.vmap(lambda q: top_k(q, p, 4))(jnp.asarray(queries).reshape(3, 2, 9))],
    ):
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_allclose(got[0], want[0], atol=1e-6)


def test_the_precision_setting_changes_nothing():
    p = prepare(neighbours.iid(200, 9))
    with jax.default_matmul_precision("bfloat16"):
        program = str(jax.make_jaxpr(lambda q: top_k(q, p, 4))(neighbours.iid(6, 9, 1))).replace("lax.", "")
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


@long
def test_queries_times_rows_is_never_held():
    p = jax.eval_shape(lambda x: prepare(x), jax.ShapeDtypeStruct((100_000, 16), jnp.float32))
    queries = jax.ShapeDtypeStruct((1000, 16), jnp.float32)
    memory = jax.jit(lambda q, p: top_k(q, p, 10)).lower(queries, p).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1000 * 100_000 * 4


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((np.zeros((2, 3)), np.zeros((4, 2)), 1), r"\(Q, C\)"),
        ((np.zeros(3), np.zeros((4, 3)), 1), r"\(Q, C\)"),
        ((np.zeros((2, 3)), np.zeros((4, 3)), 5), "from 1 to 4"),
        ((np.zeros((2, 3)), np.zeros((0, 3)), 1), "at least 1"),
        ((np.zeros((2, 3)), np.zeros((4, 3)), 1, "manhattan"), "metric"),
    ],
)
def test_refuses_what_does_not_fit(arguments, rule):
    with pytest.raises(InvalidInputError, match=rule):
        top_k(*arguments)


def test_refuses_another_metric_than_the_prepared_one():
    with pytest.raises(InvalidInputError, match="prepared database"):
        top_k(np.ones((2, 3)), prepare(np.ones((4, 3)), "dot"), 1, "cosine")
    with pytest.raises(InvalidInputError, match="precision"):
        prepare(np.ones((4, 3)), precision="float8")
