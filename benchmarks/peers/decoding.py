"""Next-token decoding: 64 tokens after a prefix of 4, greedily, from random weights.

The peers are `generate()` of Hugging Face's transformers on a GPT-2, and x-transformers, whose
decoder can be given the very blocks that ours has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import torch
import transformers
import x_transformers
from common import BATCHES, HEADS, HIDDEN, LAYERS, WIDTH, Candidate, compare
from keras import ops

from genlib import backend
from genlib.models.transformer import Transformer, TransformerConfig, empty_cache

PREFIX, LENGTH = 4, 64


class Decoder(keras.Model):
    """Our transformer with the plainest ends: one table of embeddings, before it and behind it.

    (The image GPT of the library spells its tokens with eight letters; no peer does.)
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        config = TransformerConfig(LAYERS, WIDTH, heads=HEADS, kv_heads=HEADS, hidden=HIDDEN)
        self.transformer = Transformer(config, seed=0)
        self.table = self.add_weight(
            shape=(vocabulary, WIDTH), initializer=keras.initializers.RandomNormal(0.5, seed=1)
        )
        self.built = True

    def likeliest(self, y: Any) -> Any:
        """Returns the likeliest token after the last state, `(batch, 1)` int32."""
        logits = ops.matmul(y[:, -1:], ops.transpose(self.table))
        return ops.cast(ops.argmax(logits, -1), "int32")

    def write(self, prefix: Any) -> Any:
        """Returns 64 tokens after a prefix `(batch, 4)`, from one loop with a cache."""
        n = ops.shape(prefix)[0]
        cache = empty_cache(self.transformer.config, n, PREFIX + LENGTH - 1)
        y, cache = self.transformer(ops.take(self.table, prefix, axis=0), cache=cache)
        tokens = ops.zeros((n, LENGTH), "int32")
        tokens = ops.slice_update(tokens, (0, 0), self.likeliest(y))

        def step(place: Any, tokens: Any, cache: Any) -> Any:
            last = ops.slice(tokens, (0, place - 1), (n, 1))
            x = ops.take(self.table, last, axis=0)
            y, cache = self.transformer(x, start=PREFIX + place - 1, cache=cache)
            return place + 1, ops.slice_update(tokens, (0, place), self.likeliest(y)), cache

        first = (ops.convert_to_tensor(1, "int32"), tokens, cache)
        return ops.while_loop(lambda place, tokens, cache: place < LENGTH, step, first)[1]


def textbook(model: Decoder, prefix: np.ndarray, length: int) -> np.ndarray:
    """Returns the first tokens of `write`, from the whole text anew for each one."""
    tokens = prefix
    for _ in range(length):
        y = model.transformer(ops.take(model.table, tokens, axis=0))
        tokens = np.concatenate([tokens, backend.to_numpy(model.likeliest(y))], axis=1)
    return tokens[:, PREFIX:]


def gpt2(vocabulary: int) -> Any:
    """Returns Hugging Face's GPT-2 of the same layers, width and heads."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=128,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def x_decoder(vocabulary: int) -> Any:
    """Returns x-transformers' decoder with our blocks: RMSNorm, rotary positions, SwiGLU."""
    torch.manual_seed(0)
    model = x_transformers.TransformerWrapper(
        num_tokens=vocabulary,
        max_seq_len=128,
        use_abs_pos_emb=False,
        tie_embedding=True,
        attn_layers=x_transformers.Decoder(
            dim=WIDTH,
            depth=LAYERS,
            heads=HEADS,
            attn_dim_head=WIDTH // HEADS,
            use_rmsnorm=True,
            rotary_pos_emb=True,
            rotary_emb_dim=WIDTH // HEADS,  # the whole head turns, as in ours
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_mult=HIDDEN / WIDTH,
            attn_flash=True,
        ),
    )
    return x_transformers.AutoregressiveWrapper(model).eval()


def size(module: Any) -> int:
    """Returns how many parameters a torch module has."""
    return sum(p.numel() for p in module.parameters())


