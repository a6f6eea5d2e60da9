"""The report of a lineage shows children below their parents."""

from modeldiff_jax.report import render
from tests.helpers import records


def test_children_are_indented_below_their_parent():
    table = render(records.lineage(None, 0, 1, None), "text").split("\n\n")[1].splitlines()
    assert [line.split("onnx")[0] for line in table[1:]] == ["0.", "  1.", "    2.", "3."]
    assert "none of these" in table[1]
    assert "4 models, 2 descend from none of the others" in render(records.lineage(None, 0, 1, None), "text")
