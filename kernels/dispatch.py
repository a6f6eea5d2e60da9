"""Selection of the variant that serves a call.

Every kernel ends in `VARIANTS`, an ordered mapping from a variant's name to a function, the preferred one first. A
variant that cannot serve a call (wrong device, unsupported shapes) raises `NotImplementedError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime.fork import check_process

P = ParamSpec("P")
R = TypeVar("R")


def run(
    kernel: str, variants: Mapping[str, Callable[P, R]], implementation: str | None, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Calls the first variant that serves the call, or the one requested by name.

    Args:
      kernel: public name of the kernel, for messages.
      variants: name -> function, in order of preference.
      implementation: a key of `variants`, which then never falls back; or None for the first that serves the call.
      *args: passed to the variant.
      **kwargs: passed to the variant.

    Raises:
      InvalidInputError: `implementation` is not a variant of this kernel.
      NotImplementedError: the requested variant cannot serve the call.
      ExceptionGroup: no variant can serve the call; holds the reason of each, in order.
    """
    check_process()
    if implementation is not None:
        if implementation not in variants:
            raise InvalidInputError(
                f"`implementation` is None or one of {', '.join(variants)}", got=repr(implementation), where=kernel
            )
        return variants[implementation](*args, **kwargs)
    reasons = []
    for name, variant in variants.items():
        try:
            return variant(*args, **kwargs)
        except NotImplementedError as refusal:
            # Keep a copy: the exception itself would, through its traceback, keep this call's arguments alive.
            reason = NotImplementedError(*refusal.args)
            reason.add_note(f"variant {name!r} of {kernel}")
            reasons.append(reason)
    raise ExceptionGroup(f"no variant of {kernel} can serve this call", reasons)
