"""Trains a GAN: two networks with two losses, so it is no `FitTask` but a task of its own.

How a step is taken is the model's (`genlib.models.gan.GAN.train_step`): this file says on what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Self

import keras
import numpy as np

from genlib import ranges, weights
from genlib.data import fashion_mnist
from genlib.data.images import fingerprint, to_float
from genlib.models.gan import ARTICLE, GAN, GANConfig


class GANTask:
    """Trains a GAN on images.

    Args:
        images: uint8 `(n, 28, 28, 1)`, at least one batch of them.
        config: networks, step and optimiser.
        seed: of weights, order and latents.
        data_label: what the images are, for the run's record.

    Raises:
        ValueError: if there are fewer images than one batch, or the seed is negative.
    """

    def __init__(
        self,
        images: np.ndarray,
        config: GANConfig = ARTICLE,
        *,
        seed: int = 0,
        data_label: str = "custom",
    ) -> None:
        if len(images) < config.batch_size:
            raise ValueError(
                f"{len(images)} images do not fill a batch of {config.batch_size}. "
                "Give more images, or a smaller batch_size."
            )
        ranges.check("seed", seed, of="training seed")
        self.images, self.config, self.seed, self.data_label = images, config, seed, data_label
        self.gan = GAN(config, seed)
        self.variables = self.gan.variables
        self.images_per_step = config.batch_size
        self.steps_per_epoch = len(images) // config.batch_size

    @classmethod
    def of(cls, card: Mapping[str, Any], source: str | None = None) -> Self:
        """Makes the task that a run's description or a card tells of."""
        data, config = fashion_mnist(source), weights.settings(GANConfig, card["config"])
        return cls(data.train_images, config, seed=card["seed"], data_label=data.label())

    def card(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data."""
        return {
            "recipe": "gan",
            "config": asdict(self.config),
            "seed": self.seed,
            "data": f"{self.data_label}, {len(self.images)} images",
            "data fingerprint": fingerprint(self.images),
        }

    def prepare(self, epoch: int) -> None:
        """Returns nothing: the images are there, and latents are drawn step by step."""

    def epoch(self, epoch: int, prepared: None = None) -> Iterator[dict[str, Any]]:
        """Takes one step for each batch of a fresh permutation; the incomplete batch is left."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        for step in range(self.steps_per_epoch):
            chosen = order[step * self.images_per_step :][: self.images_per_step]
            z = GAN.latents(self.images_per_step, seed=(self.seed, epoch, step))
            yield self.gan.train_step(z, to_float(self.images[chosen]))

    def sample(self) -> np.ndarray:
        """Returns 64 images from fixed latents."""
        return self.gan.sample(64, seed=self.seed)

    @contextmanager
    def trained(self) -> Iterator[keras.Model]:
        """Lends the generator."""
        yield self.gan.generator
