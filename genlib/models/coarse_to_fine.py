"""Coarse to fine: a thumbnail first, then finer grids, many tokens in one go.

Three thumbnails of 1×1, 2×2 and 4×4 tokens, which are those of the image's latents, averaged; then
the 8×8 tokens themselves in four passes, each of which fills one place in every 2×2 block. A pass
draws all its tokens in one forward, so an image takes 7 forwards, where token after token takes 64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import backend, ranges
from genlib.models import sampling
from genlib.models.letters import ALPHABET, LETTERS, Letters, spell, unspell
from genlib.models.sampling import check_text
from genlib.models.tokenizer import latents_to_codes
from genlib.models.transformer import Transformer, TransformerConfig, embedding, empty_cache, linear

THUMBNAILS = (1, 2, 4)  # tokens along a side
SIDE = 8  # of the finest grid
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column in each 2×2 block of the finest grid
GROUPS = (1, 4, 16, 16, 16, 16, 16)  # tokens that are drawn together
LENGTH = sum(GROUPS)  # 85 tokens
_ENDS = tuple(np.cumsum(GROUPS).tolist())


@dataclass(frozen=True)
class CoarseToFineConfig:
    """The shape of a coarse-to-fine model."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(6, 192, heads=6, kv_heads=2, hidden=384)
    )
    alphabet: int = ALPHABET  # of the letters that spell a token
    text_width: int = 128
    prefix: int = 4  # tokens that carry the text


def pyramid(latents: np.ndarray, levels: tuple[int, ...], alphabet: int = ALPHABET) -> np.ndarray:
    """Returns the tokens of all groups, coarse to fine.

    Args:
        latents: float `(n, 16, 16, channels)` in [-1, 1].
        levels: of the tokenizer.
        alphabet: of the letters.

    Returns:
        int32 `(n, 85, 8)`: thumbnails of 1, 4 and 16 tokens, row by row, then four times 16.
    """
    n, groups = len(latents), []
    for side in THUMBNAILS:
        block = SIDE // side
        split = latents.reshape(n, 2 * side, block, 2 * side, block, -1)
        groups.append(spell(latents_to_codes(split.mean((2, 4)), levels), alphabet))
    whole = spell(latents_to_codes(latents, levels), alphabet).reshape(n, SIDE, SIDE, LETTERS)
    groups += [whole[:, r::2, c::2].reshape(n, -1, LETTERS) for r, c in PASSES]
    return np.concatenate(groups, 1)


def finest(tokens: np.ndarray, alphabet: int = ALPHABET) -> np.ndarray:
    """Returns the codes of the finest grid, int32 `(n, 16, 16)`, of all tokens `(n, 85, 8)`."""
    whole = np.empty((len(tokens), SIDE, SIDE, LETTERS), np.int32)
    for (row, column), end in zip(PASSES, _ENDS[len(THUMBNAILS) :], strict=True):
        whole[:, row::2, column::2] = tokens[:, end - 16 : end].reshape(-1, 4, 4, LETTERS)
    return unspell(whole.reshape(len(tokens), -1, LETTERS), alphabet)


