"""The loop that improves: generate, judge, keep the best, train on what was kept.

Best of n spends more work on each image. Rejection-sampling fine-tuning spends it once: the model
learns from its own images, but only from those in which the reward model found everything right.

The reward model is not the judge that measures the result: whoever selects images by a measure
improves that measure, whether the images get better or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from genlib import text
from genlib.data import captions, scenes
from genlib.data.images import fingerprint
from genlib.models.judges import ScenesJudge
from genlib.models.tokenizer import Tokenizer, codes_to_latents
from genlib.pipeline import Sample, best_of
from genlib.train.tasks import Arrays, FitTask, GeneratorTask, Recipe


@dataclass(frozen=True)
class Kept:
    """Images of a model in which the reward model found everything right.

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
    reward_model: ScenesJudge,
    *,
    tries: int = 2,
    seed: int = 0,
    batch_size: int = 256,
) -> Kept:
    """Lets a model draw training combinations, and keeps what the reward model finds right.

    Args:
        descriptions: how many, drawn from the combinations of training.
        sample: the model's: embeddings and a seed to codes or latents.
        tokenizer: decodes them.
        reward_model: finds them right or wrong.
        tries: images for each description, of which the best may be kept.
        seed: of descriptions and images.
        batch_size: descriptions at once.

    Returns:
        The kept images, as latents; none, if nothing was right.
    """
    possible = scenes.combinations("train")
    rng = np.random.default_rng((seed, 77))
    wanted = possible[rng.integers(len(possible), size=descriptions)]
    attributes, grids = [], []
    for first in range(0, descriptions, batch_size):
        part = wanted[first : first + batch_size]
        drawn, images, _ = best_of(tries, sample, tokenizer, reward_model, part, (seed, first))
        right = (reward_model.attributes(images) == part).all(1)
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
            raise ValueError("The reward model kept no image, so there is nothing to learn from.")
        self.base, self.kept, self.name = base, kept, base.name  # type: ignore[misc]
        self.recipe = recipe or Recipe(epochs=2, learning_rate=2e-4, warmup=20)
        self.seed = seed
        self._begin(base.model)

    def card(self) -> dict[str, Any]:
        """Returns also which images were kept."""
        return {**super().card(), "kept fingerprint": fingerprint(self.kept.latents)}

    def prepare(self, epoch: int) -> Arrays:
        """Returns an epoch of Scenes, and new captions of the kept images."""
        rng = np.random.default_rng((self.seed, epoch, 0, 4))
        said = [captions.caption(row, rng).text for row in self.kept.attributes]
        return self.base.prepare(epoch), {"text": text.encode(said), "latents": self.kept.latents}

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns half a batch of Scenes and half a batch of kept images."""
        ours = rng.integers(len(self.kept.latents), size=len(chosen) // 2)
        theirs = chosen[: len(chosen) - len(ours)]
        halves = [
            self.base.batch(part, rows, rng)
            for part, rows in zip(prepared, (theirs, ours), strict=True)
        ]
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *halves)

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the loss of the base task."""
        return self.base.loss(targets, made)

    def sample(self) -> np.ndarray:
        """Returns what the base task shows."""
        return self.base.sample()