def rows() -> Iterator[dict[str, Any]]:
    """Yields a row for each vocabulary and batch."""
    torch._dynamo.config.recompile_limit = 64  # else the second vocabulary is not compiled any more
    for vocabulary in (4096, 64):
        ours = Decoder(vocabulary)
        graph = backend.compile_call(ours.write, ours.variables)
        xla = backend.compile_step(ours.write, ours.variables, xla=True)
        theirs, other, fast = gpt2(vocabulary), x_decoder(vocabulary), x_decoder(vocabulary)
        fast.net.compile(dynamic=True)  # minutes, once: its cache grows by a place with each token
        for batch in BATCHES:
            prefix = np.random.default_rng(0).integers(vocabulary, size=(batch, PREFIX))
            prefix = prefix.astype(np.int32)
            asked = torch.tensor(prefix, dtype=torch.long)
            assert (backend.to_numpy(graph(prefix))[:, :8] == textbook(ours, prefix, 8)).all()

            @torch.inference_mode()
            def generate(model: Any, asked: Any = asked, **options: Any) -> Any:
                return model.generate(
                    asked,
                    attention_mask=torch.ones_like(asked),
                    do_sample=False,
                    min_new_tokens=LENGTH,
                    max_new_tokens=LENGTH,
                    **options,
                ).numpy()

            candidates = {
                "GPT-2, generate()": Candidate(
                    "peer", functools.partial(generate, theirs), size(theirs)
                ),
                "GPT-2, static cache": Candidate(
                    "peer",
                    functools.partial(generate, theirs, cache_implementation="static"),
                    size(theirs),
                    "cache_implementation='static'",
                ),
            }
            compiled = gpt2(vocabulary)
            compiled.forward = torch.compile(compiled.forward, dynamic=False)
            static = functools.partial(generate, compiled, cache_implementation="static")
            assert (static() == generate(theirs)).all()  # compiled, it writes the same
            candidates["GPT-2, static cache, torch.compile"] = Candidate(
                "peer", static, size(theirs), "static cache and torch.compile(model.forward)"
            )
            mine = {
                "ours, graph": Candidate(
                    "ours", lambda p=prefix, f=graph: backend.to_numpy(f(p)), ours.count_params()
                ),
                "ours, XLA": Candidate(
                    "ours",
                    lambda p=prefix, f=xla: backend.to_numpy(f(p)),
                    ours.count_params(),
                    "jit_compile",
                ),
            }
            work = f"{LENGTH} tokens after {PREFIX}, vocabulary {vocabulary}, batch {batch}"
            block = size(theirs.transformer.h[0])
            own = ours.transformer.blocks[0].count_params()
            assert abs(own / block - 1) < 0.02, (own, block)
            yield compare(
                work,
                "transformers, GPT-2",
                {**candidates, **mine},
                f"{LAYERS} layers of width {WIDTH}, {HEADS} heads; a block has {block:,} "
                f"parameters there and {own:,} here (SwiGLU in place of GELU, rotary positions). "
                "Greedy, float32, cache on.",
            )

            @torch.inference_mode()
            def autoregressive(cached: bool, model: Any = other, asked: Any = asked) -> Any:
                return model.generate(asked, LENGTH, temperature=0.0, cache_kv=cached).numpy()

            assert (autoregressive(True) == autoregressive(False)).all()
            assert (autoregressive(True, fast) == autoregressive(True)).all()
            yield compare(
                work,
                "x-transformers",
                {
                    "AutoregressiveWrapper": Candidate(
                        "peer",
                        functools.partial(autoregressive, True),
                        size(other),
                        "cache_kv=True (its default), attn_flash=True",
                    ),
                    "AutoregressiveWrapper, torch.compile": Candidate(
                        "peer",
                        functools.partial(autoregressive, True, fast),
                        size(other),
                        "the same, and net.compile(dynamic=True)",
                    ),
                    **mine,
                },
                "The same blocks on both sides: RMSNorm, rotary positions, SwiGLU, tied "
                "embeddings. Greedy, float32, cache on.",
            )
