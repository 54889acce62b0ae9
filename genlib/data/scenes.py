"""Scenes: an endless set of captioned 64×64 landscapes whose every attribute is known.

Because the attributes are known, whether an image shows what its caption says is measured, not
guessed. Scene `i` of a seed depends on nothing but the seed, the split and `i`: the set has no
file and no order, and any part of it can be drawn alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal, get_args

import numpy as np

from genlib.data import captions, drawing
from genlib.data.captions import ATTRIBUTES, Caption

Split = Literal["train", "validation", "held-out"]

NAMES = tuple(ATTRIBUTES)  # ("time", "land", "light", "weather", "object")
_BOAT, _SEA_LAKE_CITY = ATTRIBUTES["object"].index("boat"), (0, 1, 5)
_HELD_OUT_EVERY = 8  # one combination in eight is kept out of training


@dataclass(frozen=True)
class Scenes:
    """Images with what they show.

    Attributes:
        images: uint8 `(n, 64, 64, 3)`.
        attributes: int64 `(n, 5)`: for each of `NAMES`, the index into `ATTRIBUTES[name]`.
        captions: one for each image.
    """

    images: np.ndarray
    attributes: np.ndarray
    captions: tuple[Caption, ...]

    def __len__(self) -> int:
        return len(self.images)


@cache
def combinations(split: Split | None = None) -> np.ndarray:
    """Returns the attribute combinations that a split may show.

    A boat needs water, so it never stands on mountains, hills or sand. One combination in eight,
    spread evenly over all values, is held out of training: whoever draws it right has composed
    it, not remembered it.

    Args:
        split: `"train"` and `"validation"` share their combinations, `"held-out"` has the
            others; `None` gives all.

    Returns:
        int64 `(combinations, 5)`; do not write into it.

    Raises:
        ValueError: if there is no such split.

    Example:
        >>> len(combinations()), len(combinations("held-out")) / len(combinations())
        (2160, 0.125)
    """
    rows = np.array(list(product(*(range(len(values)) for values in ATTRIBUTES.values()))))
    land, thing = rows[:, NAMES.index("land")], rows[:, NAMES.index("object")]
    rows = rows[(thing != _BOAT) | np.isin(land, _SEA_LAKE_CITY)]
    if split is not None:
        if split not in get_args(Split):
            raise ValueError(f"Unknown split {split!r}. Choose one of {get_args(Split)}.")
        # A fixed shuffle, no modular pattern: each pair of values stays in training.
        held_out = np.zeros(len(rows), bool)
        order = np.random.default_rng(2026).permutation(len(rows))
        held_out[order[: len(rows) // _HELD_OUT_EVERY]] = True
        rows = rows[held_out if split == "held-out" else ~held_out]
    rows.setflags(write=False)
    return rows


def scenes(
    n: int,
    seed: int = 0,
    split: Split = "train",
    *,
    start: int = 0,
    language: captions.Language | None = None,
) -> Scenes:
    """Draws captioned scenes.

    Args:
        n: how many, at least 1.
        seed: of the set. The splits of one seed have no scene in common.
        split: `"train"`; `"validation"`, new scenes of the same combinations; or `"held-out"`,
            scenes of combinations that training never shows.
        start: index of the first scene: `scenes(8)` is `scenes(4)` and `scenes(4, start=4)`.
        language: of the captions, `"en"` or `"zh"`; `None` mixes them half and half.

    Returns:
        Images, attributes and captions.

    Raises:
        ValueError: if `n` is below 1, `seed` or `start` is negative, or the split or language
            is unknown.

    Example:
        >>> few = scenes(4, seed=1)
        >>> few.images.shape, few.images.dtype
        ((4, 64, 64, 3), dtype('uint8'))
    """
    if n < 1 or seed < 0 or start < 0:
        raise ValueError(
            f"n = {n}, seed = {seed}, start = {start}: give n of at least 1, the others from 0."
        )
    allowed = combinations(split)
    attributes = np.empty((n, len(NAMES)), np.int64)
    noise = np.empty((n, drawing.NOISE), np.float32)
    texts = []
    for row in range(n):
        rng = np.random.default_rng((get_args(Split).index(split), seed, start + row))
        attributes[row] = allowed[rng.integers(len(allowed))]
        noise[row] = rng.random(drawing.NOISE, dtype=np.float32)
        texts.append(captions.caption(attributes[row], rng, language=language))
    return Scenes(drawing.draw(attributes, noise), attributes, tuple(texts))


def draw(attributes: Sequence[str], n: int = 1, seed: int = 0) -> np.ndarray:
    """Draws scenes of one combination, as the set itself would.

    Args:
        attributes: five values in the order of `NAMES`, say
            `("sunset", "sea", "middle", "clear", "boat")`.
        n: how many variations.
        seed: of the variations.

    Returns:
        uint8 `(n, 64, 64, 3)`.

    Raises:
        ValueError: if a value is unknown, or the object cannot stand there.
    """
    rows = np.tile(captions.indices(attributes), (n, 1))
    if not (combinations() == rows[0]).all(1).any():
        raise ValueError(f"A boat needs water, not {attributes[1]!r}. Choose sea, lake or city.")
    noise = np.stack(
        [
            np.random.default_rng((3, seed, i)).random(drawing.NOISE, dtype=np.float32)
            for i in range(n)
        ]
    )
    return drawing.draw(rows, noise)
