"""Access to Pallas: differences between versions of jax, and checks for the device.

If anything is missing, a backend in this version of jax or a package that the backend imports and jax does not require
(absl-py), the functions raise `NotImplementedError`, by which the call goes to the next variant.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import jax
from jaxtyping import Array


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as missing:
        raise NotImplementedError(f"{name} cannot be imported here: {missing}") from missing


def pallas() -> Any:
    """Imports `jax.experimental.pallas`, which takes a second, on first use."""
    return _module("jax.experimental.pallas")


def pallas_gpu() -> Any:
    """Imports Mosaic GPU."""
    module = _module("jax.experimental.pallas.mosaic_gpu")
    if not hasattr(module, "kernel"):
        raise NotImplementedError("this jax has no jax.experimental.pallas.mosaic_gpu.kernel")
    return module


def pallas_tpu() -> Any:
    """Imports Mosaic TPU."""
    return _module("jax.experimental.pallas.tpu")


def gpu_load(ref: Any, layout: Any) -> Array:
    """Loads from a GPU's memory into registers of a layout, one thread at a time."""
    load = pallas_gpu().load
    index = ((),) if "idx" in inspect.signature(load).parameters else ()  # jax before 0.11
    return load(ref, *index, layout=layout, optimized=False)


def gpu_interpreter() -> Any:
    """Returns the setting that simulates a GPU kernel on a CPU."""
    try:
        return pallas_gpu().InterpretGPUParams()
    except AttributeError as missing:
        raise NotImplementedError("jax before 0.11 cannot interpret transposed operands") from missing


def device_of(platform: str) -> Any:
    """Returns the first default device, if it belongs to a platform and has the instructions that kernels need.

    Args:
      platform: "cuda" or "tpu".

    Raises:
      NotImplementedError: it is of another platform, or a GPU without the matrix instructions that the kernels use.
    """
    backend = {"cuda": "gpu"}.get(platform, platform)
    if jax.default_backend() != backend:
        raise NotImplementedError(f"this machine's default device is a {jax.default_backend()}, not a {backend}")
    device = jax.devices()[0]
    if platform == "cuda" and str(getattr(device, "compute_capability", "")) != "9.0":
        raise NotImplementedError(f"{device.device_kind} is not a GPU of compute capability 9.0")
    return device


def processors() -> int:
    """Returns the number of thread blocks that a GPU runs at once if each occupies a whole multiprocessor."""
    return int(getattr(jax.devices()[0], "core_count", None) or 132) if jax.default_backend() == "gpu" else 132
