"""The usual transformers in plain PyTorch, with small random weights, written the way people write them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, LAYERS, VOCABULARY = 16, 4, 2, 61
SIZE = WIDTH // HEADS


def split(x, heads):
    """(batch, length, heads * size) -> (batch, heads, length, size)."""
    return x.view(x.shape[0], x.shape[1], heads, SIZE).transpose(1, 2)


def join(x):
    """The inverse of `split`."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], WIDTH)


class GPTBlock(nn.Module):
    """Attention to all tokens up to one's own, a mask of zeros and -inf added to the scores; GELU by tanh."""

    def __init__(self):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, bias, past_key, past_value):
        q, k, v = (split(part, HEADS) for part in self.qkv(self.norm(x)).split(WIDTH, dim=2))
        k, v = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(SIZE) + bias
        x = x + self.out(join(torch.softmax(scores, dim=-1) @ v))
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x, k, v


class GPT(nn.Module):
    """A decoder with learned positions and a cache of keys and values; the head shares the embedding's table."""

    heads = HEADS

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList(GPTBlock() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, input_ids, *past):
        seen, length = past[0].shape[2], input_ids.shape[1]
        places = torch.arange(seen, seen + length)
        allowed = torch.arange(seen + length) <= places[:, None]
        bias = torch.zeros(length, seen + length).masked_fill(~allowed, float("-inf"))
        x, present = self.tokens(input_ids) + self.positions(places), []
        for i, block in enumerate(self.blocks):
            x, *pair = block(x, bias, past[2 * i], past[2 * i + 1])
            present += pair
        return self.norm(x) @ self.tokens.weight.T, *present


class RMSNorm(nn.Module):
    """Llama's: in float32, without a mean."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(WIDTH))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(x, cosines, sines):
    """Rotary positions in Llama's halves."""
    a, b = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-b, a], dim=-1) * sines


class LlamaBlock(nn.Module):
    """Two key heads for four query heads, rotary positions, SwiGLU."""

    kv_heads = 2

    def __init__(self):
        super().__init__()
        self.norm, self.norm2 = RMSNorm(), RMSNorm()
        self.q, self.out = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k, self.v = (nn.Linear(WIDTH, self.kv_heads * SIZE, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(WIDTH, 3 * WIDTH, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * WIDTH, WIDTH, bias=False)

    def forward(self, x, mask, cosines, sines, past_key, past_value):
        h = self.norm(x)
        q, k = rotate(split(self.q(h), HEADS), cosines, sines), rotate(split(self.k(h), self.kv_heads), cosines, sines)
        k = torch.cat([past_key, k], dim=2)
        v = torch.cat([past_value, split(self.v(h), self.kv_heads)], dim=2)
        keys, values, grouped = k, v, not torch.jit.is_tracing()
        if not grouped:  # which the older exporter cannot express
            keys, values = (part.repeat_interleave(HEADS // self.kv_heads, dim=1) for part in (k, v))
        x = x + self.out(join(F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=grouped)))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h)), k, v


class Llama(nn.Module):
    """A decoder with a cache, a padding mask over past and present, and explicit positions."""

    heads = LlamaBlock.kv_heads

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(LlamaBlock() for _ in range(LAYERS))
        self.norm, self.head = RMSNorm(), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(0, SIZE, 2) / SIZE), persistent=False)

    def forward(self, input_ids, attention_mask, position_ids, *past):
        angles = position_ids[:, None, :, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        cosines, sines = angles.cos(), angles.sin()
        seen, length = past[0].shape[2], input_ids.shape[1]
        causal = torch.ones(length, seen + length, dtype=torch.bool).tril(diagonal=seen)
        mask = causal & attention_mask.bool()[:, None, None, :]
        x, present = self.tokens(input_ids), []
        for i, block in enumerate(self.blocks):
            x, *pair = block(x, mask, cosines, sines, past[2 * i], past[2 * i + 1])
            present += pair
        return self.head(self.norm(x)), *present


class BERTBlock(nn.Module):
    """Attention to all tokens that are no padding, norms after the sums."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, padding):
        y, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        x = self.norm(x + y)
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class BERT(nn.Module):
    """An encoder with a classifier on its first token."""

    def __init__(self):
        super().__init__()
        self.tokens, self.types = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0), nn.Embedding(2, WIDTH)
        self.positions, self.norm = nn.Embedding(64, WIDTH), nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(BERTBlock() for _ in range(LAYERS))
        self.pool, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, input_ids, attention_mask, token_type_ids):
        x = self.tokens(input_ids) + self.types(token_type_ids) + self.positions(torch.arange(input_ids.shape[1]))
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, attention_mask == 0)
        return x, self.head(torch.tanh(self.pool(x[:, 0])))


class ViTBlock(nn.Module):
    """Norms before the sums; attention as one call."""

    def __init__(self):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(join(F.scaled_dot_product_attention(q, k, v)))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """An image in patches of 8 x 8, a class token before them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, kernel_size=8, stride=8)
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.Sequential(*(ViTBlock() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


ARCHITECTURES = {"gpt": GPT, "llama": Llama, "bert": BERT, "vit": ViT}
