"""Reads the tensors of an ONNX file; shape, type and number of bytes are checked against each other first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import Bytes
from modeldiff_jax.models.onnx.external_data import ExternalData
from modeldiff_jax.models.onnx.fields import text

_MAX_RANK = 64  # numpy's
_PACKED_BITS: dict[int, int] = {
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
}


class TensorReader:
    """Reads tensors of one model.

    Args:
      external: the model's data files.
      limits: `tensor_elements` applies.
      where: the file, for messages.
    """

    def __init__(self, external: ExternalData, limits: Limits, where: str) -> None:
        self._external, self._limits, self._where = external, limits, where

    def read(self, proto: TensorProto, label: str, raw: Bytes | None = None) -> np.ndarray:
        """Returns the values of a tensor.

        Args:
          proto: the tensor.
          label: its name, for messages.
          raw: its raw data, if they were split from the message.
        Raises:
          ModelDiffError: the tensor is inconsistent or too large, or its external data cannot be read.
        """
        shape = tuple(proto.dims)
        if any(dim < 0 for dim in shape) or len(shape) > _MAX_RANK:
            raise self._invalid(f"A tensor has at most {_MAX_RANK} sizes, none negative", f"shape {shape}", label)
        # without zeros: numpy refuses an empty array whose other sizes are too large
        elements = math.prod(dim for dim in shape if dim)
        self._limits.check("tensor_elements", elements, where=f"{self._where}, tensor `{label}`")
        if proto.data_location == TensorProto.EXTERNAL:
            if proto.data_type == TensorProto.STRING:
                raise self._invalid("Strings are stored in the model itself", "external strings", label)
            return self._from_bytes(proto, shape, label, self.external_bytes(proto, label))
        if proto.data_type == TensorProto.STRING:
            if len(proto.string_data) != math.prod(shape):
                got = f"{len(proto.string_data)} strings for {shape}"
                raise self._invalid("A tensor's data fill its shape", got, label)
            return np.array([text(s) for s in proto.string_data], object).reshape(shape)
        dtype, size = self.dtype(proto.data_type, label), self.size_of(proto)
        data = raw if raw is not None else proto.raw_data if proto.HasField("raw_data") else None
        if data is not None and len(data) != size:
            got = f"{len(data)} bytes for {shape} of {dtype.name} ({size} bytes)"
            raise self._invalid("A tensor's data fill its shape", got, label)
        if raw is not None:
            return self._from_bytes(proto, shape, label, raw)
        try:
            return np.asarray(numpy_helper.to_array(proto)).reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._invalid("A tensor's data fill its shape", str(error).splitlines()[0], label) from error

    def _from_bytes(self, proto: TensorProto, shape: tuple[int, ...], label: str, raw: Bytes) -> np.ndarray:
        """Returns a tensor whose data are outside of its message."""
        dtype = self.dtype(proto.data_type, label)
        if proto.data_type not in _PACKED_BITS:
            return raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
        whole = TensorProto(dims=shape, data_type=proto.data_type, raw_data=raw.tobytes())
        return np.asarray(numpy_helper.to_array(whole))

    def size_of(self, proto: TensorProto) -> int:
        """Returns the number of bytes that a tensor's shape and type need."""
        bits = _PACKED_BITS.get(proto.data_type) or 8 * self.dtype(proto.data_type, proto.name).itemsize
        return (math.prod(proto.dims) * bits + 7) // 8

    def external_bytes(self, proto: TensorProto, label: str) -> Bytes:
        """Reads a tensor's bytes from the data file that it names."""
        entries = {text(entry.key): text(entry.value) for entry in proto.external_data}
        return self._external.read(entries, self.size_of(proto), f"{self._where}, tensor `{label}`")

    def dtype(self, data_type: int, label: str) -> np.dtype[Any]:
        """Returns the numpy type of an ONNX element type.

        Raises:
          InvalidModelError: ONNX does not define the type.
        """
        try:
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
        except (KeyError, ValueError, TypeError) as error:
            raise self._invalid("A tensor has a known element type", f"type {data_type}", label) from error

    def _invalid(self, rule: str, got: str, label: str) -> InvalidModelError:
        return InvalidModelError(rule, got=got, where=f"{self._where}, `{label}`", fix="export the model again")
