"""Weight files and Flax modules: names find their places, and what does not fit is refused."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx, traverse_util

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.models.flax import from_flax
from modeldiff_jax.models.load import load
from modeldiff_jax.models.weights import load_weights
from tests.models.weights import files

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(linen.BatchNorm(use_running_average=True)(x))


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.norm(self.layers[0](x)))


def saved(path, arrays):
    """Arrays by name as a safetensors file."""
    header, position = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(map(np.ndarray.tobytes, arrays.values())))
    return path


def trained():
    """Variables that are not those of a fresh module, by dotted names."""
    variables = Linen().init(jax.random.key(0), X)
    variables = jax.tree.map(lambda v: np.asarray(v) + np.float32(0.25), variables)
    return variables, traverse_util.flatten_dict(variables, sep=".")


def test_a_linen_module_with_a_file(tmp_path):
    variables, names = trained()
    expected = Linen().apply(variables, X)
    file = saved(tmp_path / "w.safetensors", names)
    for weights in (file, str(file), load_weights(file)):
        model = from_flax(Linen(), weights, (None, 4))
        np.testing.assert_allclose(model(X), expected, rtol=1e-5, atol=1e-6)


def test_names_without_a_collection_are_parameters(tmp_path):
    module = linen.Dense(3)
    params = module.init(jax.random.key(0), X)["params"]
    arrays = {name: np.asarray(value) for name, value in params.items()}
    model = from_flax(module, saved(tmp_path / "w", arrays), (None, 4))
    np.testing.assert_allclose(model(X), module.apply({"params": params}, X), rtol=1e-5, atol=1e-6)


def test_an_nnx_module_with_a_file(tmp_path):
    names = {
        "layers.0.kernel": (4, 6),
        "layers.0.bias": (6,),
        "layers.1.kernel": (6, 3),
        "layers.1.bias": (3,),
        "norm.scale": (6,),
        "norm.bias": (6,),
        "norm.mean": (6,),
        "norm.var": (6,),
    }
    rng = np.random.default_rng(1)
    arrays = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in names.items()}
    model = from_flax(Nnx(), saved(tmp_path / "w", arrays), (None, 4))
    a = {name: array.astype(np.float64) for name, array in arrays.items()}
    h = X @ a["layers.0.kernel"] + a["layers.0.bias"]
    h = (h - a["norm.mean"]) / np.sqrt(a["norm.var"] + 1e-5) * a["norm.scale"] + a["norm.bias"]
    np.testing.assert_allclose(model(X), h @ a["layers.1.kernel"] + a["layers.1.bias"], rtol=1e-4, atol=1e-4)
    for wrong in (
        {**arrays, "more": np.zeros(2, np.float32)},
        {name: array for name, array in arrays.items() if name != "norm.var"},
        {**arrays, "norm.var": np.zeros(5, np.float32)},
    ):
        with pytest.raises(InvalidInputError):
            from_flax(Nnx(), saved(tmp_path / "w", wrong), (None, 4))


def test_a_pytorch_state_dict_with_names_and_axes_put_right(tmp_path):
    weight, bias = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32), np.float32([1, 2, 3])
    arrays = {"weight": weight, "bias": bias}
    (tmp_path / "w.pth").write_bytes(files.zip_file(files.state_dict_pickle(arrays), list(arrays.values())))
    state = load_weights(tmp_path / "w.pth")
    model = from_flax(linen.Dense(3), {"kernel": state["weight"].T, "bias": state["bias"]}, (None, 4))
    np.testing.assert_allclose(model(X), X @ weight.T + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [("params.a", "params.a.b"), ("params.a.b", "params.a")], ids=str)
def test_a_name_within_another_is_refused(names):
    with pytest.raises(InvalidInputError, match="beginning of another"):
        from_flax(linen.Dense(3), {name: np.zeros(2) for name in names}, (None, 4))


def test_weights_of_another_module_are_refused(tmp_path):
    with pytest.raises(InvalidInputError):
        from_flax(linen.Dense(3), saved(tmp_path / "w", {"kernel": np.zeros((5, 3), np.float32)}), (None, 4))


@pytest.mark.parametrize("kind", ["safetensors", "zip", "stream"])
def test_weights_alone_are_no_model_and_the_error_says_what_to_pass(tmp_path, kind):
    arrays = {"a": np.zeros(2, np.float32)}
    pickle = files.state_dict_pickle(arrays)
    write = {"zip": files.zip_file, "stream": files.legacy_file}
    file = tmp_path / "w"
    if kind == "safetensors":
        saved(file, arrays)
    else:
        file.write_bytes(write[kind](pickle, list(arrays.values())))
    with pytest.raises(UnsupportedModelError, match="from_flax"):
        load(file)


def test_models_hold_values_and_not_the_file(tmp_path):
    file = saved(tmp_path / "w", {"kernel": np.ones((4, 3), np.float32), "bias": np.zeros(3, np.float32)})
    model = from_flax(linen.Dense(3), file, (None, 4))
    file.write_bytes(bytes(file.stat().st_size))
    np.testing.assert_allclose(model(X), X @ np.ones((4, 3), np.float32), rtol=1e-5)
    assert all(isinstance(leaf, jnp.ndarray) for leaf in jax.tree.leaves(model.params))
