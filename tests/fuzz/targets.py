"""What is fuzzed: whatever the bytes, only an error of ours may come out, in time and within memory."""

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.inputs.sizes import resolve
from modeldiff_jax.models.model import Origin
from modeldiff_jax.models.onnx import read_graph
from modeldiff_jax.models.onnx.initializers import cut_out
from modeldiff_jax.models.weights.safetensors import is_safetensors, read_safetensors
from modeldiff_jax.models.weights.torch_file import is_torch, read_torch

# Small bounds, so that a lucky number costs little
SMALL = Limits(made_elements=10**5, folded_bytes=10**6, tensor_elements=10**6, loop_trips=20, traced_calls=2000)


def same_when_put_back(data):
    """Whether bytes are a model; if so, with its weights cut out and put back it is the same one."""
    rest, weights = cut_out(data, least=1)
    try:
        whole = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError):
        return False
    proto = onnx.load_model_from_string(rest)
    for i, raw in weights.items():
        proto.graph.initializer[i].raw_data = raw.tobytes()
    assert proto.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    return True


def reader(data, folder=None):
    """ONNX bytes -> graph."""
    same_when_put_back(data)
    try:
        graph = read_graph(data, folder=folder, limits=SMALL)
    except ModelDiffError:
        return None
    assert graph.outputs
    return graph


def conversion(data):
    """ONNX bytes -> a model with sizes for its inputs, folded and traced."""
    try:
        graph = read_graph(data, limits=SMALL)
        return resolve(to_model(graph, Origin("fuzz", "onnx"), SMALL)).model
    except ModelDiffError:
        return None


def weights(data):
    """Bytes -> arrays, all of which can be read to their last element."""
    mapped = np.frombuffer(data, np.uint8)
    try:
        if is_safetensors(mapped):
            arrays = read_safetensors(mapped, SMALL, "fuzz")
        elif is_torch(mapped):
            arrays = read_torch(mapped, SMALL, "fuzz")
        else:
            return None
    except ModelDiffError:
        return None
    for array in arrays.values():
        assert array.size <= SMALL.tensor_elements
        array.tobytes()
    return arrays
