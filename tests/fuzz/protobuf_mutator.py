"""Mutates protobuf messages at random places into other messages: randomly changed bytes rarely parse."""

import random

from google.protobuf.message import Error

_NUMBERS = (0, 1, -1, 2, 3, 7, 2**20, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 0.5, 1e38, -1e38, 1e-12, float("inf"), float("nan"))


def mutated(message, seed, bytes_mutator):
    """Changes `message` in one to four places.

    Args:
      message: changed in place.
      seed: of the choices.
      bytes_mutator: bytes -> other bytes, for byte fields.
    """
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        messages = list(_all(message))
        chosen = rng.choice(messages)
        fields = [field for field, _ in chosen.ListFields()]
        if rng.random() < 0.1 or not fields:  # a field that is not there yet
            fields = list(chosen.DESCRIPTOR.fields)
        field = rng.choice(fields)
        try:
            _change(chosen, field, rng, bytes_mutator, messages)
        except (ValueError, TypeError, Error):  # a value the field cannot take, or nesting beyond the parser's
            continue
    return message


def _all(message):
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if _repeated(field) else [value]:
                yield from _all(part)


def _repeated(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _change(message, field, rng, bytes_mutator, messages):
    if not _repeated(field):
        if field.type == field.TYPE_MESSAGE:
            alike = [m for m in messages if m.DESCRIPTOR is field.message_type]
            source = rng.choice(alike).SerializeToString() if alike else b""  # bytes: it may hold the target itself
            message.ClearField(field.name)
            getattr(message, field.name).MergeFromString(source)
        else:
            setattr(message, field.name, _value(field, getattr(message, field.name), rng, bytes_mutator))
        return
    values = getattr(message, field.name)
    kind = rng.choice(["add", "delete", "change", "swap"])
    at = rng.randrange(len(values)) if values else 0
    if kind == "add" or not values:
        if field.type == field.TYPE_MESSAGE:
            alike = [m for m in messages if m.DESCRIPTOR is field.message_type]
            source = rng.choice(alike).SerializeToString() if alike else b""
            values.add().MergeFromString(source)
        else:
            values.append(_value(field, values[at] if values else None, rng, bytes_mutator))
    elif kind == "delete":
        del values[at]
    elif field.type == field.TYPE_MESSAGE:
        values.add().MergeFromString(values[at].SerializeToString())
        del values[at]
    else:
        values[at] = _value(field, values[at], rng, bytes_mutator)


def _value(field, old, rng, bytes_mutator):
    if field.type == field.TYPE_BYTES:
        return bytes_mutator(old or b"\0")
    if field.type == field.TYPE_STRING:
        return rng.choice([old or "", "", "x", "y", "Add", "Expand", "Loop", "w", "a" * 100, "../w.bin"])
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.randrange(30)
    return rng.choice([*_NUMBERS, (old or 0) + 1, (old or 0) - 1])
