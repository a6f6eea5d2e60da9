"""Operators that make tensors from a shape or a range."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, astype, module_for, sizes
from modeldiff_jax.models.onnx.ops.common import element_type
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64


@op("ConstantOfShape")
def constant_of_shape(shape: Static, /, *, value: np.ndarray | None = None) -> Value:
    """Returns a tensor of one value, 0 in float32 by default."""
    dims = sizes(shape)
    fill = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())
    check_made(dims, fill.itemsize)
    if module_for(dims) is np:
        return np.broadcast_to(fill, dims)  # takes no memory until an operator copies it
    return jnp.broadcast_to(x64.as_array(fill), dims)


@op("EyeLike")
def eye_like(x: Value, /, *, dtype: int | None = None, k: int = 0) -> Value:
    """Returns a matrix of the shape of `x` with ones on its k-th diagonal."""
    rows, columns = x.shape
    kind = np.dtype(x.dtype) if dtype is None else element_type(dtype)
    return astype(module_for(x.shape).eye(rows, columns, k, dtype=bool), kind)


@op("Range")
def range_(start: Static, limit: Static, delta: Static, /, *, stash_type: int = 1) -> Value:
    """Returns numbers from start to limit (exclusive) by delta; `stash_type`, for 16-bit floats, changes nothing."""
    (first,), (last,), (step,) = (np.ravel(v).tolist() for v in (start, limit, delta))
    if not all(isinstance(v, (int, float)) for v in (first, last, step)):
        return x64.as_array(jnp.arange(first, last, step), np.int64)
    count = max(0, int(np.ceil((last - first) / step))) if np.isfinite((last - first) / step) else 2**62
    check_made((count,))
    dtype = np.asarray(start).dtype
    return (np.asarray(start).reshape(()) + np.arange(count).astype(dtype) * np.asarray(delta).reshape(())).astype(
        dtype
    )
