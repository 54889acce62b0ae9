"""Trains the VAE of Fashion-MNIST."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from genlib.data import to_float
from genlib.models.vae import VAE, VAEConfig
from genlib.train.tasks import Arrays, FashionTask, Recipe


class VAETask(FashionTask):
    """Trains a VAE to raise the evidence lower bound, with a rate that falls to zero."""

    name, config_class = "vae", VAEConfig
    recipe = Recipe(epochs=40, batch_size=128, warmup=0, weight_decay=0.0, average=None, final=0.0)

    @staticmethod
    def model_class(config: VAEConfig, seed: int) -> VAE:
        """Returns the untrained model; the seed of the task is its own."""
        return VAE(replace(config, seed=seed))

    def prepare(self, epoch: int) -> Arrays:
        """Returns the images, uint8."""
        return self.data.train_images

    def batch(self, prepared: Arrays, chosen: np.ndarray, rng: np.random.Generator) -> Any:
        """Returns a batch of images, twice."""
        images = to_float(prepared[chosen])
        return images, images

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns minus the bound, in nats an image."""
        return self.model.compute_loss(x=targets, y_pred=made)

    def sample(self) -> np.ndarray:
        """Returns 32 images decoded from fixed latents, and 16 test images with reconstructions."""
        images = self.data.test_images[:16]
        latents = np.random.default_rng(self.seed).standard_normal(
            (32, self.model.config.latent_dim), np.float32
        )
        pairs = np.stack([images, self.model.reconstruct(images)], 1).reshape(-1, 28, 28, 1)
        return np.concatenate([self.model.decode(ops.convert_to_tensor(latents)), pairs])
