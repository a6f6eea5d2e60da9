"""Errors: one tree, whose messages say the rule, what was got, where, and what to do.

The command line turns any `ModelDiffError` into exit code 2; any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_PART = 1000
"""Characters of each part of an error: names in a model may be of any length, and are quoted."""


class ModelDiffError(Exception):
    """Root of every error this package raises on purpose.

    Args:
      rule: what must hold, as a sentence without a full stop.
      got: what was got instead.
      where: file, node or argument that breaks the rule.
      fix: what the user can do.

    The middle of a part longer than `LONGEST_PART` is replaced by a note of its length.
    """

    def __init__(self, rule: str, *, got: str = "", where: str = "", fix: str = "") -> None:
        self.rule, self.got, self.where, self.fix = map(shortened, (rule, got, where, fix))
        labelled = (("", self.rule), ("Got: ", self.got), ("Where: ", self.where), ("To do: ", self.fix))
        super().__init__(" ".join(f"{label}{part}." for label, part in labelled if part))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.rule, self.got, self.where, self.fix)

    def to_dict(self) -> dict[str, str]:
        """Returns type, rule, got, where and fix as JSON-able data."""
        fields = {"rule": self.rule, "got": self.got, "where": self.where, "fix": self.fix}
        return {"type": type(self).__name__, **fields}


def _rebuilt(kind: type[ModelDiffError], rule: str, got: str, where: str, fix: str) -> ModelDiffError:
    return kind(rule, got=got, where=where, fix=fix)


class InvalidModelError(ModelDiffError):
    """The file or object is not a well-formed model."""


class UnsafeModelError(InvalidModelError):
    """The model requires something that no model may do, for example reading outside its folder."""


class UnsupportedModelError(ModelDiffError):
    """The model is well-formed but needs an operator, domain, type or mode that is not supported."""


class NotStaticError(UnsupportedModelError):
    """A value that must be known while tracing (a shape, an axis, a branch) depends on traced data."""


class LimitExceededError(ModelDiffError):
    """A limit of `limits.py` was hit."""


class InvalidInputError(ModelDiffError, ValueError):
    """An argument, a seed or an array has the wrong shape, type, range or length."""


class NonFiniteError(ModelDiffError):
    """A model's outputs hold NaN or infinity, so distances between them are meaningless."""


class ProbeSetMismatchError(ModelDiffError):
    """DDVs made under different probe sets were about to be compared."""


class NotAdaptableError(ModelDiffError):
    """A probe cannot be turned into this model's input."""


class ForkedProcessError(ModelDiffError):
    """JAX ran before this process was forked off, so it would hang in it."""


class MissingExtraError(ModelDiffError, ImportError):
    """An optional dependency is needed and absent; `fix` holds the line that installs it."""


class ChildFailedError(ModelDiffError):
    """A child process that a model ran in ended without a response."""


def error_from(record: Mapping[str, str]) -> ModelDiffError:
    """Returns the error that `ModelDiffError.to_dict` described; its root for a type that is not of this tree."""
    kind = globals().get(record.get("type", ""), ModelDiffError)
    if not (isinstance(kind, type) and issubclass(kind, ModelDiffError)):
        kind = ModelDiffError
    return kind(record["rule"], got=record["got"], where=record["where"], fix=record["fix"])


def shortened(text: str, longest: int = LONGEST_PART) -> str:
    """Returns a text of at most `longest` characters: its start and end, and between them a count of the others.

    Args:
      text: of any length.
      longest: 100 or more.
    """
    if len(text) <= longest:
        return text
    note = f" ... ({len(text) - longest:,} and more characters left out) ... "
    kept = (longest - len(note)) // 2
    return text[:kept] + note + text[-kept:]
