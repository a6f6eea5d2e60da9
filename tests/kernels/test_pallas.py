"""Kernels for GPUs and TPUs on a machine that has neither: simulated on small cases, and lowered for both.

Simulation shows that the numbers are right, lowering that the compilers' front ends take the programs.
"""

import importlib
import pkgutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax import kernels
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import bin_maxima, prepare, prepared, self_join, top_k, tuned
from modeldiff_jax.kernels.bin_maxima import PLATFORMS, VARIANTS
from modeldiff_jax.kernels.convolution import convolve
from modeldiff_jax.kernels.correlation import spearman_similarity
from modeldiff_jax.kernels.cosine import cosine_similarity
from modeldiff_jax.kernels.depthwise_conv import depthwise_conv
from modeldiff_jax.kernels.largest import largest
from modeldiff_jax.kernels.paired import paired_distances
from modeldiff_jax.kernels.pairwise import pairwise_distances
from modeldiff_jax.kernels.rdm import rdm_similarity

from . import neighbours

BACKENDS = {"pallas_gpu": "gpu", "pallas_tpu": "tpu"}
CUSTOM_CALL = {"cuda": "mosaic_gpu", "tpu": "tpu_custom_call"}
GPU_INTERPRETER = hasattr(importlib.import_module("jax.experimental.pallas.mosaic_gpu"), "InterpretGPUParams")


def prepared_for(variant, rows, metric, precision):
    return prepared_on(BACKENDS[variant], rows, metric, precision)


def prepared_on(backend, rows, metric="cosine", precision="bfloat16"):
    return prepared._prepare(jnp.asarray(rows), jnp.int32(rows.shape[0]), metric, precision, backend)


def queries_of(count, width, seed=1):
    keys = neighbours.iid(count, width, seed) / np.float32(np.sqrt(width))
    return jnp.asarray(keys), jnp.asarray(2.0 ** (np.arange(count) % 3), jnp.float32)


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine believe that it has a device, which is enough to choose a variant and to lower it."""

    def become(backend):
        def device_of(platform):
            if PLATFORMS[f"pallas_{backend}"] != platform:
                raise NotImplementedError(f"this is a {backend}")

        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(bin_maxima, "device_of", device_of)

    return become


# The definition


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_bin_is_every_so_many_th_row_of_a_tile(metric):
    rows = neighbours.iid(1100, 12)
    p = prepare(rows, metric)
    keys, weight = queries_of(3, 12)
    count, height = p.tiles
    scores = np.asarray(keys, np.float64) @ np.asarray(p.keys, np.float64).T
    if metric == "euclidean":
        scores += np.asarray(weight, np.float64)[:, None] * np.asarray(p.bias, np.float64)
    bins_per_tile = height // prepared.BIN
    want = [
        [scores[:, t * height + b : (t + 1) * height : bins_per_tile].max(1) for b in range(bins_per_tile)]
        for t in range(count)
    ]
    want = np.array(want).reshape(count * bins_per_tile, 3).T
    for name in ("reference", "xla"):
        got = VARIANTS[name](keys, weight, p, "float32")
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "sign"])
def test_tiles_agree_with_the_definition_in_every_precision(precision):
    p = prepare(neighbours.iid(1100, 21), "sqeuclidean", precision)
    keys, weight = queries_of(5, 21)
    want = bin_maxima.bin_maxima(keys, weight, p, precision, implementation="reference")
    np.testing.assert_allclose(bin_maxima.bin_maxima(keys, weight, p, precision), want, rtol=1e-5, atol=1e-5)


# Simulated

CASES = {  # variant, metric, precision, rows, width, queries
    "gpu": ("pallas_gpu", "cosine", "bfloat16", 150, 100, 5),
    "gpu, bias": ("pallas_gpu", "euclidean", "bfloat16", 150, 40, 3),
    "tpu": ("pallas_tpu", "cosine", "bfloat16", 150, 100, 5),
    "tpu, bias": ("pallas_tpu", "euclidean", "float32", 150, 40, 17),
}
LONG_CASES = {
    "gpu, two tiles, two blocks of queries": ("pallas_gpu", "sqeuclidean", "bfloat16", 1100, 257, 130),
    "gpu, widest": ("pallas_gpu", "dot", "bfloat16", 1024, 512, 128),
    "tpu, two tiles, several steps": ("pallas_tpu", "sqeuclidean", "bfloat16", 1100, 700, 33),
    "tpu, float32, several steps": ("pallas_tpu", "dot", "float32", 1100, 300, 16),
    "tpu, many queries": ("pallas_tpu", "cosine", "float32", 900, 8, 300),
}


def assert_simulated(variant, metric, precision, n, width, count):
    rows = neighbours.iid(n, width)
    rows[3::9] = rows[0]  # ties
    rows[5::11] = np.nan  # no rows
    p = prepared_for(variant, rows, metric, precision)
    keys, weight = queries_of(count, width)
    want = bin_maxima.reference(keys, weight, p, precision)
    got = bin_maxima.fused(variant, keys, weight, p, precision, interpret=True)
    assert got.shape == want.shape == (count, p.bias.size // prepared.BIN)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * float(jnp.max(jnp.where(want > -jnp.inf, want, 0))))
    assert (np.asarray(want) == -np.inf).any() == bin_maxima.has_bias(metric)


def simulated(cases):
    def mark(name, variant):
        cause = "jax before 0.11 has no public interpreter for GPU kernels that knows transposed operands"
        skip = pytest.mark.skipif(variant == "pallas_gpu" and not GPU_INTERPRETER, reason=cause)
        return pytest.param(*cases[name], id=name, marks=skip)

    names = ("variant", "metric", "precision", "n", "width", "count")
    return pytest.mark.parametrize(names, [mark(name, case[0]) for name, case in cases.items()])


@simulated(CASES)
def test_simulated_kernels_agree_with_the_definition(variant, metric, precision, n, width, count):
    assert_simulated(variant, metric, precision, n, width, count)


@pytest.mark.long
@simulated(LONG_CASES)
def test_larger_simulated_kernels_agree_with_the_definition(variant, metric, precision, n, width, count):
    assert_simulated(variant, metric, precision, n, width, count)


# Lowered


def search_case(public, *arrays):
    """A search by name, of a database prepared for the platform, with the device's absence overlooked."""

    def call(name, platform):
        backend = {"cuda": "gpu"}.get(platform, platform)
        return public, (*arrays, prepared_on(backend, neighbours.iid(300, 20)), 3)

    return call


