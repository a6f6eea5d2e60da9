"""Loading: what runs is what was hashed, whatever others do to the files meanwhile."""

import hashlib
import os

import numpy as np
import pytest
from onnx import TensorProto

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.models import files, zip_archive
from modeldiff_jax.models.load import load
from modeldiff_jax.models.onnx import external_data, initializers
from modeldiff_jax.models.weights import load_weights, safetensors, torch_file
from tests.helpers.onnx_graphs import external, model, node, tensor, value
from tests.models.weights import files as weight_files
from tests.models.weights.test_safetensors import entry, written

SHAPE = (128, 256)
SIZE = 4 * SHAPE[0] * SHAPE[1]
READERS = {initializers: "read_exactly", external_data: "read_range", safetensors: "read_range"}


def model_bytes(scale, inside=True):
    """y = x @ v @ w.T with two large weights, inside the file or one after the other in `w.bin`."""
    if inside:
        weights = [tensor(name, np.full(SHAPE, scale * (i + 1), np.float32)) for i, name in enumerate("vw")]
    else:
        weights = [external(name, SHAPE, "w.bin", TensorProto.FLOAT, offset=i * SIZE) for i, name in enumerate("vw")]
    return model(
        [node("MatMul", "x v", "h"), node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "h t", "y")],
        [value("x", ("n", SHAPE[0]))],
        [value("y", ("n", SHAPE[0]))],
        weights,
    ).SerializeToString()


def data_bytes(scale):
    return b"".join(np.full(SHAPE, scale * (i + 1), np.float32).tobytes() for i in range(2))


def after_first_read(monkeypatch, module, change):
    """Lets `change` happen as soon as a reader has read its first large part."""
    name = READERS[module]
    real, waiting = getattr(module, name), [change]

    def read(*arguments, **options):
        result = real(*arguments, **options)
        if waiting:
            waiting.pop()()
        return result

    monkeypatch.setattr(module, name, read)


def rewrite(path, data):
    """Writes over a file in place, and hides it as well as one can."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "beside"])
def test_a_file_cut_while_it_is_read_is_an_error(tmp_path, monkeypatch, inside):
    (tmp_path / "m.onnx").write_bytes(model_bytes(1, inside))
    (tmp_path / "w.bin").write_bytes(data_bytes(1))
    victim = tmp_path / ("m.onnx" if inside else "w.bin")
    after_first_read(monkeypatch, initializers if inside else external_data, lambda: os.truncate(victim, 100))
    with pytest.raises(InvalidModelError, match="must not change while it is read"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "beside"])
def test_a_file_rewritten_while_it_is_read_is_an_error(tmp_path, monkeypatch, inside):
    (tmp_path / "m.onnx").write_bytes(model_bytes(1, inside))
    (tmp_path / "w.bin").write_bytes(data_bytes(1))
    os.utime(tmp_path / "m.onnx", ns=(0, 0))
    os.utime(tmp_path / "w.bin", ns=(0, 0))
    victim, data = ("m.onnx", model_bytes(2)) if inside else ("w.bin", data_bytes(2))
    after_first_read(
        monkeypatch,
        initializers if inside else external_data,
        lambda: (tmp_path / victim).write_bytes(data),
    )
    with pytest.raises(InvalidModelError, match="must not change while it is read"):
        load(tmp_path / "m.onnx")


def test_the_hash_is_of_the_bytes_that_run_even_if_a_change_stays_hidden(tmp_path, monkeypatch):
    one, two, path = model_bytes(1), model_bytes(2), tmp_path / "m.onnx"
    path.write_bytes(one)
    after_first_read(monkeypatch, initializers, lambda: rewrite(path, two))
    loaded = load(path)
    halves = {float(np.asarray(array).flat[0]) for array in loaded.params.values()}
    sources = {(1.0, 2.0): one, (1.0, 4.0): None}  # the second: `v` of the old file, `w` of the new one
    cut = one.index(np.full(SHAPE, 1, np.float32).tobytes()) + SIZE
    expected = sources[tuple(sorted(halves))] or one[:cut] + two[cut:]
    assert loaded.origin.sha256 == hashlib.sha256(expected).hexdigest()


def test_hidden_changes_of_external_data_show_in_the_identity(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(model_bytes(1, inside=False))
    (tmp_path / "w.bin").write_bytes(data_bytes(1))
    before = load(tmp_path / "m.onnx").origin
    after_first_read(monkeypatch, external_data, lambda: rewrite(tmp_path / "w.bin", data_bytes(2)))
    after = load(tmp_path / "m.onnx").origin
    assert before.sha256 == after.sha256
    assert before.content_sha256 != after.content_sha256


def safetensors_file(path):
    header = {name: entry(shape=SHAPE, begin=i * SIZE, end=(i + 1) * SIZE) for i, name in enumerate("vw")}
    return written(path, header, data_bytes(1))


def torch_zip_file(path):
    arrays = {name: np.ones(SHAPE, np.float32) for name in "vw"}
    path.write_bytes(weight_files.zip_file(weight_files.state_dict_pickle(arrays), list(arrays.values())))
    return path


def torch_stream_file(path):
    arrays = {name: np.ones(SHAPE, np.float32) for name in "vw"}
    path.write_bytes(weight_files.legacy_file(weight_files.state_dict_pickle(arrays), list(arrays.values())))
    return path


@pytest.mark.parametrize("write", [safetensors_file, torch_zip_file, torch_stream_file])
@pytest.mark.parametrize("change", ["cut", "rewritten"])
def test_weights_cut_or_rewritten_while_they_are_read_are_an_error(tmp_path, monkeypatch, write, change):
    path = write(tmp_path / "w")
    os.utime(path, ns=(0, 0))
    real = files.read_exactly

    def read(stream, size, *arguments, **options):
        result = real(stream, size, *arguments, **options)
        if size >= SIZE:
            os.truncate(path, 500) if change == "cut" else path.write_bytes(bytes(path.stat().st_size))
        return result

    for module in (files, safetensors, torch_file, zip_archive):
        monkeypatch.setattr(module, "read_exactly", read)
    with pytest.raises(InvalidModelError, match="must not change while it is read"):
        load_weights(path)


def test_arrays_survive_their_file(tmp_path):
    path = safetensors_file(tmp_path / "w")
    arrays = load_weights(path)
    os.truncate(path, 0)
    assert [float(array.sum()) for array in arrays.values()] == [SHAPE[0] * SHAPE[1], 2.0 * SHAPE[0] * SHAPE[1]]


@pytest.mark.parametrize("blanks", range(0, 512, 8))
def test_safetensors_of_every_header_length_are_recognised(tmp_path, blanks):
    """A header length of 128 modulo 256 has the first bytes of a pickle."""
    path = safetensors_file(tmp_path / "w")
    length = int.from_bytes(path.read_bytes()[:8], "little")
    text = path.read_bytes()[8 : 8 + length].ljust((length + 7) // 8 * 8 + blanks)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data_bytes(1))
    assert list(load_weights(path)) == ["v", "w"]
    with pytest.raises(UnsupportedModelError, match="safetensors"):
        load(path)
