"""Compiles whole programs with the options that make models fastest.

XLA takes options for a whole program only, so they are set where a program begins, not in kernels, which are parts of
one. On CPU one of XLA's defaults is turned off: convolutions and matrix products by YNNPACK, with which convolutional
networks take 1.1 to 1.5 times as long (jaxlib 0.10.2, the files of `bench/bench_real_models.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, update_wrapper
from threading import Lock
from typing import Any

import jax

from modeldiff_jax.runtime.fork import check_process
from modeldiff_jax.runtime.settings import on_device

_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


@cache
def options() -> dict[str, Any]:
    """Returns XLA's options for programs on the default device; none if this version of XLA does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_ON_CPU)()
    except jax.errors.JaxRuntimeError:
        return {}
    return _ON_CPU


class Program:
    """A function compiled with `options()`; called inside another compiled function, it becomes a part of that one.

    Args:
      function: function to compile.
      static_argnums: as for `jax.jit`.
      defaults: whether to compile with XLA's default options, as `jax.jit` does.
    """

    def __init__(
        self, function: Callable[..., Any], static_argnums: int | tuple[int, ...] = (), *, defaults: bool = False
    ) -> None:
        update_wrapper(self, function)
        self._function, self._static, self._defaults = function, static_argnums, defaults

    @cached_property
    def _nested(self) -> Any:
        return jax.jit(self._function, static_argnums=self._static)

    @cached_property
    def _compiled(self) -> Any:
        chosen = {} if self._defaults else options()
        return jax.jit(self._function, static_argnums=self._static, compiler_options=chosen)

    def __call__(self, *args: Any) -> Any:
        """Returns the function's result."""
        check_process()
        args = on_device(args)
        try:
            result = self._compiled(*args)
        except ValueError:  # JAX takes no options inside another program; an error of another cause is raised again
            return self._nested(*args)
        if _recorder is not None:
            _recorder.add(self, args)
        return result

    def fresh(self) -> Program:
        """Returns the same program without its cached traces and compilations."""
        return Program(lambda *args: self._function(*args), self._static, defaults=self._defaults)

    def partition_args(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Returns the static arguments, and the others, with which compiled code is called."""
        static = self._static if isinstance(self._static, tuple) else (self._static,)
        fixed = tuple(arg for i, arg in enumerate(args) if i in static)
        return fixed, tuple(arg for i, arg in enumerate(args) if i not in static)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Lowers the program ahead of its first call, as `jax.jit(...).lower` does."""
        return self._compiled.lower(*args)

    def trace(self, *args: Any) -> jax.stages.Traced:
        """Traces the program, as `jax.jit(...).trace` does."""
        return self._compiled.trace(*args)


@dataclass
class Recorded:
    """A program that was called, the arguments of one call, and the number of calls with arguments of these shapes."""

    program: Program
    args: tuple[Any, ...]
    calls: int = 0


class _Recorder:
    def __init__(self) -> None:
        self.entries: dict[Any, Recorded] = {}
        self._lock = Lock()

    def add(self, program: Program, args: tuple[Any, ...]) -> None:
        fixed, data = program.partition_args(args)
        leaves, structure = jax.tree.flatten(data)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):  # a part of another program
            return
        shapes = tuple((jax.numpy.shape(leaf), str(jax.numpy.result_type(leaf))) for leaf in leaves)
        with self._lock:
            entry = self.entries.setdefault((program, fixed, structure, shapes), Recorded(program, args))
            entry.calls += 1


_recorder: _Recorder | None = None


@contextmanager
def recording() -> Iterator[list[Recorded]]:
    """Records the programs called in the block, by any thread; the list is filled when the block ends."""
    global _recorder
    recorder, outer, entries = _Recorder(), _recorder, list[Recorded]()
    _recorder = recorder
    try:
        yield entries
    finally:
        _recorder = outer
        entries.extend(recorder.entries.values())
