"""How a transformer reads and writes the tokenizer's codes.

There are 262,144 codes, too many for one table of embeddings or one softmax. So a code is a word
of two letters, of 512 each. Reading adds the embeddings of the letters; writing draws the first
letter, then the second, which knows the first. The probability of a code is the product of the
two, so nothing is approximated, and the tables shrink from 262,144 rows to 1,024.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib.models import sampling


def letters(codes: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Splits codes into letters, the first one the fastest to change.

    Args:
        codes: int32 `(...)`.
        sizes: how many values each letter has.

    Returns:
        One int32 `(...)` for each letter.

    Example:
        >>> letters(np.array([7]), (3, 4))
        [array([1]), array([2])]
    """
    split = []
    for size in sizes:
        split.append(codes % size)
        codes = codes // size
    return split


class Speller(layers.Layer):
    """Embeddings before a transformer, and the choice of codes behind it.

    Args:
        sizes: of the letters; their product is the number of codes.
        width: numbers per token of the transformer.
        seed: of the initial weights.

    Reference: Lee et al., 2022, arXiv:2203.01941, whose small second transformer draws the parts
    of a code; here one hidden layer does.
    """

    def __init__(self, sizes: tuple[int, ...], width: int, seed: int) -> None:
        super().__init__()
        self.sizes = sizes
        seeds = iter(range(seed, seed + 4 * len(sizes) + 1))
        self.read = [embedding(size, width, next(seeds)) for size in sizes]
        self.enter = linear(width, width, next(seeds))
        self.before = [embedding(size, width, next(seeds)) for size in sizes[:-1]]
        self.heads = [linear(width, size, next(seeds)) for size in sizes]
        self.built = True

    def embed(self, codes: Any) -> Any:
        """Returns `(..., width)` of codes, int32 `(...)`."""
        parts = letters(codes, self.sizes)
        return sum(read(part) for read, part in zip(self.read, parts, strict=True))

    def log_probability(self, y: Any, codes: Any) -> Any:
        """Returns how likely codes are.

        Args:
            y: what the transformer says, float `(..., width)`.
            codes: int32 `(...)`.

        Returns:
            Natural logarithms, float32 `(...)`.
        """
        state, total = self.enter(y), 0.0
        for i, letter in enumerate(letters(codes, self.sizes)):
            logits = self.heads[i](ops.silu(state))
            total -= keras.losses.sparse_categorical_crossentropy(letter, logits, True)
            if i < len(self.before):
                state = state + self.before[i](letter)
        return total

    def pick(self, y: Any, uniform: Any, guidance: float = 1.0, **options: Any) -> Any:
        """Draws codes.

        Args:
            y: what the transformer says, float `(b, n, width)`; with guidance `(2b, n, width)`,
                the second half without text.
            uniform: random numbers, float `(b, n, letters)` in [0, 1).
            guidance: how far the logits move away from those without text (Ho and Salimans,
                2022, arXiv:2207.12598); 1 needs none.
            **options: of `sampling.pick`.

        Returns:
            int32 `(b, n)`.
        """
        state, codes, unit = self.enter(y), 0, 1
        for i, size in enumerate(self.sizes):
            logits = self.heads[i](ops.silu(state))
            if guidance != 1.0:
                with_text, without = ops.split(logits, 2, axis=0)
                logits = without + guidance * (with_text - without)
            letter = sampling.pick(logits, uniform[..., i], **options)
            codes, unit = codes + unit * letter, unit * size
            if i < len(self.before):
                known = letter if guidance == 1.0 else ops.concatenate([letter, letter])
                state = state + self.before[i](known)
        return codes


def linear(n_in: int, n_out: int, seed: int, zero: bool = False) -> layers.Dense:
    """Returns a built Dense layer whose weights follow from the seed, or are zero."""
    start = "zeros" if zero else keras.initializers.GlorotUniform(seed=seed)
    layer = layers.Dense(n_out, kernel_initializer=start)
    layer.build((None, n_in))
    return layer


def embedding(n: int, width: int, seed: int) -> layers.Embedding:
    """Returns a built Embedding layer whose weights follow from the seed."""
    start = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    layer = layers.Embedding(n, width, embeddings_initializer=start)
    layer.build((None,))
    return layer


def check_text(text: np.ndarray, width: int) -> np.ndarray:
    """Returns text embeddings as float32 `(n, width)`.

    Raises:
        ValueError: if they have another shape, or there are none.
    """
    text = np.asarray(text, np.float32)
    if text.ndim != 2 or text.shape[1] != width or len(text) == 0:
        raise ValueError(
            f"Text embeddings are float (n, {width}), n at least 1, got {text.shape}. "
            "genlib.text.encode makes them."
        )
    return text
