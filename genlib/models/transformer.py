"""One transformer for words and images.

The same stack of blocks is a language model (`text.llm`), writes an image code by code, or
refines it as a whole: what differs is the embedding before it, the head behind it, and the mask.
Hence neither an embedding nor a head is here.

A block adds two corrections to its tokens: attention, by which a token gathers from those that it
may see, and SwiGLU, by which each token works on its own. Each reads its input through RMSNorm.
Nothing has a bias. A *modulated* block also obeys a condition, such as a text and a time of
diffusion, which shifts, scales and gates both corrections.

References: Vaswani et al., 2017, arXiv:1706.03762 (the transformer); Touvron et al., 2023,
arXiv:2302.13971 (this choice of parts); Peebles and Xie, 2023, arXiv:2212.09748 (adaLN-zero).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Tensor = Any
Cache = list[tuple[Tensor, Tensor]]  # a block's (keys, values), (batch, kv_heads, length, head_dim)


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a transformer."""

    layers: int  # blocks
    width: int  # numbers per token
    heads: int  # query heads, of width / heads numbers each
    kv_heads: int  # key and value heads; each serves heads / kv_heads query heads
    hidden: int  # inner width of SwiGLU
    rotary_base: float = 10_000.0  # the slowest pair turns by about 1 / rotary_base per position
    epsilon: float = 1e-5  # of RMSNorm
    modulated: bool = False  # shift, scale and gate by a condition (adaLN-zero)

    def __post_init__(self) -> None:
        sizes = (self.layers, self.width, self.heads, self.kv_heads, self.hidden)
        if min(sizes) < 1 or self.width % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"{self} fits no transformer. All sizes must be at least 1, width a multiple of "
                "2 × heads (rotary positions need pairs), and heads a multiple of kv_heads."
            )

    @property
    def head_dim(self) -> int:
        """Numbers per head."""
        return self.width // self.heads

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // self.kv_heads


