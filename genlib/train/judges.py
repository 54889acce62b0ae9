"""Trains the networks that look at images: the two judges, and two more of the judge's kind.

The judges of Fashion-MNIST and of Scenes measure generated images. The perceptual network teaches
the tokenizer, and the reward model chooses among images. These two are other networks than the
judge of Scenes, so that nobody is measured by the network that taught or chose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from genlib.data import scenes, to_float
from genlib.data.images import fingerprint
from genlib.models.judges import Judge, JudgeConfig, ScenesJudge, attribute_loss, build_judge
from genlib.train.tasks import EPOCH, Arrays, FashionTask, FitTask, Recipe


@dataclass(frozen=True)
class FashionJudgeConfig:
    """What defines the judge of Fashion-MNIST: nothing, there is one."""


class JudgeTask(FashionTask):
    """Trains the judge of Fashion-MNIST, with a rate that falls to zero.

    No image is flipped or shifted: the judge has to notice a generator that does so.
    """

    name, config_class = "judge", FashionJudgeConfig
    recipe = Recipe(epochs=8, batch_size=128, warmup=0, weight_decay=0.0, average=None, final=0.0)

    @staticmethod
    def model_class(config: FashionJudgeConfig, seed: int) -> keras.Model:
        """Returns the untrained judge."""
        model = build_judge(seed)
        model.config = config
        return model

    def card(self) -> dict[str, Any]:
        """Returns also which classes the images have."""
        return {**super().card(), "labels fingerprint": fingerprint(self.data.train_labels)}

    def prepare(self, epoch: int) -> Arrays:
        """Returns the images, uint8, and their classes."""
        return self.data.train_images, self.data.train_labels.astype(np.int32)

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns a batch of images and their classes."""
        images, labels = prepared
        return to_float(images[chosen]), labels[chosen]

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the cross-entropy of the classes, in nats."""
        _, logits = made  # the judge gives features too
        return keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        )

    def sample(self) -> np.ndarray:
        """Returns 64 test images, sorted by the class that each is taken for."""
        images = self.data.test_images[:64]
        return images[np.argsort(Judge(self.model).predict(images), kind="stable")]


class ScenesJudgeTask(FitTask):
    """Trains the judge of Scenes on every combination, held-out ones too: it must know them all.

    Half of the images are shaken, by noise and by a shift of each colour, so that a slightly wrong
    colour is not taken for another time of day.
    """

    name, config_class = "scenes-judge", JudgeConfig
    model_class: ClassVar[Callable[..., Any]] = ScenesJudge
    recipe = Recipe(epochs=12, batch_size=64)

    def prepare(self, epoch: int) -> Arrays:
        """Returns images and attributes; one scene in eight is of a held-out combination."""
        rare = EPOCH // 8
        parts = [
            scenes.scenes(n, self.seed, split, start=epoch * n)  # type: ignore[arg-type]
            for split, n in (("train", EPOCH - rare), ("held-out", rare))
        ]
        images = np.concatenate([part.images for part in parts])
        return images, np.concatenate([part.attributes for part in parts]).astype(np.int32)

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns a batch of images, half of them shaken, and their attributes."""
        images, attributes = to_float(prepared[0][chosen]), prepared[1][chosen]
        shaken = rng.random((len(chosen), 1, 1, 1)) < 0.5
        noise = rng.normal(0, 0.04, images.shape) + rng.normal(0, 0.06, (len(chosen), 1, 1, 3))
        return (images + shaken * noise).astype(np.float32), attributes

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the cross-entropy, summed over the attributes, in nats."""
        return attribute_loss(targets, made)

    def sample(self) -> np.ndarray:
        """Returns 64 validation images, those that it reads wrong first."""
        drawn = scenes.scenes(64, split="validation")
        with self.trained() as model:
            right = (model.attributes(drawn.images) == drawn.attributes).sum(1)
        return drawn.images[np.argsort(right, kind="stable")]


class PerceptualTask(ScenesJudgeTask):
    """Trains the perceptual network, a smaller judge, which teaches the tokenizer."""

    name = "scenes-perceptual"
    recipe = Recipe(epochs=4, batch_size=64)
    seed = 1

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: JudgeConfig | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(recipe, config or JudgeConfig(width=24, features=64), seed)


class RewardTask(ScenesJudgeTask):
    """Trains the reward model, which chooses among generated images: a judge of another seed."""

    name = "scenes-reward"
    seed = 2
