"""Writes the models of the examples: `python make_models.py [FOLDER]`.

Small networks that read scikit-learn's handwritten digits, trained here in a few seconds. FOLDER then holds

  owner.onnx          the owner's model
  fine-tuned.onnx     made from it: trained further, on other images
  pruned.onnx         made from it: the smaller half of its weights set to zero
  independent.onnx    unrelated: its own first weights, its own images
  references/         24 more that are unrelated

Training is in float64 and every draw has a fixed seed, so the networks are the same everywhere but for rounding.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HIDDEN, CLASSES, STEPS, BATCH = 48, 10, 250, 64
N_REFERENCES = 24


def first_weights(rng, n):
    """Untrained weights of n networks, stacked: normal, of variance 2 / inputs."""
    sizes = {"w1": (64, HIDDEN), "b1": (1, HIDDEN), "w2": (HIDDEN, CLASSES), "b2": (1, CLASSES)}
    return {
        name: rng.normal(size=(n, *size)) * (2 / size[0]) ** 0.5 * name.startswith("w") for name, size in sizes.items()
    }


def train(weights, pixels, labels, rng, steps=STEPS, rate=3e-3):
    """Trains stacked networks by Adam, each on batches of its own images."""
    n = len(weights["w1"])
    moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
    own = np.stack([rng.permutation(len(pixels))[: len(pixels) // 2] for _ in range(n)])  # half of the images for each
    for step in range(1, steps + 1):
        batch = np.take_along_axis(own, rng.integers(own.shape[1], size=(n, BATCH)), axis=1)
        x, wanted = pixels[batch], np.eye(CLASSES)[labels[batch]]
        hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
        logits = hidden @ weights["w2"] + weights["b2"]
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        error = (shares / shares.sum(axis=2, keepdims=True) - wanted) / BATCH
        back = error @ weights["w2"].transpose(0, 2, 1) * (hidden > 0)
        gradients = {
            "w1": x.transpose(0, 2, 1) @ back,
            "b1": back.sum(axis=1, keepdims=True),
            "w2": hidden.transpose(0, 2, 1) @ error,
            "b2": error.sum(axis=1, keepdims=True),
        }
        for name, gradient in gradients.items():
            mean, square = moments[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            size = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            weights[name] = weights[name] - rate * mean / (1 - 0.9**step) / size
    return weights


def write(path, weights):
    """One network as an ONNX file: images (n, 1, 8, 8) in, logits (n, 10) out."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "w1", "b1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def main(folder):
    """Trains all networks and writes them."""
    (folder / "references").mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels, labels, rng = digits.data / 16, digits.target, np.random.default_rng(0)
    networks = train(first_weights(rng, 2 + N_REFERENCES), pixels, labels, rng)
    owner, independent, *references = (
        {name: array[i] for name, array in networks.items()} for i in range(2 + N_REFERENCES)
    )
    stacked = {name: array[None] for name, array in owner.items()}
    tuned = {name: array[0] for name, array in train(stacked, pixels, labels, rng, steps=100, rate=1e-3).items()}
    pruned = {name: np.where(np.abs(w) < np.median(np.abs(w)), 0, w) if "w" in name else w for name, w in owner.items()}
    named = {"owner": owner, "fine-tuned": tuned, "pruned": pruned, "independent": independent}
    for name, weights in named.items():
        write(folder / f"{name}.onnx", weights)
    for number, weights in enumerate(references, 1):
        write(folder / "references" / f"{number:02}.onnx", weights)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
