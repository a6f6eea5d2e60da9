"""Reads the cases of ONNX's backend test suite, with inputs and outputs as plain values."""

import functools
import importlib.resources
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from modeldiff_jax.models.onnx import backend

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")


class Case:
    """One case: a name, a model, data sets of (inputs, outputs), and tolerances."""

    def __init__(self, kind, loaded):
        self.kind, self.name = kind, loaded.name
        self.rtol, self.atol = loaded.rtol, loaded.atol
        self._loaded = loaded

    @functools.cached_property
    def model(self):
        if self._loaded.model is not None:
            return self._loaded.model
        return onnx.load(f"{self._loaded.model_dir}/model.onnx")

    @functools.cached_property
    def data_sets(self):
        if self._loaded.data_sets is not None:
            return [tuple([plain(v) for v in side] for side in pair) for pair in self._loaded.data_sets]
        folders = sorted(importlib.resources.files("onnx").joinpath(self._loaded.model_dir).glob("test_data_set_*"))
        graph = self.model.graph
        return [tuple(stored(f, side, getattr(graph, side)) for side in ("input", "output")) for f in folders]

    def run(self):
        """Raises where the model does not run, or where an output is not the expected one."""
        rep = backend.prepare(self.model)
        for inputs, outputs in self.data_sets:
            given = [value for value, info in zip(inputs, self.model.graph.input, strict=False)]
            self.compare(outputs, rep.run(given))

    def compare(self, want, got):
        """Asserts equal types, shapes and values, within the case's tolerance."""
        if isinstance(want, (list, tuple)):
            assert len(want) == len(got)
            for one, other in zip(want, got, strict=True):
                self.compare(one, other)
        elif want is None:
            assert got is None
        else:
            assert isinstance(got, np.ndarray)
            Runner.assert_similar_outputs([want], [got], rtol=self.rtol, atol=self.atol)


def plain(value):
    """Returns an input or output as an array, a list or None."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return [plain(v) for v in numpy_helper.to_list(value)]
    if isinstance(value, onnx.OptionalProto):
        return plain(numpy_helper.to_optional(value))
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if value is None else np.asarray(value)


def stored(folder, side, infos):
    """Reads the values of one side of a data set on disk."""
    protos = {"tensor_type": onnx.TensorProto, "sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    values = []
    for i in range(len(list(folder.glob(f"{side}_*.pb")))):
        proto = protos[infos[i].type.WhichOneof("value")]()
        proto.ParseFromString((folder / f"{side}_{i}.pb").read_bytes())
        values.append(plain(proto))
    return values


@functools.cache
def cases():
    """Returns every case by kind and name."""
    with warnings.catch_warnings():  # noqa: TID251  # one thread
        warnings.simplefilter("ignore")  # the arithmetic of the cases overflows on purpose
        return {kind: {c.name: Case(kind, c) for c in load_model_tests(kind=kind)} for kind in KINDS}
