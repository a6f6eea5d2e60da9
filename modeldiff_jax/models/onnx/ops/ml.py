"""`ai.onnx.ml`: linear models, scalers and encoders. Strings stay on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from modeldiff_jax.models.graph.strings import Strings
from modeldiff_jax.models.graph.values import HIGHEST, Value, astype, known
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64

ML = "ai.onnx.ml"


def floats(x: Value) -> Value:
    """Returns features as (examples, features) in float32."""
    x = jnp.asarray(x)
    return astype(x if x.ndim > 1 else x[None], np.float32)


def features(x: Value) -> Value:
    """Returns (examples, features) in the type in which trees compare them: float64 unchanged, else float32."""
    return jnp.atleast_2d(x) if x.dtype == np.float64 else floats(x)


def _vector(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)


def transformed(scores: Value, name: str) -> Value:
    """Applies a post-transform to the scores of several classes or targets."""
    match name:
        case "NONE" | "":
            return scores
        case "LOGISTIC":
            return jax.nn.sigmoid(scores)
        case "SOFTMAX":
            return jax.nn.softmax(scores, -1)
        case "SOFTMAX_ZERO":  # scores of 0 stay 0
            logits = jnp.where(scores == 0, -jnp.inf, scores)
            return jnp.where(scores == 0, 0, jax.nn.softmax(logits, -1))
        case "PROBIT":
            return jax.scipy.special.ndtri(scores)
    raise UnsupportedModelError("A post-transform is one that the specification lists", got=name)


def labelled(index: Value, strings: Sequence[str] | None, integers: Sequence[int] | None) -> Value:
    """Returns the labels at `index`; the index itself if there are no labels."""
    if strings:
        return _strings_at(index, strings)
    table = np.asarray(integers, np.int64) if integers else None
    return (
        astype(index, np.int64) if table is None else x64.in_types_of((table, index), lambda: jnp.asarray(table)[index])
    )


def _strings_at(indices: Value, words: Sequence[str]) -> Value:
    """Returns the strings at indices into a list of words, as `Strings` if the indices are traced."""
    if known(indices):
        return np.array(words, object)[np.asarray(indices)]
    return Strings(astype(indices, np.int32), tuple(words))


def _norm(x: Value, norm: str) -> Value:
    match norm:
        case "MAX":
            return x.max(-1, keepdims=True)
        case "L1":
            return jnp.abs(x).sum(-1, keepdims=True)
        case "L2":
            return jnp.sqrt((x * x).sum(-1, keepdims=True))
    raise UnsupportedModelError("A norm is MAX, L1 or L2", got=norm)


@op("Normalizer", domain=ML)
def normalizer(x: Value, /, *, norm: str = "MAX") -> Value:
    """Divides each example by its norm."""
    wide = astype(jnp.asarray(x), np.float32)
    divisor = _norm(wide, norm)
    return wide / jnp.where(divisor == 0, 1, divisor)


@op("Scaler", domain=ML)
def scaler(x: Value, /, *, offset: Sequence[float] | None = None, scale: Sequence[float] | None = None) -> Value:
    """Returns (x - offset) * scale."""
    wide = x if x.dtype == np.float64 else astype(x, np.float32)
    return astype((wide - _vector(offset or (0,))) * _vector(scale or (1,)), np.float32)


@op("Binarizer", domain=ML)
def binarizer(x: Value, /, *, threshold: float = 0.0) -> Value:
    """Returns 1 where x is above the threshold, 0 elsewhere."""
    x = jnp.asarray(x)
    return astype(x > threshold, x.dtype)


@op("Imputer", domain=ML)
def imputer(
    x: Value,
    /,
    *,
    imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Value:
    """Replaces one value (perhaps NaN) in x, by one other value or by another in each column."""
    x = jnp.asarray(x)
    imputed: Sequence[float] | None
    if jnp.issubdtype(x.dtype, jnp.integer):
        replaced, imputed = x == replaced_value_int64, imputed_value_int64s
    else:
        replaced = jnp.isnan(x) if np.isnan(replaced_value_float) else x == replaced_value_float
        imputed = imputed_value_floats
    if not imputed:
        raise InvalidModelError("An Imputer has values of its input's type", got="none")
    return jnp.where(replaced, np.asarray(imputed).astype(x.dtype), x)


@op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(x: Value, y: Value, /) -> Value:
    """Returns the columns of the last axis at indices `y`."""
    return jnp.take(jnp.atleast_2d(x), jnp.asarray(y).reshape(-1), axis=-1)


@op("FeatureVectorizer", domain=ML)
def feature_vectorizer(*xs: Value, inputdimensions: Sequence[int] | None = None) -> Value:
    """Concatenates the features of all inputs."""
    sizes = inputdimensions or [x.shape[-1] for x in xs]
    if len(sizes) != len(xs):
        raise InvalidModelError("Each input has a size", got=f"{len(sizes)} sizes for {len(xs)}")
    return jnp.concatenate([floats(x)[..., :n] for x, n in zip(xs, sizes, strict=True)], -1)


@op("OneHotEncoder", domain=ML)
def one_hot_encoder(
    x: Value, /, *, cats_int64s: Sequence[int] | None = None, cats_strings: Sequence[str] | None = None, zeros: int = 1
) -> Value:
    """Returns a new last axis with 1 at each value's category, 0 elsewhere."""
    if cats_strings:
        return (np.asarray(x, object)[..., None] == np.array(cats_strings, object)).astype(np.float32)
    categories = np.asarray(cats_int64s or (), np.int64)
    equal = x64.in_types_of((x, categories), lambda: astype(x, np.int64)[..., None] == categories)
    return astype(equal, np.float32)


