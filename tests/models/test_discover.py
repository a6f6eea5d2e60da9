"""Models among files and folders are found by content, in order, whatever their names."""

import os

import pytest

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.discover import model_files, model_sources
from tests.helpers.jax_models import mlp
from tests.helpers.onnx_graphs import model, node, value

ONNX = model([node("Relu", "x", "y")], [value("x", (2, 3))]).SerializeToString()


@pytest.fixture
def folder(tmp_path):
    """Five files that hold a model, two of them out of sight, and three that hold none."""
    for name in ("b.onnx", "a.bin", "inner/c", ".hidden/d.onnx", ".e.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(ONNX)
    for name in ("notes.onnx", "w.bin", "inner/readme.md"):
        (tmp_path / name).write_bytes(b"no model")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_files_are_recognised_by_content(folder):
    result, others = model_files(folder)
    assert [str(path.relative_to(folder)) for path in result] == ["a.bin", "b.onnx", "inner/c"]
    assert others == 3


def test_models_and_files_stay_as_they_are_and_folders_are_listed(folder):
    given = mlp(0)
    result, notes = model_sources([given, str(folder / "w.bin"), folder])
    assert result[:2] == [given, str(folder / "w.bin")]
    assert len(result) == 5
    assert len(notes) == 1
    assert "3" in notes[0]


@pytest.mark.parametrize("single", [lambda folder: str(folder / "a.bin"), lambda folder: mlp(0), lambda folder: folder])
def test_a_single_source_needs_no_list(folder, single):
    assert len(model_sources(single(folder))[0]) in (1, 3)


def test_none_is_no_source():
    assert model_sources(None) == ([], [])


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidInputError, match="no such path"):
        model_sources([tmp_path / "gone"])
    with pytest.raises(InvalidInputError, match="no files"):
        model_sources(tmp_path)
    (tmp_path / "a.onnx").write_text("text")
    with pytest.raises(InvalidInputError, match="1 other file"):
        model_sources(tmp_path)


def test_a_folder_of_very_many_files_is_refused(folder):
    with pytest.raises(LimitExceededError, match="listed_files"):
        model_files(folder, Limits(listed_files=4))
