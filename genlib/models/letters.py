"""How a transformer reads and writes codes.

A token is a block of 2×2 codes, each one of 4,096: 4,096⁴ different tokens, too many for one table
of embeddings or one softmax. So a token is a word of eight letters, two for each code, from an
alphabet of 64. Reading adds the embeddings of the letters; writing draws letter after letter, each
of which knows those before it. The probability of a token is the product of the eight, so nothing
is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib.models import sampling
from genlib.models.sampling import guided
from genlib.models.transformer import embedding, linear

ALPHABET = 64  # values of a letter: two letters spell 64 × 64 = 4,096 codes
LETTERS = 8  # of a token: four codes, two letters each


def spell(codes: np.ndarray, alphabet: int = ALPHABET) -> np.ndarray:
    """Turns a grid of codes into tokens.

    Args:
        codes: int `(n, s, s)`, `s` even, below `alphabet²`.
        alphabet: how many letters there are.

    Returns:
        int32 `(n, s·s/4, 8)`: the blocks of 2×2 codes row by row; in each, code by code, the
        lower letter and the higher one.

    Raises:
        ValueError: if a code is too large for two letters.

    Example:
        >>> spell(np.array([[[1, 2], [3, 65]]]))
        array([[[1, 0, 2, 0, 3, 0, 1, 1]]], dtype=int32)
    """
    if codes.size and not 0 <= codes.min() <= codes.max() < alphabet**2:
        raise ValueError(
            f"Codes from {codes.min()} to {codes.max()}; two letters spell 0 to {alphabet**2 - 1}."
        )
    n, side, _ = codes.shape
    blocks = codes.reshape(n, side // 2, 2, side // 2, 2).transpose(0, 1, 3, 2, 4)
    letters = np.stack([blocks % alphabet, blocks // alphabet], -1)
    return letters.reshape(n, -1, LETTERS).astype(np.int32)


def unspell(tokens: np.ndarray, alphabet: int = ALPHABET) -> np.ndarray:
    """Undoes `spell`: int `(n, s·s/4, 8)` → codes, int32 `(n, s, s)`."""
    n, side = len(tokens), math.isqrt(tokens.shape[1])
    letters = tokens.reshape(n, side, side, 2, 2, 2)
    blocks = letters[..., 0] + alphabet * letters[..., 1]
    return blocks.transpose(0, 1, 3, 2, 4).reshape(n, 2 * side, 2 * side).astype(np.int32)


class Letters(layers.Layer):
    """Embeddings before a transformer, and the choice of codes behind it.

    Args:
        alphabet: how many values a letter has.
        letters: in a token.
        width: numbers per token of the transformer.
        seed: of the initial weights.

    Reference: Lee et al., 2022, arXiv:2203.01941, whose small second transformer draws the codes
    of a place; here two layers do.
    """

    def __init__(self, alphabet: int, letters: int, width: int, seed: int) -> None:
        super().__init__()
        self.letters = letters
        seeds = iter(range(seed, seed + 3 * letters + 1))
        # To read a token: one table for each letter, whose rows are added.
        self.read = [embedding(alphabet, width, next(seeds)) for _ in range(letters)]
        # To write one: a state, which starts as what the transformer says and to which each letter
        # adds its row; and from the state, through a hidden layer, one head for each letter.
        self.enter = linear(width, width, next(seeds))
        self.mix = linear(width, width, next(seeds))
        self.before = [embedding(alphabet, width, next(seeds)) for _ in range(letters - 1)]
        self.heads = [linear(width, alphabet, next(seeds)) for _ in range(letters)]
        self.built = True

    def embed(self, tokens: Any) -> Any:
        """Reads tokens, int32 `(..., letters)`, as what a transformer takes, `(..., width)`."""
        return sum(read(tokens[..., i]) for i, read in enumerate(self.read))

    def _hidden(self, state: Any) -> Any:
        return ops.silu(self.mix(ops.silu(state)))

    def logits(self, y: Any, tokens: Any) -> Any:
        """Returns the logits of each letter, given those before it in its token.

        Args:
            y: what the transformer says, float `(..., width)`.
            tokens: int32 `(..., letters)`.

        Returns:
            float32 `(..., letters, alphabet)`.
        """
        state, found = self.enter(y), []
        for i, head in enumerate(self.heads):
            found.append(head(self._hidden(state)))
            if i < len(self.before):
                state = state + self.before[i](tokens[..., i])
        return ops.stack(found, axis=-2)

    def log_probability(self, y: Any, tokens: Any, shares: Any = None) -> Any:
        """Returns how likely tokens are.

        Args:
            y: what the transformer says, float `(..., width)`.
            tokens: int32 `(..., letters)`.
            shares: what a teacher gives each letter, probabilities, float
                `(..., letters, alphabet)`: then the mean over what the teacher would write.

        Returns:
            Natural logarithms of the probabilities, float32 `(...)`.
        """
        logits = self.logits(y, tokens)
        if shares is None:
            likely = -keras.losses.sparse_categorical_crossentropy(tokens, logits, from_logits=True)
        else:
            likely = -keras.losses.categorical_crossentropy(shares, logits, from_logits=True)
        return ops.sum(likely, axis=-1)

    def draw(self, y: Any, choose: Callable[[int, Any], Any], guidance: float = 1.0) -> Any:
        """Draws tokens letter by letter; how a letter is chosen is the caller's.

        Args:
            y: what the transformer says, float `(b, n, width)`; with guidance `(2b, n, width)`,
                the second half without text.
            choose: which letter (0, 1, …) and its logits, float `(b, n, alphabet)`, → int32
                `(b, n)`.
            guidance: how far the logits move away from those without text (Ho and Salimans,
                2022, arXiv:2207.12598); 1 needs none.

        Returns:
            int32 `(b, n, letters)`.
        """
        state, drawn = self.enter(y), []
        for i, head in enumerate(self.heads):
            letter = choose(i, guided(head(self._hidden(state)), guidance))
            drawn.append(letter)
            if i < len(self.before):
                known = letter if guidance == 1.0 else ops.concatenate([letter, letter])
                state = state + self.before[i](known)
        return ops.stack(drawn, axis=-1)

    def pick(self, y: Any, uniform: Any, guidance: float = 1.0, **options: Any) -> Any:
        """Draws tokens by one random number a letter.

        Args:
            y: as in `draw`.
            uniform: random numbers, float `(b, n, letters)` in [0, 1).
            guidance: as in `draw`.
            **options: of `sampling.pick`.

        Returns:
            int32 `(b, n, letters)`.
        """

        def choose(i: int, logits: Any) -> Any:
            return sampling.pick(logits, uniform[..., i], **options)

        return self.draw(y, choose, guidance)
