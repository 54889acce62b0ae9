"""How a transformer reads and writes tokens of several codes.

A token is a block of 2×2 codes, each one of 512: 512⁴ different tokens, too many for one table of
embeddings or one softmax. So a token is a word of four letters. Reading adds the embeddings of
the letters; writing draws letter after letter, each of which knows those before it. The
probability of a token is the product of the four, so nothing is approximated.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib.models import sampling


class Speller(layers.Layer):
    """Embeddings before a transformer, and the choice of codes behind it.

    Args:
        codes: how many values a letter has.
        letters: in a token.
        width: numbers per token of the transformer.
        seed: of the initial weights.

    Reference: Lee et al., 2022, arXiv:2203.01941, whose small second transformer draws the codes
    of a place; here one hidden layer does.
    """

    def __init__(self, codes: int, letters: int, width: int, seed: int) -> None:
        super().__init__()
        self.letters = letters
        seeds = iter(range(seed, seed + 3 * letters))
        self.read = [embedding(codes, width, next(seeds)) for _ in range(letters)]
        self.enter = linear(width, width, next(seeds))
        self.before = [embedding(codes, width, next(seeds)) for _ in range(letters - 1)]
        self.heads = [linear(width, codes, next(seeds)) for _ in range(letters)]
        self.built = True

    def embed(self, tokens: Any) -> Any:
        """Returns `(..., width)` of tokens, int32 `(..., letters)`."""
        return sum(read(tokens[..., i]) for i, read in enumerate(self.read))

    def log_probability(self, y: Any, tokens: Any) -> Any:
        """Returns how likely tokens are.

        Args:
            y: what the transformer says, float `(..., width)`.
            tokens: int32 `(..., letters)`.

        Returns:
            Natural logarithms of the probabilities, float32 `(...)`.
        """
        state, total = self.enter(y), 0.0
        for i, head in enumerate(self.heads):
            letter = tokens[..., i]
            logits = head(ops.silu(state))
            total -= keras.losses.sparse_categorical_crossentropy(letter, logits, True)
            if i < len(self.before):
                state = state + self.before[i](letter)
        return total

    def pick(self, y: Any, uniform: Any, guidance: float = 1.0, **options: Any) -> Any:
        """Draws tokens.

        Args:
            y: what the transformer says, float `(b, n, width)`; with guidance `(2b, n, width)`,
                the second half without text.
            uniform: random numbers, float `(b, n, letters)` in [0, 1).
            guidance: how far the logits move away from those without text (Ho and Salimans,
                2022, arXiv:2207.12598); 1 needs none.
            **options: of `sampling.pick`.

        Returns:
            int32 `(b, n, letters)`.
        """
        state, drawn = self.enter(y), []
        for i, head in enumerate(self.heads):
            logits = head(ops.silu(state))
            if guidance != 1.0:
                with_text, without = ops.split(logits, 2, axis=0)
                logits = without + guidance * (with_text - without)
            letter = sampling.pick(logits, uniform[..., i], **options)
            drawn.append(letter)
            if i < len(self.before):
                known = letter if guidance == 1.0 else ops.concatenate([letter, letter])
                state = state + self.before[i](known)
        return ops.stack(drawn, axis=-1)


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
