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
    """(examples, features) in float32."""
    x = jnp.asarray(x)
    return astype(x if x.ndim > 1 else x[None], np.float32)


def features(x: Value) -> Value:
    """(examples, features) as trees compare them: float64 as it is, anything else in float32."""
    return jnp.atleast_2d(x) if x.dtype == np.float64 else floats(x)


def _vector(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)


def transformed(scores: Value, name: str) -> Value:
    """Scores of several classes or targets behind a post-transform."""
    match name:
        case "NONE" | "":
            return scores
        case "LOGISTIC":
            return jax.nn.sigmoid(scores)
        case "SOFTMAX":
            return jax.nn.softmax(scores, -1)
        case "SOFTMAX_ZERO":  # scores of 0 stay so
            kept = jnp.where(scores == 0, -jnp.inf, scores)
            return jnp.where(scores == 0, 0, jax.nn.softmax(kept, -1))
        case "PROBIT":
            return jax.scipy.special.ndtri(scores)
    raise UnsupportedModelError("A post-transform is one that the specification lists", got=name)


def labelled(index: Value, strings: Sequence[str] | None, integers: Sequence[int] | None) -> Value:
    """The labels at `index`; without any, the index itself."""
    if strings:
        return _chosen(index, strings)
    table = np.asarray(integers, np.int64) if integers else None
    return (
        astype(index, np.int64) if table is None else x64.in_types_of((table, index), lambda: jnp.asarray(table)[index])
    )


def _chosen(places: Value, words: Sequence[str]) -> Value:
    """The strings at places, which are `Strings` where the places are traced."""
    if known(places):
        return np.array(words, object)[np.asarray(places)]
    return Strings(astype(places, np.int32), tuple(words))


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
    """Each example over its norm."""
    wide = astype(jnp.asarray(x), np.float32)
    by = _norm(wide, norm)
    return wide / jnp.where(by == 0, 1, by)


@op("Scaler", domain=ML)
def scaler(x: Value, /, *, offset: Sequence[float] | None = None, scale: Sequence[float] | None = None) -> Value:
    """(x - offset) * scale."""
    wide = x if x.dtype == np.float64 else astype(x, np.float32)
    return astype((wide - _vector(offset or (0,))) * _vector(scale or (1,)), np.float32)


@op("Binarizer", domain=ML)
def binarizer(x: Value, /, *, threshold: float = 0.0) -> Value:
    """1 above the threshold, 0 elsewhere."""
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
    """x with one value (perhaps NaN) replaced, by one other or by each column's own."""
    x = jnp.asarray(x)
    new: Sequence[float] | None
    if jnp.issubdtype(x.dtype, jnp.integer):
        old, new = x == replaced_value_int64, imputed_value_int64s
    else:
        old, new = (jnp.isnan(x) if np.isnan(replaced_value_float) else x == replaced_value_float), imputed_value_floats
    if not new:
        raise InvalidModelError("An Imputer has values of its input's type", got="none")
    return jnp.where(old, np.asarray(new).astype(x.dtype), x)


@op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(x: Value, y: Value, /) -> Value:
    """The columns of the last axis that `y` names."""
    return jnp.take(jnp.atleast_2d(x), jnp.asarray(y).reshape(-1), axis=-1)


@op("FeatureVectorizer", domain=ML)
def feature_vectorizer(*xs: Value, inputdimensions: Sequence[int] | None = None) -> Value:
    """The features of all inputs, side by side."""
    sizes = inputdimensions or [x.shape[-1] for x in xs]
    if len(sizes) != len(xs):
        raise InvalidModelError("Each input has a size", got=f"{len(sizes)} sizes for {len(xs)}")
    return jnp.concatenate([floats(x)[..., :n] for x, n in zip(xs, sizes, strict=True)], -1)


@op("OneHotEncoder", domain=ML)
def one_hot_encoder(
    x: Value, /, *, cats_int64s: Sequence[int] | None = None, cats_strings: Sequence[str] | None = None, zeros: int = 1
) -> Value:
    """1 at each value's category."""
    if cats_strings:
        return (np.asarray(x, object)[..., None] == np.array(cats_strings, object)).astype(np.float32)
    categories = np.asarray(cats_int64s or (), np.int64)
    hit = x64.in_types_of((x, categories), lambda: astype(x, np.int64)[..., None] == categories)
    return astype(hit, np.float32)


def _mapped(x: Value, keys: np.ndarray, values: np.ndarray, default: Any) -> Value:
    """`values` at the key each element equals, the default elsewhere."""
    if keys.shape != values.shape:
        raise InvalidModelError("Each key has one value", got=f"{keys.size} keys, {values.size} values")
    if keys.dtype == object:
        table = dict(zip(keys.tolist(), values.tolist(), strict=True))
        found = [table.get(v, default) for v in np.asarray(x).ravel().tolist()]
        return np.array(found, values.dtype).reshape(np.shape(x))
    if values.dtype == object:
        places = _mapped(x, keys, np.arange(values.size, dtype=np.int32), np.int32(values.size))
        return _chosen(places, (*values.tolist(), default))
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]

    def found_values() -> Value:
        at = jnp.clip(jnp.searchsorted(keys, x), 0, keys.size - 1)
        match = jnp.asarray(keys)[at] == x
        if keys.dtype.kind == "f":
            match = match | (jnp.isnan(jnp.asarray(keys)[at]) & jnp.isnan(x))
        return jnp.where(match, jnp.asarray(values)[at], jnp.asarray(default, values.dtype))

    return x64.in_types_of((x, keys, values), found_values)


def _table(tensor: Any, strings: Any, integers: Any, numbers: Any) -> np.ndarray:
    """Keys or values, in whichever attribute they stand."""
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
    """Strings to their places in the list, or places to strings."""
    classes, places = np.array(classes_strings or (), object), np.arange(len(classes_strings or ()))
    if x.dtype == object:
        return _mapped(x, classes, places, default_int64)
    return _mapped(x, places, classes, default_string)


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
    """Each element's value in a table."""
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
    """Strings to integers, or back."""
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
    """The scores themselves, as a tensor with one column a label: not a list of dictionaries, one an example."""
    return x


def _matrix(coefficients: Sequence[float], rows: int, features: int) -> np.ndarray:
    found = np.asarray(coefficients, np.float32)
    if found.size != rows * features:
        raise InvalidInputError(
            "Coefficients are one for each target and feature", got=f"{found.size} for {rows} x {features}"
        )
    return found.reshape(rows, features)


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
    """X W + b."""
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
    """The label of the largest of X W + b, and all of them; one row of W decides between two labels."""
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
            sure = transformed(first, post_transform) if post_transform in ("LOGISTIC", "PROBIT") else first
            scores = jnp.stack([1 - sure, sure], -1)
        else:
            scores = transformed(scores, post_transform)
    return labelled(index, classlabels_strings, classlabels_ints), scores
