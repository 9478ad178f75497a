"""Transformers of the zoo. Sizes are those of the papers and of the published model configurations.

Attention products are layers with ``weight_is_activation = 1`` and g = sequences x key-value heads;
query heads that share a key-value head stand in p. They are counted as dense rectangles (a causal mask
saves nothing here). In the decode networks one token a sequence is computed; the context counts that
token; batch means sequences.
"""

from functools import partial
from typing import Any

from diffhw.workloads._builder import Builder, Tensor
from diffhw.workloads._layer import Network

__all__ = ["TRANSFORMERS"]

_CAUSAL = "attention is counted over the whole context (dense), causal masking not subtracted"


def _attention(b: Builder, q: Tensor, k: Tensor, v: Tensor, name: str, *, heads, kv_heads, context) -> Tensor:
    """Scores, softmax and weighted sum for q.h new tokens over ``context`` keys."""
    size, rows = q.c // heads, heads // kv_heads * q.h
    scores = b.product(q, k, f"{name}.scores", g=kv_heads, p=rows, c=size, k=context)
    shape = Tensor(context, heads * q.h, 1, scores.made_by)
    weights = b.op("softmax", shape, name=f"{name}.softmax")
    out = b.product(weights, v, f"{name}.values", g=kv_heads, p=rows, c=context, k=size)
    return Tensor(q.c, q.h, 1, out.made_by)


def _bert(batch: int, *, name: str, tokens: int) -> Network:
    note = "BertModel with pooler, no task head, so no language-model head is counted"
    b = Builder(name, f"Devlin et al., BERT, arXiv 1810.04805 (recalled), {tokens} tokens", batch, (note,))
    d = 768
    b.other_params += (30522 + 512 + 2) * d  # word, position and segment embeddings
    x = b.op("embedding", Tensor(d, tokens), name="embeddings")
    x = b.layer_norm(x, "embeddings.norm")
    for i in range(12):
        block = f"layer{i}"
        q, k, v = (b.linear(x, d, f"{block}.{part}") for part in ("query", "key", "value"))
        y = _attention(b, q, k, v, block, heads=12, kv_heads=12, context=tokens)
        y = b.linear(y, d, f"{block}.output")
        x = b.layer_norm(b.op("add", y, x, name=f"{block}.add1"), f"{block}.norm1")
        y = b.linear(x, 4 * d, f"{block}.fc1", act="gelu")
        y = b.linear(y, d, f"{block}.fc2")
        x = b.layer_norm(b.op("add", y, x, name=f"{block}.add2"), f"{block}.norm2")
    b.linear(Tensor(d, made_by=x.made_by), d, "pooler", act="tanh")
    return b.network()


def vit_b16(batch: int = 1) -> Network:
    """ViT-B/16, 224 x 224: 196 patches and a class token."""
    b = Builder("vit_b16", "shapes of torchvision.models.vit_b_16, 224 x 224", batch)
    d, tokens = 768, 197
    x = b.conv(Tensor(3, 224, 224), d, 16, "patch", stride=16, pad=0, bias=True, norm=False, act="")
    b.other_params += d + tokens * d  # class token, positions
    x = b.op("add", Tensor(d, tokens, 1, x.made_by), name="positions")
    x = _pre_norm_blocks(b, x, heads=12, blocks=12, context=tokens)
    x = b.layer_norm(x, "norm")
    b.linear(Tensor(d, made_by=x.made_by), 1000, "head")
    return b.network()


