"""External data: only plain files below the model's folder, and only the bytes a tensor needs."""

import hashlib
import os

import numpy as np
import pytest
from onnx import TensorProto

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, UnsafeModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.load import load
from modeldiff_jax.models.onnx.external_data import ExternalData
from modeldiff_jax.models.onnx.reader import read_graph, self_contained
from tests.helpers.onnx_graphs import branch, external, model, node, tensor, value

WEIGHTS = np.arange(12, dtype="<f4")


@pytest.fixture
def folder(tmp_path):
    """A model's folder with good data, inside a folder that holds what must not be read."""
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(WEIGHTS.tobytes())
    inner = tmp_path / "model"
    (inner / "data").mkdir(parents=True)
    (inner / "w.bin").write_bytes(WEIGHTS.tobytes())
    (inner / "data" / "w.bin").write_bytes(b"\0" * 4 + WEIGHTS.tobytes())
    return inner


def read(folder, location="w.bin", shape=(12,), limits=DEFAULT, dtype=TensorProto.FLOAT, **entries):
    """The constant `w` of a model that keeps it in another file."""
    proto = model([node("Add", "x w", "y")], initializers=[external("w", shape, location, dtype, **entries)])
    return read_graph(proto.SerializeToString(), folder=folder, limits=limits).constants["w"]


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("w.bin", {}),
        ("w.bin", {"offset": 0, "length": 48}),
        ("data/w.bin", {"offset": 4}),
        ("w.bin", {"checksum": "0" * 40}),
    ],
)
def test_plain_files_below_the_folder_are_read(folder, location, entries):
    np.testing.assert_array_equal(read(folder, location, **entries), WEIGHTS)


def test_tensors_share_a_file(folder):
    np.testing.assert_array_equal(read(folder, shape=(2, 2), offset=16), WEIGHTS[4:8].reshape(2, 2))


def test_values_are_read_only(folder):
    assert not read(folder).flags.writeable


@pytest.mark.parametrize(
    ("dtype", "raw", "expected"),
    [
        (TensorProto.INT64, np.array([1, -2], "<i8").tobytes(), [1, -2]),
        (TensorProto.BOOL, b"\x01\x00", [True, False]),
        (TensorProto.FLOAT16, np.array([0.5, -2], "<f2").tobytes(), [0.5, -2]),
        (TensorProto.BFLOAT16, b"\x80\x3f\x00\xc0", [1.0, -2.0]),
        (TensorProto.INT4, b"\xf1", [1, -1]),
        (TensorProto.UINT4, b"\xf1", [1, 15]),
    ],
)
def test_types(folder, dtype, raw, expected):
    (folder / "t.bin").write_bytes(raw)
    np.testing.assert_array_equal(read(folder, "t.bin", (2,), dtype=dtype).astype(np.float64), expected)


def test_empty_tensor_in_empty_file(folder):
    (folder / "none.bin").write_bytes(b"")
    assert read(folder, "none.bin", (0, 3)).shape == (0, 3)


def dot_dot(folder):
    return "../secret.bin"


def dot_dot_inside(folder):
    return "data/../../secret.bin"


def absolute(folder):
    return str(folder.parent / "secret.bin")


def link_to_file(folder):
    (folder / "link.bin").symlink_to("../secret.bin")
    return "link.bin"


def link_to_file_inside(folder):
    (folder / "link.bin").symlink_to("w.bin")
    return "link.bin"


def dangling_link(folder):
    (folder / "link.bin").symlink_to("nowhere")
    return "link.bin"


def link_to_folder(folder):
    (folder / "link").symlink_to("../elsewhere")
    return "link/w.bin"


def hard_link(folder):
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    return "hard.bin"


def named_pipe(folder):
    os.mkfifo(folder / "pipe")
    return "pipe"


def a_folder(folder):
    return "data"


def file_as_folder(folder):
    return "w.bin/w.bin"


def empty_name(folder):
    return ""


def null_character(folder):
    return "w.bin\0.txt"


def backslashes(folder):
    return "..\\secret.bin"


def dot(folder):
    return "./w.bin"


def double_slash(folder):
    return "data//w.bin"


def trailing_slash(folder):
    return "w.bin/"


def too_long(folder):
    return "w" * 5000


