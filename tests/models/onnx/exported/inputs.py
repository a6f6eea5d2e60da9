"""Inputs of the exported transformers, at any batch and length, without PyTorch."""

import numpy as np

VOCABULARY, LAYERS, SIZE = 61, 2, 4
CACHED_HEADS = {"gpt": 4, "llama": 2}
EXPORTED_AT = (2, 4, 3)
"""Batch, length and cached tokens of the example that exporters see."""
SIZES = ((1, 1, 1), (2, 7, 3), (3, 12, 0))
"""Others, at which the exported model must run too."""
FIXED = {("bert", "script")}
"""Exported at one size: the older exporter writes it into the nodes of `nn.MultiheadAttention` with a padding mask."""


def example(name, batch, length, seen=0, seed=0):
    """Input name -> array: `length` tokens after `seen` cached ones; examples are padded by 0, 1, 2... tokens.

    An image model has one length only.
    """
    rng = np.random.default_rng([seed, batch, length, seen])
    if name == "vit":
        return {"pixel_values": rng.uniform(-1, 1, (batch, 3, 32, 32)).astype(np.float32)}
    feeds = {"input_ids": rng.integers(1, VOCABULARY, (batch, length))}
    padding = np.minimum(np.arange(batch), length - 1)[:, None]
    if name == "bert":
        feeds["attention_mask"] = (np.arange(length) < length - padding).astype(np.int64)
        feeds["token_type_ids"] = np.broadcast_to((np.arange(length) > length // 2).astype(np.int64), (batch, length))
        return feeds
    if name == "llama":  # padded on the left, as decoders are
        padding = np.minimum(padding, seen)
        places = np.arange(seen + length) - padding
        feeds["attention_mask"] = (places >= 0).astype(np.int64)
        feeds["position_ids"] = places[:, seen:]
    for layer in range(LAYERS):
        for part in ("key", "value"):
            shape = (batch, CACHED_HEADS[name], seen, SIZE)
            feeds[f"past_{layer}_{part}"] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def stepwise(feeds, start, stop, cache):
    """The part of a decoder's inputs for the tokens from `start` to `stop`, after those in `cache` (name -> array)."""
    seen = next(iter(cache.values())).shape[2]
    before = feeds["past_0_key"].shape[2]
    part = {"input_ids": feeds["input_ids"][:, start:stop], **cache}
    if "attention_mask" in feeds:
        part["attention_mask"] = feeds["attention_mask"][:, : before + stop]
        part["position_ids"] = feeds["position_ids"][:, start:stop]
    assert seen == before + start
    return {name: part[name] for name in feeds}