def _parents() -> np.ndarray:
    """Returns for each of the 85 places which earlier token it reads; place 0 reads none.

    A place of a thumbnail reads the one above it; the first pass reads the 4×4 thumbnail; each
    later pass reads the pass before it, in the same block.
    """
    parents = [np.zeros(1, int)]
    start = 0
    for side in THUMBNAILS[1:]:
        row, column = np.divmod(np.arange(side * side), side)
        parents.append(start + (row // 2) * (side // 2) + column // 2)
        start += side * side // 4
    parents += [np.arange(end - 16, end) for end in _ENDS[len(THUMBNAILS) - 1 : -1]]
    return np.concatenate(parents).astype(np.int32)


_PARENT = _parents()


class CoarseToFine(keras.Model):
    """Text embeddings to codes, group after group.

    A token sees the text, the earlier groups and its own group. What it reads in is a token of
    the group before, at the same part of the image; what it gives out is the one in its place.

    Args:
        config: shape.
        seed: of the initial weights.

    Reference: Tian et al., 2024, arXiv:2404.02905 (next-scale prediction). There a scale encodes
    what the coarser ones left over; here it encodes the averaged latents, so that one plain
    tokenizer serves all models. There the finest scale is drawn at once; here in four passes,
    since tokens that are drawn together cannot agree on a detail that they share.
    """

    kind = "codes"

    def __init__(self, config: CoarseToFineConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="coarse_to_fine")
        self.config = c = config or CoarseToFineConfig()
        self.transformer = Transformer(c.transformer, seed)
        width = c.transformer.width
        self.read_text = linear(c.text_width, c.prefix * width, seed + 1)
        self.place = embedding(LENGTH, width, seed + 2)
        self.letters = Letters(c.alphabet, LETTERS, width, seed + 3)
        self.built = True
        group = np.repeat(np.arange(-1, len(GROUPS)), (c.prefix, *GROUPS))
        self._mask = group[None, :] <= group[:, None]  # block-causal: all of a group at once
        self._drawer = lru_cache(backend.COMPILED)(self._compile_draw)

    def call(self, inputs: dict[str, Any]) -> Any:
        """Tells how likely each token is after the earlier groups, as training needs.

        Args:
            inputs: `"text"`, float `(b, text_width)`, and `"tokens"`, int `(b, 85, 8)`.

        Returns:
            Natural logarithms of the probabilities, `(b, 85)`.
        """
        text, tokens = inputs["text"], inputs["tokens"]
        x = ops.concatenate([self._prefix(text), self._embed(tokens, 0, LENGTH)], axis=1)
        y = self.transformer(x, mask=self._mask)[:, self.config.prefix :]
        return self.letters.log_probability(y, tokens)

    def _prefix(self, text: Any) -> Any:
        width = self.config.transformer.width
        return ops.reshape(self.read_text(text), (-1, self.config.prefix, width))

    def _embed(self, tokens: Any, start: int, end: int) -> Any:
        """Embeds places `start` to `end`, each with the token that it reads."""
        above = self.letters.embed(ops.take(tokens, _PARENT[start:end], axis=1))
        if start == 0:  # the coarsest token reads nothing
            above = above * ops.convert_to_tensor((np.arange(end) > 0).astype("float32")[:, None])
        return above + self.place(np.arange(start, end, dtype="int32"))[None]

    def sample(
        self,
        text: np.ndarray,
        seed: sampling.Seed = 0,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        guidance: float = 1.0,
        cached: bool = True,
        xla: bool = False,
    ) -> np.ndarray:
        """Draws one image for each text; the arguments are those of `ImageGPT.sample`.

        Returns:
            Codes, int32 `(n, 16, 16)`.

        Raises:
            ValueError: if `text` has another shape, or an option is out of range.
        """
        text = check_text(text, self.config.text_width)
        uniform = sampling.uniforms(len(text), LENGTH * LETTERS, seed)
        uniform = uniform.reshape(-1, LENGTH, LETTERS)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        options["guidance"] = guidance
        ranges.check_all(**options)
        if guidance != 1.0:
            text = np.concatenate([text, np.zeros_like(text)])
        tokens = self._drawer(xla, cached=cached, **options)(text, uniform)
        return finest(backend.to_numpy(tokens), self.config.alphabet)

    def _compile_draw(self, xla: bool, **options: Any) -> Any:
        draw = partial(self._draw, **options)
        return backend.compile_step(draw, self.variables, xla=xla)

    def _draw(self, text: Any, uniform: Any, cached: bool, **options: Any) -> Any:
        prefix, n = self.config.prefix, ops.shape(uniform)[0]
        copies = 1 if options["guidance"] == 1.0 else 2
        x, tokens = self._prefix(text), ops.zeros((n, 0, LETTERS), "int32")
        if cached:
            cache = empty_cache(self.config.transformer, copies * n, prefix + LENGTH)
            _, cache = self.transformer(x, cache=cache, mask="full")
        for start, end in zip((0, *_ENDS), _ENDS, strict=False):
            known = ops.tile(ops.pad(tokens, ((0, 0), (0, 1), (0, 0))), (copies, 1, 1))
            new = self._embed(known, start, end)
            if cached:
                y, cache = self.transformer(new, start=prefix + start, cache=cache, mask="full")
            else:
                x = ops.concatenate([x, new], axis=1)
                seen = self._mask[: prefix + end, : prefix + end]
                y = self.transformer(x, mask=seen)[:, prefix + start :]
            chosen = self.letters.pick(y, uniform[:, start:end], **options)
            tokens = ops.concatenate([tokens, chosen], axis=1)
        return tokens
