"""ONNX models: `reader.py` makes a graph of a file, `ops/` holds the operators."""

from modeldiff_jax.models.onnx import ops as ops
from modeldiff_jax.models.onnx.reader import read_graph as read_graph
from modeldiff_jax.models.onnx.reader import read_graph_file as read_graph_file
