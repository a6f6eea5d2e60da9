"""Programs: compiled with their options, and parts of other programs like any function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.runtime import compilation
from modeldiff_jax.runtime.compilation import Program


def _square(x):
    return x * x


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        pytest.param(lambda f: f(3.0), 9.0, id="alone"),
        pytest.param(lambda f: jax.jit(lambda x: f(x) + 1)(3.0), 10.0, id="jit"),
        pytest.param(lambda f: jax.jit(lambda: f(3.0))(), 9.0, id="constant inside jit"),
        pytest.param(lambda f: jax.grad(f)(3.0), 6.0, id="grad"),
        pytest.param(lambda f: jax.jit(jax.grad(f))(3.0), 6.0, id="grad inside jit"),
        pytest.param(lambda f: jax.vmap(f)(jnp.ones(2)), [1, 1], id="vmap"),
        pytest.param(lambda f: jax.lax.map(f, jnp.ones(2)), [1, 1], id="loop"),
        pytest.param(lambda f: f.lower(3.0).compile()(3.0), 9.0, id="ahead of time"),
    ],
)
def test_a_program_transforms_like_its_function(transform, expected):
    np.testing.assert_array_equal(transform(Program(_square)), expected)


def test_static_arguments():
    program = Program(lambda power, x: x**power, static_argnums=0)
    assert program(2, 3.0) == 9
    assert jax.jit(lambda x: program(3, x))(2.0) == 8


def test_errors_of_the_function_come_out():
    def bad(x):
        raise ValueError("of the function")

    with pytest.raises(ValueError, match="of the function"):
        Program(bad)(1.0)


def test_unknown_options_are_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_ON_CPU", {"xla_no_such_option": "1"})
    compilation.options.cache_clear()
    try:
        assert compilation.options() == {}
    finally:
        compilation.options.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the option is one for CPUs")
def test_convolutions_stay_with_xla_on_cpu():
    x, w = jnp.ones((4, 16, 16, 32)), jnp.ones((3, 3, 32, 32))

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert "ynn" not in Program(convolve).lower(x, w).compile().as_text()
    plain = jax.jit(convolve).lower(x, w).compile().as_text()
    text = Program(convolve, defaults=True).fresh().lower(x, w).compile().as_text()
    assert ("ynn" in text) == ("ynn" in plain)


def test_recording_notes_programs_with_their_arguments_and_calls():
    square, power = Program(_square), Program(lambda n, x: x**n, static_argnums=0)
    square(1.0)
    with compilation.recording() as recorded:
        for x in (jnp.ones(2), jnp.zeros(2), jnp.ones(3)):
            square(x)
        power(2, jnp.ones(2))
        power(3, jnp.ones(2))
        jax.jit(lambda x: square(x) + 1)(jnp.ones(2))  # a part of another program
        assert recorded == []
    square(1.0)
    calls = [(entry.program, jnp.shape(entry.args[-1]), entry.args[0], entry.calls) for entry in recorded]
    assert [(program, shape, n) for program, shape, _, n in calls] == [
        (square, (2,), 2),
        (square, (3,), 1),
        (power, (2,), 1),
        (power, (2,), 1),
    ]
    assert [first for program, _, first, _ in calls if program is power] == [2, 3]


def test_recording_ends_when_the_block_fails():
    with pytest.raises(KeyError), compilation.recording():
        raise KeyError
    with compilation.recording() as recorded:
        pass
    Program(_square)(1.0)
    assert recorded == []


def test_static_arguments_and_data_are_separated():
    program = Program(lambda a, b, c, d: d, static_argnums=(0, 2))
    assert program.partition_args((1, 2, 3, 4)) == ((1, 3), (2, 4))
