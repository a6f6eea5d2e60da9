"""Limits on untrusted input, each with its reason. An error names the limit that was hit.

All limits are fields of `Limits`, so a caller who trusts a file can raise one:
`md.load(path, limits=Limits(nodes=10**6))`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from modeldiff_jax.errors import LimitExceededError

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Limits:
    """Upper bounds, inclusive. Sizes in bytes unless the name says otherwise."""

    model_bytes: int = 2 * _GIB - 1
    """One model file; protobuf itself cannot parse more."""
    external_bytes: int = 64 * _GIB
    """All external data of one model."""
    header_bytes: int = 4 * _MIB
    """Description of a weight file's tensors (a header, a pickle, a zip's directory); 300 KB is a large one."""
    archive_entries: int = 100_000
    """Entries of one zip archive; the largest app packages have some 50,000."""
    archive_ratio: int = 1032
    """Bytes that an archive unpacks to for each byte of its; deflate can reach no more, so more is forged."""
    pickle_steps: int = 1_000_000
    """Steps of reading one pickle, each of which may make an object; 20,000 tensors take about as many."""
    tensors: int = 30_000
    """Tensors of one weight file."""
    nodes: int = 200_000
    """Graph nodes after inlining; the largest real exports seen have about 20,000."""
    nesting: int = 24
    """Depth of subgraphs within subgraphs; protobuf's parser gives up near 31, with a worse message."""
    tensor_elements: int = 2**31
    """Elements of one tensor, stored or computed; a 1.7 KB chain of Concat can grow 64-fold at each step."""
    made_elements: int = 2**28
    """Elements of one tensor an operator makes out of a shape (ConstantOfShape, Expand, Tile, Range, Pad, Resize)."""
    folded_bytes: int = 4 * _GIB
    """All values computed while loading; a 78-byte file can require 4 TiB."""
    folded_unbacked: int = 768 * _MIB
    """Bytes computed while loading beyond twice the bytes that the file holds; onnx's test file of VGG-19 computes its
    weights from constants and needs 575 MB."""
    window_reads: int = 2**44
    """Entries that the windows of one convolution or pool read, all together, padding included. The largest layer of
    VGG-19 reads 2**31 for an image."""
    written_out: int = 256
    """Copies of one computation that an operator writes into a program, such as the corners between which it
    interpolates in many dimensions; 64 in three. Compilation takes a tenth of a second and more for each."""
    loop_trips: int = 100_000
    """Trips of one Loop or Scan; a 225-byte file can require 2**62."""
    pattern_bytes: int = 8 * _MIB
    """Memory of one regular expression, RE2's default; counts within counts multiply."""
    image_pixels: int = 2**26
    """Pixels of one image, of a seed folder or decoded by an operator; a small file can hold a large one."""
    traced_calls: int = 2_000_000
    """Operator calls of one trace; loops within loops that are written out multiply."""
    live_bytes: int = 32 * _GIB
    """Values of one call that are computed and still to be read, all together, counted while it is traced. An estimate:
    XLA stores no copy of what it fuses, and kernels have memory of their own; it takes 0.7 to 1.8 times as much. Room
    for four float32 tensors of the most elements; 1,000 images in one call of a thin ResNet-50 take 6 GB."""
    seed_bytes: int = 4 * _GIB
    """One seed file or folder, decoded."""
    seed_files: int = 100_000
    """Files of one seed folder."""
    listed_files: int = 100_000
    """Files of one folder of models."""
    probe_bytes: int = 8 * _GIB
    """One saved probe set."""
    process_bytes: int = 8 * _GIB
    """Memory of a child process that a model runs in; the largest real file tried takes 3 GB."""
    process_cpu_seconds: int = 1_800
    """Its processor time for one model; the slowest real file tried takes 60 s on two cores."""
    process_seconds: int = 900
    """Its wall time for one model."""

    def check(self, name: str, value: int, *, where: str = "") -> None:
        """Raises `LimitExceededError` when `value` is above the limit `name`."""
        limit = getattr(self, name)
        if value > limit:
            raise LimitExceededError(
                f"The limit `{name}` is {limit:,}",
                got=f"{value:,}",
                where=where,
                fix=f"if you trust this file, raise it: Limits({name}=...), or --limit {name}=...",
            )

    def to_dict(self) -> dict[str, int]:
        """Returns the limits by name, for reports."""
        return asdict(self)


DEFAULT = Limits()


@dataclass(slots=True)
class _Use:
    """Operator calls and bytes of live values so far, of one `active` block."""

    calls: int = 0
    live_bytes: int = 0


_active: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)
_use: ContextVar[_Use | None] = ContextVar("use", default=None)
_folded: ContextVar[int | None] = ContextVar("folded", default=None)


@contextmanager
def active(limits: Limits) -> Iterator[None]:
    """Sets the limits that `check_made` and the other checks apply within the block: operators are plain functions."""
    token, use = _active.set(limits), _use.set(_Use())
    try:
        yield
    finally:
        _active.reset(token)
        _use.reset(use)


@contextmanager
def folding(unbacked: int) -> Iterator[None]:
    """Makes `check_made` apply `folded_unbacked` too while values are computed at load.

    Args:
      unbacked: bytes counted so far.
    """
    token = _folded.set(unbacked)
    try:
        yield
    finally:
        _folded.reset(token)


def check_made(shape: Sequence[Any], itemsize: int = 8) -> None:
    """Checks the size of a tensor whose shape comes from the model; operators call it before they make the tensor."""
    if all(isinstance(dim, int) or hasattr(dim, "__index__") for dim in shape):  # symbolic sizes have no value to check
        elements, folded = math.prod(int(dim) for dim in shape), _folded.get()
        _active.get().check("made_elements", elements)
        if folded is not None:
            _active.get().check("folded_unbacked", folded + elements * itemsize)


def check_computed(shape: Sequence[Any]) -> None:
    """Checks the size of an operator's output while it is only traced."""
    if all(isinstance(dim, int) for dim in shape):
        _active.get().check("tensor_elements", math.prod(shape))


def check_call() -> None:
    """Counts an operator call within an `active` block, and checks the number of calls."""
    use = _use.get()
    if use is not None:
        use.calls += 1
        _active.get().check("traced_calls", use.calls)


def check_live(added: int, where: object = "") -> None:
    """Adds bytes of values that were computed, negative ones once nothing reads them, and checks the total."""
    use = _use.get()
    if use is not None and added:
        use.live_bytes += added
        limits = _active.get()
        if added > 0 and use.live_bytes > limits.live_bytes:  # the place is described only where it is needed
            limits.check("live_bytes", use.live_bytes, where=str(where))


@contextmanager
def live_within() -> Iterator[None]:
    """Forgets, at the end of the block, the values that were added in it."""
    use = _use.get()
    before = 0 if use is None else use.live_bytes
    try:
        yield
    finally:
        if use is not None:
            use.live_bytes = before


def check_trips(trips: int) -> None:
    """Checks the number of trips of a loop of the model before it runs or is unrolled."""
    _active.get().check("loop_trips", trips)


def check_window_reads(reads: int) -> None:
    """Checks the number of entries that all windows of an operator read, before it computes anything."""
    _active.get().check("window_reads", reads)


def check_written_out(copies: int) -> None:
    """Checks how often an operator writes one computation into a program, before it does."""
    _active.get().check("written_out", copies)


def pattern_bytes() -> int:
    """Returns the memory that one regular expression of a model may take."""
    return _active.get().pattern_bytes


def check_image(width: int, height: int) -> None:
    """Checks an image's size before it is decoded."""
    _active.get().check("image_pixels", width * height)