ATTACKS = [
    dot_dot,
    dot_dot_inside,
    absolute,
    link_to_file,
    link_to_file_inside,
    dangling_link,
    link_to_folder,
    hard_link,
    named_pipe,
    a_folder,
    file_as_folder,
    empty_name,
    null_character,
    backslashes,
    dot,
    double_slash,
    trailing_slash,
    too_long,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_not_a_plain_file_below_the_folder_is_refused(folder, attack):
    with pytest.raises(UnsafeModelError) as caught:
        read(folder, attack(folder))
    assert "w" in caught.value.where
    assert caught.value.rule
    assert caught.value.got
    assert caught.value.fix


@pytest.mark.parametrize("place", ["attribute", "nested graph"])
def test_tensors_anywhere_are_held_to_the_same_rules(folder, place):
    bad = external("w", (12,), "../secret.bin")
    constant = node("Constant", "", "c", value=bad)
    if place == "nested graph":
        tensor_true = tensor("t", np.array(True))
        inner = branch([constant], "c")
        other = branch([node("Identity", "x", "d")], "d")
        proto = model([node("If", "t", "y", then_branch=inner, else_branch=other)], initializers=[tensor_true])
    else:
        proto = model([constant, node("Add", "x c", "y")])
    with pytest.raises(UnsafeModelError):
        read_graph(proto.SerializeToString(), folder=folder)


@pytest.mark.parametrize(
    ("shape", "entries"),
    [
        ((12,), {"offset": 4}),
        ((12,), {"offset": 2**62}),
        ((12,), {"offset": 10**30}),
        ((12,), {"offset": -4}),
        ((12,), {"offset": "twelve"}),
        ((12,), {"length": 44}),
        ((12,), {"length": 52}),
        ((12,), {"length": -48}),
        ((12,), {"length": "1e9"}),
        ((13,), {}),
        ((2**20, 2**10), {}),
        ((12,), {"location_": "w.bin"}),
        ((12,), {"__class__": "x"}),
        ((12,), {"size": "48"}),
    ],
)
def test_bytes_must_lie_within_the_file_and_fill_the_tensor(folder, shape, entries):
    with pytest.raises(InvalidModelError) as caught:
        read(folder, shape=shape, **entries)
    assert caught.value.where


def test_missing_file(folder):
    with pytest.raises(InvalidModelError, match=r"no file `gone\.bin`"):
        read(folder, "gone.bin")


def test_missing_model_folder(tmp_path):
    with pytest.raises(InvalidModelError):
        read(tmp_path / "gone")


def test_a_model_given_as_bytes_has_no_folder():
    with pytest.raises(InvalidModelError, match="load it from its file"):
        read(None)


def test_strings_cannot_be_external(folder):
    with pytest.raises(InvalidModelError, match="Strings"):
        read(folder, shape=(1,), dtype=TensorProto.STRING)


def test_all_tensors_together_are_bounded(folder):
    with ExternalData(folder, Limits(external_bytes=100)) as external_data:
        external_data.read({"location": "w.bin"}, 48, "a")
        external_data.read({"location": "w.bin"}, 48, "b")
        with pytest.raises(LimitExceededError, match="external_bytes"):
            external_data.read({"location": "w.bin"}, 48, "c")


def test_self_contained_holds_the_same_values_and_names_no_file(folder):
    nested = branch([node("Constant", "", "c", value=external("v", (3,), "data/w.bin", offset=4))], "c")
    proto = model(
        [node("Add", "x w", "s"), node("If", "t", "y", then_branch=nested, else_branch=nested)],
        inputs=[value("x", (12,)), value("t", (), TensorProto.BOOL)],
        initializers=[external("w", (12,), "w.bin")],
    )
    whole = self_contained(proto.SerializeToString(), folder=folder)
    assert b"w.bin" not in whole
    graph = read_graph(whole, folder=None)
    np.testing.assert_array_equal(graph.constants["w"], WEIGHTS)
    np.testing.assert_array_equal(graph.constants["1/c"], WEIGHTS[:3])


def test_self_contained_refuses_what_the_reader_refuses(folder):
    proto = model([node("Add", "x w", "y")], initializers=[external("w", (12,), "../secret.bin")])
    with pytest.raises(UnsafeModelError):
        self_contained(proto.SerializeToString(), folder=folder)


def test_self_contained_without_external_data_is_the_same_bytes():
    data = model([node("Relu", "x", "y")]).SerializeToString()
    assert self_contained(data, folder=None) == data


def saved(folder, data, location="w.bin", offset=0, extra=b""):
    """A model's file with twelve weights beside it; its origin."""
    folder.mkdir()
    proto = model(
        [node("Add", "x w", "s"), node("Add", "s v", "y")],
        [value("x", ("n", 12))],
        [value("y", ("n", 12))],
        [external("w", (12,), location, offset=offset), external("v", (12,), location, offset=offset)],
    )
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    (folder / location).write_bytes(b"-" * offset + data + extra)
    return load(folder / "m.onnx").origin


def test_the_identity_covers_the_external_data_that_are_used(tmp_path):
    one = saved(tmp_path / "one", WEIGHTS.tobytes())
    same = saved(tmp_path / "same", WEIGHTS.tobytes(), extra=b"of another model")
    other = saved(tmp_path / "other", (WEIGHTS + 1).tobytes())
    moved = saved(tmp_path / "moved", WEIGHTS.tobytes(), offset=4)
    assert one.sha256 == same.sha256 == other.sha256 == hashlib.sha256(file_of(tmp_path / "one")).hexdigest()
    assert one.content_sha256 == same.content_sha256
    assert len({origin.content_sha256 for origin in (one, other, moved)} | {one.sha256}) == 4


def file_of(folder):
    return (folder / "m.onnx").read_bytes()


def test_the_identity_is_what_its_definition_says(tmp_path):
    origin = saved(tmp_path / "m", WEIGHTS.tobytes(), offset=8)
    data = hashlib.sha256(WEIGHTS.tobytes()).hexdigest()
    lines = f"modeldiff-external-data-1\n{origin.sha256}\n{data} 8 48 w.bin"
    assert origin.content_sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_a_file_that_holds_its_own_data_is_identified_by_its_bytes(tmp_path):
    proto = model([node("Add", "x w", "y")], initializers=[tensor("w", WEIGHTS)])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    origin = load(tmp_path / "m.onnx").origin
    assert origin.content_sha256 == origin.sha256 == hashlib.sha256(proto.SerializeToString()).hexdigest()


def test_tensors_of_one_range_share_its_memory(folder):
    proto = model(
        [node("Add", "x w", "s"), node("Add", "s v", "y")],
        initializers=[external("w", (12,), "w.bin"), external("v", (12,), "w.bin")],
    )
    constants = read_graph(proto.SerializeToString(), folder=folder).constants
    assert np.shares_memory(constants["w"], constants["v"])