def plain(function, *arrays, **options):
    return lambda name, platform: (partial(function, **options), arrays)


def of_bins(name, platform):
    return partial(bin_maxima.bin_maxima, precision="bfloat16"), (
        *queries_of(3, 20),
        prepared_on("gpu", neighbours.iid(300, 20)),
    )


IMAGE, TAPS = np.ones((1, 4, 9, 9), np.float32), np.ones((6, 4, 3, 3), np.float32)
TABLE = {  # every module of kernels that has variants: name, platform -> function of `implementation`, its arguments
    "bin_maxima": of_bins,
    "convolution": plain(convolve, IMAGE, TAPS),
    "correlation": plain(spearman_similarity, neighbours.iid(5, 7)),
    "cosine": plain(cosine_similarity, neighbours.iid(5, 7)),
    "depthwise_conv": plain(depthwise_conv, IMAGE, np.ones((4, 1, 3, 3), np.float32)),
    "paired": plain(paired_distances, neighbours.iid(5, 7), neighbours.iid(5, 7, 1), metric="jensenshannon"),
    "pairwise": plain(pairwise_distances, neighbours.iid(5, 7)),
    "rdm": plain(rdm_similarity, neighbours.iid(5, 7), neighbours.iid(5, 9)),
    "largest": plain(partial(largest, k=3), neighbours.iid(3, 9000)),
    "self_join": search_case(self_join),
    "top_k": search_case(top_k, neighbours.iid(4, 20)),
}


def kernel_modules():
    names = [module.name for module in pkgutil.iter_modules(kernels.__path__)]
    modules = {name: importlib.import_module(f"{kernels.__name__}.{name}") for name in names}
    return {name: module.VARIANTS for name, module in modules.items() if hasattr(module, "VARIANTS")}


EVERY = [
    (module, name, platform)
    for module, variants in kernel_modules().items()
    for name in variants
    for platform in ([PLATFORMS[name]] if name in PLATFORMS else ["cuda", "tpu"])
]


def test_the_table_has_every_kernel():
    assert set(TABLE) == set(kernel_modules())


@pytest.mark.parametrize(("module", "name", "platform"), EVERY)
def test_every_variant_lowers_for_gpus_and_tpus(module, name, platform, machine):
    machine({"cuda": "gpu"}.get(platform, platform))
    function, arguments = TABLE[module](name, platform)
    dynamic = [place for place, argument in enumerate(arguments) if not isinstance(argument, int)]

    def call(*arrays):
        filled = list(arguments)
        for place, array in zip(dynamic, arrays, strict=True):
            filled[place] = array
        return function(*filled, implementation=name)

    arrays = [arguments[place] for place in dynamic]
    program = jax.jit(call).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert (CUSTOM_CALL[platform] in program) == (name in PLATFORMS)


SIZES = [
    (variant, dtype, int(width), device)
    for variant in PLATFORMS
    for device, dtypes in tuned.table("bin_maxima")[variant].items()
    for dtype, widths in dtypes.items()
    for width in widths
]


@pytest.mark.parametrize(("variant", "dtype", "width", "device"), SIZES)
def test_every_entry_of_the_table_of_sizes_fits_and_lowers(variant, dtype, width, device, monkeypatch):
    monkeypatch.setattr(tuned, "device_kind", lambda: device)
    width = min(width, 2000)
    p = jax.eval_shape(lambda x: prepared_for(variant, x, "euclidean", dtype), jnp.zeros((9000, width)))
    lowered = jax.jit(lambda keys, weight, p: bin_maxima.fused(variant, keys, weight, p, dtype))
    arguments = jnp.zeros((300, width)), jnp.ones(300), p
    program = lowered.trace(*arguments).lower(lowering_platforms=(PLATFORMS[variant],))
    assert CUSTOM_CALL[PLATFORMS[variant]] in program.as_text()


