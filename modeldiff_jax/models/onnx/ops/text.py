"""Operators on strings, which stay on the host in arrays of objects, and counts of n-grams."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError, LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import check_made, pattern_bytes
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, add_at, xp
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64


@op("StringConcat")
def string_concat(a: Static, b: Static, /) -> Value:
    """Concatenates strings element by element, with broadcasting."""
    return np.asarray(np.add(a, b), object)


@op("StringSplit")
def string_split(x: Static, /, *, delimiter: str | None = None, maxsplit: int | None = None) -> tuple[Value, Value]:
    """Splits each string; returns the parts, padded with empty strings, and their number."""
    most = -1 if maxsplit is None else maxsplit
    parts = [str(v).split(delimiter or None, most) for v in x.flat]
    counts = np.asarray([len(p) for p in parts], np.int64)
    width = int(counts.max(initial=0))
    check_made((len(parts), width))
    table = np.empty((len(parts), width), object)
    table[:] = ""
    for row, strings in zip(table, parts, strict=True):
        row[: len(strings)] = strings
    return table.reshape(*x.shape, width), counts.reshape(x.shape)


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@op("StringNormalizer")
def string_normalizer(
    x: Static,
    /,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Value:
    """Removes stop words from a vector (or a matrix of one row) of strings, and changes their case."""
    if x.ndim not in (1, 2) or (x.ndim == 2 and x.shape[0] != 1):
        raise InvalidInputError("StringNormalizer takes a vector or a matrix of one row", got=f"shape {x.shape}")
    changes: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    if case_change_action not in changes:
        raise InvalidInputError(f"The change of case is one of {', '.join(changes)}", got=case_change_action)
    change = changes[case_change_action]
    compared: Callable[[str], str] = str if is_case_sensitive else str.casefold
    stops = {compared(word) for word in stopwords or ()}
    words = [_without_accents(str(v)) for v in x.flat]
    normalised = [change(word) for word in words if compared(word) not in stops] or [""]
    return np.asarray(normalised, object).reshape((1, -1) if x.ndim == 2 else (-1,))


@op("RegexFullMatch")
def regex_full_match(x: Static, /, *, pattern: str | None = None) -> Value:
    """Returns whether each whole string matches the pattern, in time linear in the string."""
    compiled = _compiled(pattern or "")
    return np.asarray([compiled.fullmatch(str(v)) is not None for v in x.flat], bool).reshape(x.shape)


def _compiled(pattern: str) -> Any:
    """Compiles a pattern with RE2, whose syntax the operator's definition prescribes.

    Raises:
      UnsupportedModelError: not in RE2's syntax, which has no back-references and no lookaround.
      LimitExceededError: the compiled pattern takes more memory than the limits allow.
    """
    import re2  # few models use this operator

    options = re2.Options()
    options.max_mem, options.log_errors = pattern_bytes(), False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace")[:80]
    if "too large" in reason:
        raise LimitExceededError(
            f"The limit `pattern_bytes` is {pattern_bytes():,}",
            got=f"{reason}: {pattern[:80]!r}",
            fix="if you trust this file, raise it: Limits(pattern_bytes=...)",
        )
    raise UnsupportedModelError(
        "A pattern is a regular expression in the syntax of RE2",
        got=f"{reason} in {pattern[:80]!r}",
        fix="write it without: https://github.com/google/re2/wiki/Syntax",
    )


@op("TfIdfVectorizer")
def tf_idf_vectorizer(
    x: Value,
    /,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Value:
    """Counts each n-gram of a pool in each row of `x`, with gaps of up to `max_skip_count`; or returns its weight."""
    if mode not in ("TF", "IDF", "TFIDF") or (pool_int64s is None) == (pool_strings is None):
        raise InvalidInputError("TfIdfVectorizer has a mode and one pool", got=mode)
    pool = np.asarray(pool_int64s, np.int64) if pool_strings is None else np.asarray(pool_strings, object)
    if pool_strings is None and x.dtype != np.int64:
        pool = x64.saturated(pool)
    m, rows = xp(x), x.reshape(math.prod(x.shape[:-1]), *x.shape[-1:]) if x.ndim else x.reshape(1, 1)
    starts = [*ngram_counts, len(pool)]
    columns = np.asarray(ngram_indexes, np.int64)
    if sorted(starts) != starts or starts[0] < 0 or columns.min(initial=0) < 0:
        raise InvalidInputError("A pool lists its n-grams by length", got=f"{starts}")
    width = int(columns.max(initial=-1)) + 1
    check_made((rows.shape[0], width))
    y = m.zeros((rows.shape[0], width), np.float32)
    first = 0  # number of the first n-gram of this length
    for length, (start, end) in enumerate(pairwise(starts), 1):
        grams = pool[start:end].reshape(-1, length)
        index = columns[first : first + len(grams)]
        first += len(grams)
        if len(index) != len(grams):
            raise InvalidInputError("Each n-gram of a pool has an index", got=f"{len(columns)} indices")
        if not (min_gram_length <= length <= max_gram_length and len(grams)):
            continue
        for step in range(1, 2 if length == 1 else max_skip_count + 2):
            count = rows.shape[1] - (length - 1) * step
            if count <= 0:
                break
            check_made((rows.shape[0], count, len(grams)))
            equal: Value = True
            for i in range(length):
                equal = equal & m.equal(rows[:, i * step : i * step + count, None], grams[:, i])
            y = add_at(y, index, m.sum(equal, axis=1, dtype=np.float32))
    if mode != "TF":
        scale = np.ones(width, np.float32)
        if weights is not None:
            scale[: len(weights)] = weights[:width]
        y = (m.where(y > 0, scale, 0) if mode == "IDF" else y * scale).astype(np.float32)
    return y.reshape((*x.shape[:-1], width))
