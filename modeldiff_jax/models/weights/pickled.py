"""Reads a pickle as data: an interpreter of the opcodes PyTorch writes, which can neither import nor call anything.

Python's unpickler imports classes and calls them, and is only as safe as the list of classes it may import. This one
imports nothing: a name in the pickle becomes a `Name`, a call a `Call`, and the reader of the file decides which names
and calls it supports. It refuses all others, and opcodes that PyTorch never writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.weights.safetensors import is_safetensors

_LONGEST_INTEGER = 16  # bytes; PyTorch's magic number has ten


@dataclass(frozen=True, slots=True)
class Name:
    """A name that the pickle would import: `module.name`."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True)
class Call:
    """A call that the pickle would make."""

    function: Any
    arguments: Any
    items: dict[str, Any] | None = None
    """Entries that the pickle adds to the result afterwards, if it is a dictionary."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a part of the file outside the pickle: a storage."""

    key: Any


_MARK = object()


def is_pickle(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a pickle: a protocol's opcode, and no safetensors header."""
    return head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and not is_safetensors(head)


class Unpickled:
    """The pickle in `data` that begins at position `start`.

    Attributes:
      value: numbers, strings, lists, tuples, dictionaries (keys as strings), `Name`s, `Call`s and `Reference`s.
      names: every name it would import, used or not.
      references: all its references to other parts of the file.
      end: position after it.

    Raises:
      InvalidModelError: truncated, inconsistent, or with an opcode that no state dict needs.
      LimitExceededError: more than `pickle_steps`.
    """

    def __init__(self, data: bytes, start: int, limits: Limits, where: str) -> None:
        self._data, self._position, self._where = data, start, where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.names: set[Name] = set()
        self.references: list[Reference] = []
        steps = 0
        while True:
            steps += 1
            limits.check("pickle_steps", steps, where=where)
            code = self._take(1)
            if code == b".":
                break
            step = _STEPS.get(code)
            if step is None:
                self._refuse("A weight file's pickle has only the steps that data need", f"step {code!r}")
            step(self)
        self.value, self.end = self._pop(), self._position
        if self._stack:
            self._refuse("A pickle is one value", "more than one")

    def _take(self, n: int) -> bytes:
        data = self._data[self._position : self._position + n]
        if len(data) != n:
            self._refuse("A pickle is whole", "its end")
        self._position += n
        return data

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, form: str) -> str:
        return self._decoded(self._take(self._number(form)))

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + 1000)
        if end < 0:
            self._refuse("A name in a pickle ends", "no end")
        line = self._take(end + 1 - self._position)
        return self._decoded(line[:-1])

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("Strings in a pickle are UTF-8", repr(raw[:40]))

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("A pickle takes no more values than it has put", "an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _marked(self) -> list[Any]:
        """Removes the last mark and the values above it from the stack; returns the values."""
        mark = len(self._stack) - 1
        while mark >= 0 and self._stack[mark] is not _MARK:
            mark -= 1
        if mark < 0:
            self._refuse("A pickle takes no more values than it has put", "no mark")
        values = self._stack[mark + 1 :]
        del self._stack[mark:]
        return values

    def _tuple(self, n: int) -> None:
        values = [self._pop() for _ in range(n)]
        self._push(tuple(reversed(values)))

    def _integer(self) -> None:
        length = self._number("<B")
        if length > _LONGEST_INTEGER:
            self._refuse(f"Integers have at most {_LONGEST_INTEGER} bytes", str(length))
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def _memoize(self, index: int) -> None:
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            self._refuse("A pickle recalls entries of its memo", f"entry {index}, which it has not written")
        self._push(self._memo[index])

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            self._refuse("Only lists are appended to", type(target).__name__)
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Call):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(values) % 2:
            self._refuse("Entries are put into dictionaries, in pairs", type(target).__name__)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                self._refuse("Keys are strings or integers", type(key).__name__)
            # integers as text: a hostile file may hold integers whose hashes collide
            target[str(key)] = value

    def _set_one(self) -> None:
        value = self._pop()
        key = self._pop()
        self._set([key, value])

    def _append_one(self) -> None:
        value = self._pop()
        self._append([value])

    def _call(self) -> None:
        arguments = self._pop()
        function = self._pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            self._refuse("Only names are called", type(function).__name__)
        self._push(Call(function, arguments))

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self._refuse("Names are strings", type(name).__name__)
        self.names.add(Name(module, name))
        self._push(Name(module, name))

    def _global_of_stack(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _build(self) -> None:
        """Drops the state of an object, such as the layer versions of an OrderedDict, which no weight needs."""
        self._pop()
        if not isinstance(self._top(), Call):
            self._refuse("Only an object has state", type(self._top()).__name__)

    def _refer(self) -> None:
        reference = Reference(self._pop())
        self.references.append(reference)
        self._push(reference)

    def _refuse(self, rule: str, got: str) -> NoReturn:
        raise InvalidModelError(
            rule,
            got=got,
            where=f"{self._where}, pickle at byte {self._position}",
            fix="save model.state_dict() again with torch.save",
        )


_STEPS: dict[bytes, Callable[[Unpickled], object]] = {
    b"\x80": lambda p: p._take(1),  # the protocol; opcodes of newer ones are refused where they occur
    b"\x95": lambda p: p._take(8),  # the length of a frame, which only readers of streams need
    b"(": lambda p: p._push(_MARK),
    b"N": lambda p: p._push(None),
    b"\x88": lambda p: p._push(True),
    b"\x89": lambda p: p._push(False),
    b"K": lambda p: p._push(p._number("<B")),
    b"M": lambda p: p._push(p._number("<H")),
    b"J": lambda p: p._push(p._number("<i")),
    b"\x8a": Unpickled._integer,
    b"G": lambda p: p._push(p._number(">d")),
    b"X": lambda p: p._push(p._text("<I")),
    b"\x8c": lambda p: p._push(p._text("<B")),
    b"U": lambda p: p._push(p._text("<B")),  # Python 2's strings
    b"T": lambda p: p._push(p._text("<I")),
    b")": lambda p: p._push(()),
    b"\x85": lambda p: p._tuple(1),
    b"\x86": lambda p: p._tuple(2),
    b"\x87": lambda p: p._tuple(3),
    b"t": lambda p: p._push(tuple(p._marked())),
    b"]": lambda p: p._push([]),
    b"l": lambda p: p._push(p._marked()),
    b"}": lambda p: p._push({}),
    b"a": Unpickled._append_one,
    b"e": lambda p: p._append(p._marked()),
    b"s": Unpickled._set_one,
    b"u": lambda p: p._set(p._marked()),
    b"q": lambda p: p._memoize(p._number("<B")),
    b"r": lambda p: p._memoize(p._number("<I")),
    b"\x94": lambda p: p._memoize(len(p._memo)),
    b"h": lambda p: p._recall(p._number("<B")),
    b"j": lambda p: p._recall(p._number("<I")),
    b"c": lambda p: p._global(p._line(), p._line()),
    b"\x93": Unpickled._global_of_stack,
    b"R": Unpickled._call,
    b"\x81": Unpickled._call,
    b"b": Unpickled._build,
    b"Q": Unpickled._refer,
}