# Chosen


@pytest.mark.parametrize("variant", PLATFORMS)
def test_a_program_for_another_platform_than_the_default_one_does_without(variant, machine):
    machine(BACKENDS[variant])
    rows = neighbours.iid(301, 21)
    p = prepared_for(variant, rows, "cosine", "bfloat16")
    search = jax.jit(partial(top_k, k=4))
    traced = search.trace(rows[:3], p)
    lowered = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cuda", "tpu", "cpu")}
    for platform, call in CUSTOM_CALL.items():
        assert [other for other in lowered if call in lowered[other]] == [platform] * (platform == PLATFORMS[variant])
    keys, weight = queries_of(3, 21)
    maxima = jax.jit(partial(bin_maxima.bin_maxima, precision="bfloat16", implementation=variant))
    want = bin_maxima.reference(keys, weight, p, "bfloat16")
    np.testing.assert_allclose(maxima(keys, weight, p), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", PLATFORMS)
def test_here_the_others_refuse_and_say_why(variant):
    rows = neighbours.iid(30, 8)
    p = prepared_for(variant, rows, "cosine", "bfloat16")
    for call in (partial(top_k, rows, p, 3), partial(self_join, p, 3)):
        with pytest.raises(NotImplementedError, match="default device is a cpu"):
            call(implementation=variant)
    with pytest.raises(InvalidInputError, match="pallas_gpu, pallas_tpu, xla, reference"):
        top_k(rows, p, 3, implementation="triton")


@pytest.mark.parametrize(
    ("variant", "metric", "precision", "width", "cause"),
    [
        ("pallas_gpu", "cosine", "float32", 8, "products in float32"),
        ("pallas_gpu", "cosine", "int8", 8, "products in int8"),
        ("pallas_gpu", "cosine", "bfloat16", 513, "no blocks for rows of 576 entries"),
        ("pallas_tpu", "cosine", "sign", 8, "products in sign"),
        ("pallas_tpu", "cityblock", "float32", 8, "products in float32 of cityblock"),
    ],
)
def test_what_a_kernel_does_not_serve_is_searched_by_xla(variant, metric, precision, width, cause, machine):
    machine(BACKENDS[variant])
    rows = neighbours.iid(40, width)
    p = prepared_for(variant, rows, metric, precision)
    with pytest.raises(NotImplementedError, match=cause):
        top_k(rows[:3], p, 3, implementation=variant)
    program = jax.jit(partial(top_k, k=3)).trace(rows[:3], p).lower(lowering_platforms=(PLATFORMS[variant],))
    assert CUSTOM_CALL[PLATFORMS[variant]] not in program.as_text()


@pytest.mark.parametrize("variant", PLATFORMS)
def test_a_database_of_another_platform_is_searched_by_xla(variant, machine):
    rows = neighbours.iid(40, 8)
    on_cpu, for_device = prepare(rows, "cosine", "bfloat16"), prepared_for(variant, rows, "cosine", "bfloat16")
    machine(BACKENDS[variant])
    for p, cause in ((on_cpu, "prepared on another platform"), (for_device, "the database is on {'cpu'}")):
        with pytest.raises(NotImplementedError, match=cause):
            top_k(rows[:3], p, 3, implementation=variant)
    maxima = bin_maxima.bin_maxima(*queries_of(3, 8), for_device, "bfloat16")
    np.testing.assert_array_equal(maxima, bin_maxima.xla(*queries_of(3, 8), for_device, "bfloat16"))


def test_a_gpu_without_the_instructions_is_refused(monkeypatch):
    class Other:
        device_kind, compute_capability = "another GPU", "8.0"

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Other()])
    with pytest.raises(NotImplementedError, match="another GPU is not a GPU of compute capability"):
        bin_maxima.device_of("cuda")


# Missing


@pytest.mark.parametrize("variant", PLATFORMS)
def test_a_jax_without_the_backend_is_refused(variant, monkeypatch):
    name = {"pallas_gpu": "jax.experimental.pallas.mosaic_gpu", "pallas_tpu": "jax.experimental.pallas.tpu"}[variant]
    monkeypatch.setitem(importlib.import_module("sys").modules, name, None)
    p = prepared_for(variant, neighbours.iid(30, 8), "cosine", "bfloat16")
    with pytest.raises(NotImplementedError, match=f"{name} cannot be imported here"):
        bin_maxima.fused(variant, *queries_of(2, 8), p, "bfloat16")


def test_a_width_beyond_the_table_is_refused():
    with pytest.raises(NotImplementedError, match="no blocks for rows of 513 entries in bfloat16"):
        tuned.sizes("bin_maxima", "pallas_gpu", "bfloat16", 513)
