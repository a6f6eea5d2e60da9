"""Fourier transforms, windows and mel filters."""

from __future__ import annotations

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, astype, axis_index, in_float32, xp
from modeldiff_jax.models.onnx.ops.common import element_type
from modeldiff_jax.models.onnx.registration import op


def _scalar(value: Static) -> float:
    (number,) = np.ravel(value).tolist()
    return number


def _complex(x: Value) -> Value:
    """Returns the complex numbers whose real and imaginary parts are the entries of the last axis."""
    if x.shape[-1] not in (1, 2):
        raise InvalidInputError("The last axis holds a real or a complex number", got=f"{x.shape[-1]} entries")
    wide = astype(x, np.float32) if x.dtype.itemsize < 4 else x
    return wide[..., 0] if x.shape[-1] == 1 else wide[..., 0] + 1j * wide[..., 1]


def _parts(z: Value) -> Value:
    return xp(z).stack([z.real, z.imag], -1)


def _dft(x: Value, length: Static, axis: int, inverse: int, onesided: int) -> Value:
    axis, m = axis_index(axis, x.ndim), xp(x)
    if axis == x.ndim - 1:
        raise InvalidInputError("A transform goes over an axis before the last", got=f"axis {axis}")
    size = x.shape[axis]
    if length is not None:
        size = int(_scalar(length))
    elif inverse and onesided:
        size = 2 * (size - 1)
    if size < 1:
        raise InvalidInputError("A transform goes over at least one entry", got=f"{size}")
    check_made((*x.shape[:axis], size, *x.shape[axis + 1 :], 2))
    signal = _complex(x)
    if inverse and onesided:
        return astype(m.fft.irfft(signal, size, axis)[..., None], x.dtype)
    if inverse:
        return astype(_parts(m.fft.ifft(signal, size, axis)), x.dtype)
    outer = (slice(None),) * axis
    if x.shape[-1] == 2:
        z = m.fft.fft(signal, size, axis)
        return astype(_parts(z[(*outer, slice(size // 2 + 1))] if onesided else z), x.dtype)
    z = m.fft.rfft(signal, size, axis)
    if not onesided:  # the other half of a real signal's transform mirrors the first
        z = m.concatenate([z, m.flip(z[(*outer, slice(1, (size + 1) // 2))], axis).conj()], axis)
    return astype(_parts(z), x.dtype)


@op("DFT")
def dft_17(x: Value, length: Static = None, /, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Value:
    """Returns the discrete Fourier transform along an axis; the last axis holds real and imaginary parts."""
    return _dft(x, length, axis, inverse, onesided)


@op("DFT", since=20)
def dft(x: Value, length: Static = None, axis: Static = None, /, *, inverse: int = 0, onesided: int = 0) -> Value:
    """Returns the discrete Fourier transform along an axis, which is an input."""
    return _dft(x, length, -2 if axis is None else int(_scalar(axis)), inverse, onesided)


@op("STFT")
@in_float32
def stft(x: Value, step: Static, window: Value = None, length: Static = None, /, *, onesided: int = 1) -> Value:
    """Returns the Fourier transform of each frame of a signal (batch, time[, 1 or 2]); frames are `step` apart."""
    signal = x if x.ndim == 3 else x[..., None]
    hop = int(_scalar(step))
    size = signal.shape[1] if window is None else window.shape[0]
    if length is not None:
        size = int(_scalar(length))
    if hop < 1 or not 0 < size <= signal.shape[1]:
        got = f"step {hop}, frames of {size} in a signal of {signal.shape[1]}"
        raise InvalidInputError("Frames lie within the signal, at least one step apart", got=got)
    count = 1 + (signal.shape[1] - size) // hop
    check_made((signal.shape[0], count, size, 2))
    frames = signal[:, np.arange(count)[:, None] * hop + np.arange(size)]
    if window is not None:
        frames = frames * window[:, None]
    return _dft(frames, None, 2, 0, onesided)


def _register_window(name: str, weights: tuple[float, ...]) -> None:
    def window(size: Static, /, *, output_datatype: int = 1, periodic: int = 1) -> Value:
        count = int(_scalar(size))
        check_made((count,))
        angle = 2 * np.pi * np.arange(count) / max(count if periodic else count - 1, 1)
        values = np.asarray(sum(w * np.cos(i * angle) for i, w in enumerate(weights)))
        return values.astype(element_type(output_datatype))

    op(name)(window)


_register_window("HannWindow", (0.5, -0.5))
_register_window("HammingWindow", (25 / 46, -21 / 46))
_register_window("BlackmanWindow", (0.42, -0.5, 0.08))


@op("MelWeightMatrix")
def mel_weight_matrix(
    bins: Static, length: Static, rate: Static, low: Static, high: Static, /, *, output_datatype: int = 1
) -> Value:
    """Returns the matrix of triangular filters, evenly spaced on the mel scale, from spectrum bins to mel bins."""
    count, size = int(_scalar(bins)), int(_scalar(length))
    check_made((size // 2 + 1, count))
    first, last = (2595 * np.log10(1 + _scalar(edge) / 700) for edge in (low, high))
    mels = first + np.arange(count + 2) * (last - first) / (count + 2)
    corner = np.floor((size + 1) * 700 * (10 ** (mels / 2595) - 1) / _scalar(rate)).astype(np.int64)
    left, centre, right = corner[:-2], corner[1:-1], corner[2:]
    bin = np.arange(size // 2 + 1)[:, None]
    rising = np.where(left == centre, bin == centre, (bin - left) / np.maximum(centre - left, 1))
    falling = (right - bin) / np.maximum(right - centre, 1)
    lower_half = np.where((bin >= left) & (bin <= centre), rising, 0)
    y = np.where((bin >= centre) & (bin < right), falling, lower_half)
    return y.astype(element_type(output_datatype))
