"""Coarse to fine: a thumbnail of codes first, then each finer grid in one go.

Four grids, 1×1, 2×2, 4×4 and 8×8. The codes of a coarse grid are those of the image's latents,
averaged; each finer grid is drawn whole, in one forward, from the coarser ones. So an image takes
4 forwards, where code after code takes 64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import backend
from genlib.models import sampling
from genlib.models.image_gpt import check_text, embedding, linear
from genlib.models.tokenizer import latents_to_codes
from genlib.models.transformer import Transformer, TransformerConfig, empty_cache

SIDES = (1, 2, 4, 8)
LENGTH = sum(side * side for side in SIDES)  # 85 codes
_STARTS = tuple(int(s) for s in np.cumsum((0, *(side * side for side in SIDES[:-1]))))


@dataclass(frozen=True)
class CoarseToFineConfig:
    """The shape of a coarse-to-fine model."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(6, 192, heads=6, kv_heads=2, hidden=384)
    )
    levels: tuple[int, ...] = (8, 8, 8, 8)  # of the tokenizer
    text_width: int = 128
    prefix: int = 4  # tokens that carry the text

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return int(np.prod(self.levels))


def pyramid(latents: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Returns the codes of all four grids, coarse to fine.

    Args:
        latents: float `(n, 8, 8, channels)` in [-1, 1].
        levels: of the tokenizer.

    Returns:
        int32 `(n, 85)`: 1, 4, 16 and 64 codes, each grid row by row.
    """
    grids = []
    for side in SIDES:
        block = SIDES[-1] // side
        split = latents.reshape(len(latents), side, block, side, block, -1)
        grids.append(latents_to_codes(split.mean((2, 4)), levels).reshape(len(latents), -1))
    return np.concatenate(grids, 1)


def _finer(side: int) -> np.ndarray:
    """Returns for each place of a grid the place above it in the grid half as fine."""
    row, column = np.divmod(np.arange(side * side), side)
    return (row // 2) * (side // 2) + column // 2


# For each of the 85 places, which code of a coarser grid it starts from; place 0 has none.
_PARENT = np.concatenate(
    [[0]] + [_STARTS[i] + _finer(side) for i, side in enumerate(SIDES[1:])]
).astype(np.int32)
_SCALE = np.repeat(np.arange(len(SIDES)), [side * side for side in SIDES])


class CoarseToFine(keras.Model):
    """Text embeddings to codes, grid after grid.

    A token of a grid sees the text, the coarser grids and its own grid. What it reads in is the
    code above it, in the next coarser grid; what it gives out is the code in its place.

    Args:
        config: shape.
        seed: of the initial weights.

    Reference: Tian et al., 2024, arXiv:2404.02905 (next-scale prediction). There a scale encodes
    what the coarser ones left over; here it encodes the averaged latents, so that one plain
    tokenizer serves all models.
    """

    kind = "codes"

    def __init__(self, config: CoarseToFineConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="coarse_to_fine")
        self.config = c = config or CoarseToFineConfig()
        self.transformer = Transformer(c.transformer, seed)
        width = c.transformer.width
        self.read_text = linear(c.text_width, c.prefix * width, seed + 1)
        self.embed = embedding(c.codes, width, seed + 2)
        self.place = embedding(LENGTH, width, seed + 3)
        self.head = linear(width, c.codes, seed + 4)
        self.built = True
        scale = np.concatenate([np.full(c.prefix, -1), _SCALE])
        self._mask = scale[None, :] <= scale[:, None]  # block-causal: all of a grid at once
        self._loops: dict[Any, Any] = {}

    def call(self, inputs: dict[str, Any]) -> Any:
        """Predicts every code from the coarser grids, as training needs.

        Args:
            inputs: `"text"`, float `(b, text_width)`, and `"codes"`, int `(b, 85)`.

        Returns:
            Logits `(b, 85, codes)`.
        """
        x = ops.concatenate(
            [self._prefix(inputs["text"]), self._tokens(inputs["codes"], 0, LENGTH)], axis=1
        )
        return self.head(self.transformer(x, mask=self._mask)[:, self.config.prefix :])

    def _prefix(self, text: Any) -> Any:
        width = self.config.transformer.width
        return ops.reshape(self.read_text(text), (-1, self.config.prefix, width))

    def _tokens(self, codes: Any, start: int, end: int) -> Any:
        """Embeds places `start` to `end`, each with the code above it."""
        above = self.embed(ops.take(codes, _PARENT[start:end], axis=1))
        if start == 0:  # the coarsest code has nothing above it
            above = above * ops.convert_to_tensor((np.arange(end) > 0).astype("float32")[:, None])
        return above + self.place(np.arange(start, end, dtype="int32"))[None]

    def sample(
        self,
        text: np.ndarray,
        seed: int = 0,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        cached: bool = True,
        xla: bool = False,
    ) -> np.ndarray:
        """Draws one image for each text; the arguments are those of `ImageGPT.sample`.

        Returns:
            Codes of the finest grid, int32 `(n, 8, 8)`.

        Raises:
            ValueError: if `text` has another shape, or an option is out of range.
        """
        text = check_text(text, self.config.text_width)
        uniform = sampling.uniforms(len(text), LENGTH, seed)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        if guidance != 1.0:
            text = np.concatenate([text, np.zeros_like(text)])
        key = (guidance, cached, xla, *options.values())
        if key not in self._loops:

            def run(text: Any, uniform: Any) -> Any:
                return self._draw(text, uniform, guidance, cached, **options)

            self._loops[key] = backend.compile_step(run, self.variables, xla=xla)
        codes = backend.to_numpy(self._loops[key](text, uniform))
        return codes[:, _STARTS[-1] :].reshape(-1, SIDES[-1], SIDES[-1])

    def _draw(self, text: Any, uniform: Any, guidance: float, cached: bool, **options: Any) -> Any:
        prefix, n = self.config.prefix, ops.shape(uniform)[0]
        copies = 1 if guidance == 1.0 else 2
        x, codes = self._prefix(text), ops.zeros((n, 0), "int32")
        if cached:
            cache = empty_cache(self.config.transformer, copies * n, prefix + LENGTH)
            _, cache = self.transformer(x, cache=cache, mask="full")
        for start, side in zip(_STARTS, SIDES, strict=True):
            end = start + side * side
            known = ops.tile(ops.pad(codes, ((0, 0), (0, 1))), (copies, 1))
            tokens = self._tokens(known, start, end)
            if cached:
                y, cache = self.transformer(tokens, start=prefix + start, cache=cache, mask="full")
            else:
                x = ops.concatenate([x, tokens], axis=1)
                seen = self._mask[: prefix + end, : prefix + end]
                y = self.transformer(x, mask=seen)[:, prefix + start :]
            logits = self.head(y)
            if guidance != 1.0:
                with_text, without = ops.split(logits, 2, axis=0)
                logits = without + guidance * (with_text - without)
            chosen = sampling.pick(logits, uniform[:, start:end], **options)
            codes = ops.concatenate([codes, chosen], axis=1)
        return codes