class Transformer(keras.Model):
    """A stack of blocks and a last RMSNorm: `(batch, n, width)` → `(batch, n, width)`.

    Args:
        config: the shape.
        seed: of the initial weights; None leaves zeros, for weights that are loaded next.

    Example:
        >>> config = TransformerConfig(layers=2, width=32, heads=4, kv_heads=2, hidden=64)
        >>> model = Transformer(config, seed=0)
        >>> x = keras.random.normal((1, 6, 32), seed=0)
        >>> whole = model(x)
        >>> first, cache = model(x[:, :4], cache=empty_cache(config, batch=1, length=6))
        >>> rest, cache = model(x[:, 4:], start=4, cache=cache)  # equal to whole[:, 4:]
    """

    def __init__(self, config: TransformerConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        seeds = _seeds(seed)
        self.blocks = [Block(config, seeds) for _ in range(config.layers)]
        self.norm = layers.RMSNormalization(epsilon=config.epsilon)
        self.norm.build((None, None, config.width))
        self.built = True

    def call(
        self,
        x: Tensor,
        *,
        mask: Any = "causal",
        start: Any = 0,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        condition: Tensor | None = None,
        depth: int | None = None,
    ) -> Any:
        """Runs the stack.

        Args:
            x: embedded tokens `(batch, n, width)`, float.
            mask: `"causal"` (a token sees itself and those before it), `"full"`, or a bool array
                that broadcasts to `(batch, n, keys)`, True where a token may look: block-causal
                images, padded texts. There are `n` keys, or `length` with a cache.
            start: position of the first token, an int or a scalar int32 tensor.
            positions: `(n,)` or `(batch, n)`, other positions than `start, start + 1, …`.
            cache: what `empty_cache` or the call before returned. The tokens' keys and values are
                written into it from slot `start` on; slots behind them are never seen.
            condition: `(batch, width)`, required if and only if `config.modulated`.
            depth: stop after so many blocks and leave out the last norm, which gives hidden
                states; all blocks and the norm if None.

        Returns:
            `y`, of the shape of `x`; with a cache, the pair `(y, new cache)`.

        Raises:
            ValueError: if an argument has a wrong shape or value, or does not fit the others.
        """
        self._check(x, mask, start, cache, condition)
        n = ops.shape(x)[1]
        where = start + ops.arange(n) if positions is None else positions
        keys = n if cache is None else ops.shape(cache[0][0])[2]
        seen = _visible(mask, n, keys, start, cached=cache is not None)
        if seen is not None:  # as the scores lie: (batch, kv_heads, group × n, keys)
            seen = ops.tile(seen, (1, self.config.group, 1))[:, None]
        shared = {"n": n, "start": start, "turn": rotation(where, self.config), "seen": seen}
        new_cache = []
        for i, block in enumerate(self.blocks[:depth]):
            slots = None if cache is None else cache[i]
            x, entry = block(x, **shared, slots=slots, condition=condition)
            new_cache.append(entry)
        y = self.norm(x) if depth is None else x
        return y if cache is None else (y, new_cache)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Tells Keras that `mask` is about attention, not one of its padding masks to pass on."""

    def _check(self, x: Tensor, mask: Any, start: Any, cache: Any, condition: Any) -> None:
        n, length = x.shape[1], None if cache is None else cache[0][0].shape[2]
        if len(x.shape) != 3 or x.shape[-1] != self.config.width:
            raise ValueError(f"x must be (batch, n, {self.config.width}), got {tuple(x.shape)}.")
        if isinstance(mask, str):
            if mask not in ("causal", "full"):
                raise ValueError(f"No mask {mask!r}. Give 'causal', 'full' or a bool array.")
        elif "bool" not in str(mask.dtype):
            raise ValueError(f"A mask is bool, True where a token may look; got {mask.dtype}.")
        if (condition is not None) != self.config.modulated:
            raise ValueError(
                f"config.modulated is {self.config.modulated} and condition is "
                f"{'missing' if condition is None else 'given'}: a modulated transformer needs "
                "one, another takes none."
            )
        if None not in (n, length) and isinstance(start, int) and not 0 <= start <= length - n:
            raise ValueError(
                f"{n} tokens from position {start} on do not fit a cache of {length} positions. "
                "Make a longer one with empty_cache."
            )


class Block(layers.Layer):
    """Attention, then SwiGLU, each read through RMSNorm and added to the tokens."""

    def __init__(self, config: TransformerConfig, seeds: Iterator[int | None]) -> None:
        super().__init__()
        c = self.config = config

        def matrix(n_in: int, n_out: int, gain: float = 1.0) -> Any:
            seed, start = next(seeds), "zeros"
            if seed is not None and gain > 0:
                start = keras.initializers.VarianceScaling(gain, "fan_in", seed=seed)
            layer = layers.Dense(n_out, use_bias=False, kernel_initializer=start)
            layer.build((None, n_in))
            return layer

        def norm() -> Any:
            layer = layers.RMSNormalization(epsilon=c.epsilon)
            layer.build((None, None, c.width))
            return layer

        deep = 1 / (2 * c.layers)  # the sum of 2 × layers corrections keeps the size of one
        self.attention_norm, self.swiglu_norm = norm(), norm()
        self.qkv = matrix(c.width, (c.heads + 2 * c.kv_heads) * c.head_dim)
        self.out = matrix(c.heads * c.head_dim, c.width, gain=deep)
        self.gate_up = matrix(c.width, 2 * c.hidden)
        self.down = matrix(c.hidden, c.width, gain=deep)
        # Zeros close the gates: a modulated block starts as the identity and opens as it learns.
        self.modulation = matrix(c.width, 6 * c.width, gain=0.0) if c.modulated else None
        self.built = True

    def call(
        self,
        x: Tensor,
        n: Any,  # tokens per sequence
        start: Any,  # slot of the first one in the cache
        turn: tuple[Tensor, Tensor],  # what `rotation` returns
        seen: Tensor | None,  # who may look at whom, (batch, 1, group × n, keys); None: at all
        slots: tuple[Tensor, Tensor] | None = None,  # this block's part of the cache
        condition: Tensor | None = None,  # (batch, width)
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the corrected tokens and the keys and values that were used."""
        if self.modulation is None:
            h, entry = self._attend(self.attention_norm(x), n, start, turn, seen, slots)
            x = x + h
            return x + self._swiglu(self.swiglu_norm(x), n), entry
        m = ops.expand_dims(self.modulation(ops.silu(condition)), 1)  # (batch, 1, 6 × width)
        shift_a, scale_a, gate_a, shift_s, scale_s, gate_s = ops.split(m, 6, axis=-1)
        h = self.attention_norm(x) * (1 + scale_a) + shift_a
        h, entry = self._attend(h, n, start, turn, seen, slots)
        x = x + gate_a * h
        h = self.swiglu_norm(x) * (1 + scale_s) + shift_s
        return x + gate_s * self._swiglu(h, n), entry

    def _swiglu(self, x: Tensor, n: Any) -> Tensor:
        rows = ops.reshape(x, (-1, self.config.width))  # a product of matrices, whatever the batch
        gate, up = ops.split(self.gate_up(rows), 2, axis=-1)
        return ops.reshape(self.down(ops.silu(gate) * up), (-1, n, self.config.width))

    def _attend(self, x: Tensor, n: Any, start: Any, turn: Any, seen: Any, slots: Any) -> Any:
        c = self.config
        h = self.qkv(ops.reshape(x, (-1, c.width)))
        h = ops.reshape(h, (-1, n, c.heads + 2 * c.kv_heads, c.head_dim))
        h = ops.transpose(h, (0, 2, 1, 3))  # (batch, all heads, n, head_dim)
        qk, v = ops.split(h, (c.heads + c.kv_heads,), axis=1)
        q, k = ops.split(rotate(qk, turn), (c.heads,), axis=1)
        if slots is not None:
            k, v = (
                ops.slice_update(old, (0, 0, start, 0), ops.cast(new, old.dtype))
                for old, new in zip(slots, (k, v), strict=True)
            )
        keys, values = ops.cast(k, x.dtype), ops.cast(v, x.dtype)
        # Query heads that share a key head stand together, so that one product serves them all.
        q = ops.reshape(q, (-1, c.kv_heads, c.group * n, c.head_dim))
        scores = ops.matmul(q, ops.swapaxes(keys, -1, -2)) * c.head_dim**-0.5
        scores = ops.cast(scores, "float32")
        if seen is not None:
            scores = ops.where(seen, scores, -1e9)
        h = ops.matmul(ops.cast(ops.softmax(scores), x.dtype), values)
        h = ops.transpose(ops.reshape(h, (-1, c.heads, n, c.head_dim)), (0, 2, 1, 3))
        h = self.out(ops.reshape(h, (-1, c.heads * c.head_dim)))
        return ops.reshape(h, (-1, n, c.width)), (k, v)


def empty_cache(
    config: TransformerConfig, batch: int, length: int, dtype: str = "float32"
) -> Cache:
    """Returns a cache for `length` positions of `batch` sequences.

    Returns:
        For each block a pair of keys and values, zeros `(batch, kv_heads, length, head_dim)`.
    """
    shape = (batch, config.kv_heads, length, config.head_dim)
    return [(ops.zeros(shape, dtype), ops.zeros(shape, dtype)) for _ in range(config.layers)]


def rotation(positions: Tensor, config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine of the angles of rotary positions.

    Pair `i` of a head turns by `position / rotary_base^(2i / head_dim)`: the first pairs tell
    neighbours apart, the last ones far places.

    Args:
        positions: `(n,)` or `(batch, n)`.
        config: gives `head_dim` and `rotary_base`.

    Returns:
        Two arrays `(1 or batch, 1, n, head_dim)`, float32, the two numbers of a pair alike.

    Reference: Su et al., 2021, arXiv:2104.09864, equation 15.
    """
    pair = np.arange(config.head_dim) // 2 * 2 / config.head_dim
    speed = (1 / config.rotary_base**pair).astype(np.float32)
    angles = ops.cast(positions, "float32")[..., None] * speed
    angles = ops.reshape(angles, (-1, 1, ops.shape(angles)[-2], config.head_dim))
    return ops.cos(angles), ops.sin(angles)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (0, 1), (2, 3), … of each head of `x`, `(batch, heads, n, head_dim)`.

    A product of two vectors so turned depends on how far apart their positions are, not on where.
    """
    x = ops.convert_to_tensor(x)
    cos, sin = (ops.cast(t, x.dtype) for t in turn)
    # (a, b) goes to (a cos - b sin, b cos + a sin): the pair, and the pair after a quarter turn.
    quarter = np.kron(np.eye(x.shape[-1] // 2), [[0, 1], [-1, 0]])
    return x * cos + ops.matmul(x, ops.cast(quarter, x.dtype)) * sin


def _visible(mask: Any, n: Any, keys: Any, start: Any, cached: bool) -> Tensor | None:
    """Returns which key each token may look at, bool `(1 or batch, n, keys)`; None: at all."""
    if not cached:  # the keys are the tokens themselves
        start = 0
    key, query = ops.arange(keys)[None], start + ops.arange(n)[:, None]
    if isinstance(mask, str):
        if mask == "causal":
            return (key <= query)[None]
        return ops.broadcast_to(key < start + n, (n, keys))[None] if cached else None
    mask = ops.convert_to_tensor(mask, "bool")
    mask = ops.reshape(mask, (1,) * (3 - len(mask.shape)) + tuple(ops.shape(mask)))
    # Slots that nothing was written to are not tokens, whatever the mask says.
    return ops.logical_and(mask, key < start + n) if cached else mask


def _seeds(seed: int | None) -> Iterator[int | None]:
    """Yields one seed per layer, all from one; or None for ever."""
    generator = np.random.default_rng(seed)
    while True:
        yield None if seed is None else int(generator.integers(2**31))


# What models put before and behind a transformer: with a bias, other than the matrices of a block.


def linear(n_in: int, n_out: int, seed: int, zero: bool = False) -> layers.Dense:
    """Returns a built layer `(..., n_in)` → `(..., n_out)`; its weights follow from the seed.

    Args:
        n_in: numbers that go in.
        n_out: numbers that come out.
        seed: of the weights; the bias is zero.
        zero: start with weights of zero too, so that nothing comes out until it has learnt.
    """
    start = "zeros" if zero else keras.initializers.GlorotUniform(seed=seed)
    layer = layers.Dense(n_out, kernel_initializer=start)
    layer.build((None, n_in))
    return layer


def embedding(n: int, width: int, seed: int) -> layers.Embedding:
    """Returns a built table of `n` rows: int `(...)`, below `n`, → `(..., width)`."""
    start = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    layer = layers.Embedding(n, width, embeddings_initializer=start)
    layer.build((None,))
    return layer