def _pre_norm_blocks(b: Builder, x: Tensor, *, heads: int, blocks: int, context: int) -> Tensor:
    """Blocks of ViT and GPT-2: norm, fused qkv, attention, add; norm, two-layer MLP of 4 d, add."""
    d = x.c
    for i in range(blocks):
        block = f"block{i}"
        y = b.linear(b.layer_norm(x, f"{block}.norm1"), 3 * d, f"{block}.qkv")
        q = Tensor(d, y.h, 1, y.made_by)
        y = _attention(b, q, q, q, block, heads=heads, kv_heads=heads, context=context)
        x = b.op("add", b.linear(y, d, f"{block}.output"), x, name=f"{block}.add1")
        y = b.linear(b.layer_norm(x, f"{block}.norm2"), 4 * d, f"{block}.fc1", act="gelu")
        x = b.op("add", b.linear(y, d, f"{block}.fc2"), x, name=f"{block}.add2")
    return x


def _gpt2(batch: int, *, name: str, tokens: int, context: int) -> Network:
    head = (
        "the LM head (768 x 50257, tied to the embedding, its parameters counted once) is counted at every "
        "computed position, as a plain forward pass does; rules of thumb that count 2 x parameters a token "
        "include it, those on non-embedding parameters do not"
    )
    source = f"Radford et al. 2019, GPT-2 small (recalled), {tokens} token(s) at context {context}"
    b, d = Builder(name, source, batch, (head, _CAUSAL)), 768
    b.other_params += 1024 * d  # positions; the word embedding is the LM head's weight
    x = b.op("embedding", Tensor(d, tokens), name="embeddings")
    x = _pre_norm_blocks(b, x, heads=12, blocks=12, context=context)
    b.linear(b.layer_norm(x, "norm"), 50257, "lm_head", bias=False)
    return b.network()


def _llama3_8b(batch: int, *, name: str, tokens: int, context: int) -> Network:
    head = (
        "the LM head (4096 x 128256, not tied) is counted at every computed position, as a plain forward "
        "pass does; a server computes it at the last position of a prompt only; 2 x parameters a token "
        "counts the embedding table as if it were multiplied"
    )
    source = (
        f"Meta Llama 3 8B model card and configuration (recalled), {tokens} token(s) at context {context}"
    )
    b, d, kv = Builder(name, source, batch, (head, _CAUSAL)), 4096, 1024
    b.other_params += 128256 * d
    x = b.op("embedding", Tensor(d, tokens), name="embeddings")
    plain: dict[str, Any] = dict(bias=False)
    for i in range(32):
        block = f"layer{i}"
        y = b.layer_norm(x, f"{block}.norm1", bias=False)
        q = b.op("rope", b.linear(y, d, f"{block}.q", **plain), name=f"{block}.q.rope")
        k = b.op("rope", b.linear(y, kv, f"{block}.k", **plain), name=f"{block}.k.rope")
        v = b.linear(y, kv, f"{block}.v", **plain)
        y = _attention(b, q, k, v, block, heads=32, kv_heads=8, context=context)
        x = b.op("add", b.linear(y, d, f"{block}.o", **plain), x, name=f"{block}.add1")
        y = b.layer_norm(x, f"{block}.norm2", bias=False)
        gate = b.linear(y, 14336, f"{block}.gate", act="silu", **plain)
        y = b.op("mul", gate, b.linear(y, 14336, f"{block}.up", **plain), name=f"{block}.mul")
        x = b.op("add", b.linear(y, d, f"{block}.down", **plain), x, name=f"{block}.add2")
    b.linear(b.layer_norm(x, "norm", bias=False), 128256, "lm_head", **plain)
    return b.network()


TRANSFORMERS = {
    "bert_base": partial(_bert, name="bert_base", tokens=128),
    "bert_base_512": partial(_bert, name="bert_base_512", tokens=512),
    "vit_b16": vit_b16,
    "gpt2_prefill": partial(_gpt2, name="gpt2_prefill", tokens=1024, context=1024),
    "gpt2_decode": partial(_gpt2, name="gpt2_decode", tokens=1, context=1024),
    "llama3_8b_prefill": partial(_llama3_8b, name="llama3_8b_prefill", tokens=2048, context=2048),
    "llama3_8b_decode": partial(_llama3_8b, name="llama3_8b_decode", tokens=1, context=2048),
}