def _mapped(x: Value, keys: np.ndarray, values: np.ndarray, default: Any) -> Value:
    """Returns, for each element, the value at the key that it equals, or the default."""
    if keys.shape != values.shape:
        raise InvalidModelError("Each key has one value", got=f"{keys.size} keys, {values.size} values")
    if keys.dtype == object:
        table = dict(zip(keys.tolist(), values.tolist(), strict=True))
        results = [table.get(v, default) for v in np.asarray(x).ravel().tolist()]
        return np.array(results, values.dtype).reshape(np.shape(x))
    if values.dtype == object:
        indices = _mapped(x, keys, np.arange(values.size, dtype=np.int32), np.int32(values.size))
        return _strings_at(indices, (*values.tolist(), default))
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]

    def looked_up() -> Value:
        index = jnp.clip(jnp.searchsorted(keys, x), 0, keys.size - 1)
        equal = jnp.asarray(keys)[index] == x
        if keys.dtype.kind == "f":
            equal = equal | (jnp.isnan(jnp.asarray(keys)[index]) & jnp.isnan(x))
        return jnp.where(equal, jnp.asarray(values)[index], jnp.asarray(default, values.dtype))

    return x64.in_types_of((x, keys, values), looked_up)


def _table(tensor: Any, strings: Any, integers: Any, numbers: Any) -> np.ndarray:
    """Returns keys or values from the one of several attributes that holds them."""
    if tensor is not None:
        return np.asarray(tensor).ravel()
    if strings:
        return np.array(strings, object)
    return np.asarray(integers, np.int64) if integers else np.asarray(numbers or (), np.float32)


@op("LabelEncoder", domain=ML)
def label_encoder_1(
    x: Value,
    /,
    *,
    classes_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Value:
    """Maps strings to their indices in a list, or indices to strings."""
    classes, indices = np.array(classes_strings or (), object), np.arange(len(classes_strings or ()))
    if x.dtype == object:
        return _mapped(x, classes, indices, default_int64)
    return _mapped(x, indices, classes, default_string)


@op("LabelEncoder", domain=ML, since=2)
def label_encoder(
    x: Value,
    /,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Any = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Any = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Any = None,
) -> Value:
    """Maps each element to its value in a table."""
    keys = _table(keys_tensor, keys_strings, keys_int64s, keys_floats)
    values = _table(values_tensor, values_strings, values_int64s, values_floats)
    default: Any = {"O": default_string, "i": default_int64}.get(values.dtype.kind, default_float)
    return _mapped(x, keys, values, default if default_tensor is None else np.ravel(default_tensor)[0])


@op("CategoryMapper", domain=ML)
def category_mapper(
    x: Value,
    /,
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Value:
    """Maps strings to integers, or integers to strings."""
    strings, integers = np.array(cats_strings or (), object), np.asarray(cats_int64s or (), np.int64)
    if x.dtype == object:
        return _mapped(x, strings, integers, default_int64)
    return _mapped(x, integers, strings, default_string)


@op("ZipMap", domain=ML)
def zip_map(
    x: Value,
    /,
    *,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
) -> Value:
    """Returns the scores unchanged, a column for each label, where ONNX has a list of dictionaries."""
    return x


def _matrix(coefficients: Sequence[float], rows: int, features: int) -> np.ndarray:
    flat = np.asarray(coefficients, np.float32)
    if flat.size != rows * features:
        raise InvalidInputError(
            "There is a coefficient for each target and feature", got=f"{flat.size} for {rows} x {features}"
        )
    return flat.reshape(rows, features)


@op("LinearRegressor", domain=ML)
def linear_regressor(
    x: Value,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
) -> Value:
    """Returns X W + b."""
    x = floats(x)
    y = jnp.matmul(x, _matrix(coefficients or (), targets, x.shape[-1]).T, precision=HIGHEST)
    return transformed(y + _vector(intercepts) if intercepts else y, post_transform)


@op("LinearClassifier", domain=ML)
def linear_classifier(
    x: Value,
    /,
    *,
    coefficients: Sequence[float],
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    intercepts: Sequence[float] | None = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> tuple[Value, Value]:
    """Returns the label of the largest score in X W + b, and the scores; one row of W decides between two labels."""
    x = floats(x)
    labels = len(classlabels_strings or classlabels_ints or ())
    rows = len(intercepts) if intercepts else len(coefficients) // max(x.shape[-1], 1)
    scores = jnp.matmul(x, _matrix(coefficients, rows, x.shape[-1]).T, precision=HIGHEST)
    scores = scores + _vector(intercepts) if intercepts else scores
    if rows > 1:
        index, scores = jnp.argmax(scores, -1), transformed(scores, post_transform)
    else:
        first = scores[:, 0]
        index = astype(first > 0, np.int32)
        if labels == 2:
            positive = transformed(first, post_transform) if post_transform in ("LOGISTIC", "PROBIT") else first
            scores = jnp.stack([1 - positive, positive], -1)
        else:
            scores = transformed(scores, post_transform)
    return labelled(index, classlabels_strings, classlabels_ints), scores
