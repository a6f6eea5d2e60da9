"""Tensors made out of nothing but a shape or a range."""

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
    """A tensor of one value, 0 of float32 by default."""
    wanted = sizes(shape)
    fill = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())
    check_made(wanted, fill.itemsize)
    if module_for(wanted) is np:
        return np.broadcast_to(fill, wanted)  # a view: what nobody reads takes no memory
    return jnp.broadcast_to(x64.as_array(fill), wanted)


@op("EyeLike")
def eye_like(x: Value, /, *, dtype: int | None = None, k: int = 0) -> Value:
    """Ones on the k-th diagonal of a matrix of the shape of `x`."""
    rows, columns = x.shape
    kind = np.dtype(x.dtype) if dtype is None else element_type(dtype)
    return astype(module_for(x.shape).eye(rows, columns, k, dtype=bool), kind)


@op("Range")
def range_(start: Static, limit: Static, delta: Static, /, *, stash_type: int = 1) -> Value:
    """Numbers from start up to, without, limit by delta; `stash_type` is for 16-bit floats, which numpy widens too."""
    (first,), (last,), (step,) = (np.ravel(v).tolist() for v in (start, limit, delta))
    if not all(isinstance(v, (int, float)) for v in (first, last, step)):
        return x64.as_array(jnp.arange(first, last, step), np.int64)
    count = max(0, int(np.ceil((last - first) / step))) if np.isfinite((last - first) / step) else 2**62
    check_made((count,))
    dtype = np.asarray(start).dtype
    return (np.asarray(start).reshape(()) + np.arange(count).astype(dtype) * np.asarray(delta).reshape(())).astype(
        dtype
    )
