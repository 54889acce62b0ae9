"""The loop that improves: generate, judge, keep the best, train on what was kept.

Best of n spends more work on each image. Rejection-sampling fine-tuning spends it once: the model
learns from its own images, but only from those in which a critic found everything right.

The critic is not the judge that measures the result. Who selects by the measure improves the
measure, whatever the images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genlib import text
from genlib.data import captions, scenes
from genlib.models.scenes_judge import ScenesJudge
from genlib.models.tokenizer import Tokenizer, codes_to_latents
from genlib.recipes import FitTask, GeneratorTask, Recipe

Sample = Callable[[np.ndarray, int], np.ndarray]  # embeddings (n, 128) and a seed to a grid


def agreement(critic: ScenesJudge, images: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Returns how well images show what was asked for.

    Args:
        critic: reads attributes.
        images: uint8 `(n, 64, 64, 3)`.
        attributes: what was asked for, int `(n, 5)`, as `genlib.data.scenes` numbers it.

    Returns:
        float64 `(n,)`: the logarithm of the probability that all five are there, by the critic.
    """
    rows = np.arange(len(images))
    parts = critic.probabilities(images)
    shares = [part[rows, attributes[:, i]] for i, part in enumerate(parts)]
    return np.log(np.maximum(np.stack(shares, 1).astype(np.float64), 1e-12)).sum(1)


def best_of(
    n: int,
    sample: Sample,
    tokenizer: Tokenizer,
    critic: ScenesJudge,
    attributes: np.ndarray,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws `n` images for each description, and keeps the one that the critic likes best.

    Args:
        n: how many to draw, at least 1.
        sample: embeddings and a seed to codes or latents.
        tokenizer: decodes them.
        critic: chooses.
        attributes: of the descriptions, int `(m, 5)`.
        seed: of the first draw; the others take the seeds after it.

    Returns:
        The kept grids `(m, 16, 16[, channels])`, their images, uint8 `(m, 64, 64, 3)`, and their
        agreement `(m,)`.

    Raises:
        ValueError: if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}; draw at least 1 image for each description.")
    embedded = text.encode([captions.full(row) for row in attributes])
    kept: list[np.ndarray] = []
    for turn in range(n):
        grids = sample(embedded, seed + turn)
        images = tokenizer.decode(grids)
        scores = agreement(critic, images, attributes)
        drawn = [np.array(grids), np.array(images), scores]  # copies, which may be written into
        if kept:
            better = scores > kept[2]
            for old, new in zip(kept, drawn, strict=True):
                old[better] = new[better]
        else:
            kept = drawn
    return kept[0], kept[1], kept[2]


@dataclass(frozen=True)
class Kept:
    """Images of a model in which the critic found everything right.

    Attributes:
        attributes: int64 `(n, 5)`.
        latents: float32 `(n, 16, 16, channels)`.
        share: of the descriptions for which a right image was found.
    """

    attributes: np.ndarray
    latents: np.ndarray
    share: float


def collect(
    descriptions: int,
    sample: Sample,
    tokenizer: Tokenizer,
    critic: ScenesJudge,
    *,
    tries: int = 2,
    seed: int = 0,
    batch_size: int = 256,
) -> Kept:
    """Lets a model draw training combinations, and keeps what the critic finds right.

    Args:
        descriptions: how many, drawn from the combinations of training.
        sample: the model's: embeddings and a seed to codes or latents.
        tokenizer: decodes them.
        critic: finds them right or wrong.
        tries: images for each description, of which the best may be kept.
        seed: of descriptions and images.
        batch_size: descriptions at once.
    """
    possible = scenes.combinations("train")
    rng = np.random.default_rng((seed, 77))
    wanted = possible[rng.integers(len(possible), size=descriptions)]
    attributes, grids = [], []
    for first in range(0, descriptions, batch_size):
        part = wanted[first : first + batch_size]
        drawn, images, _ = best_of(tries, sample, tokenizer, critic, part, seed + first)
        right = (critic.attributes(images) == part).all(1)
        attributes.append(part[right])
        grids.append(drawn[right])
    kept, latents = np.concatenate(attributes), np.concatenate(grids)
    if latents.dtype.kind in "iu":
        latents = codes_to_latents(latents, tokenizer.config.levels)
    return Kept(kept, latents, len(kept) / descriptions)


class RejectionTask(FitTask):
    """Trains a model further on what was kept of its own images.

    Half of each batch are Scenes, so that the model does not drift away from them.

    Args:
        base: the task that trained the model; its model is the one that is improved.
        kept: of the model's images.
        recipe: settings; a low learning rate.
        seed: of order and captions.

    Raises:
        ValueError: if nothing was kept.

    Reference: Dong et al., 2023, arXiv:2304.06767 (RAFT: the best of a model's own samples).
    """

    def __init__(
        self, base: GeneratorTask, kept: Kept, recipe: Recipe | None = None, seed: int = 0
    ) -> None:
        if not len(kept.latents):
            raise ValueError("The critic kept no image, so there is nothing to learn from.")
        recipe = recipe or Recipe(epochs=2, learning_rate=2e-4, warmup=20)
        super().__init__(base.model, base.model.loss, recipe, seed)
        self.base, self.kept, self.name = base, kept, base.name

    def batch(self, epoch: int, step: int) -> tuple[Any, Any]:
        """Returns half a batch of Scenes and half a batch of kept images."""
        size = self.recipe.batch_size // 2
        x, y = self.base.batch(epoch, step)
        rng = np.random.default_rng((self.seed, epoch, step))
        chosen = rng.integers(len(self.kept.latents), size=size)
        said = [captions.caption(row, rng).text for row in self.kept.attributes[chosen]]
        own, target = self.base.inputs(self.kept.latents[chosen], rng)
        own = {"text": text.encode(said), **own}
        mixed = {name: np.concatenate([x[name][:size], own[name]]) for name in x}
        return mixed, np.concatenate([y[:size], target])

    def sample(self) -> np.ndarray:
        """Returns what the base task shows."""
        return self.base.sample()
