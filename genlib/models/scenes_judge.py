"""The judge of Scenes: reads the five attributes of a 64×64 image, and measures alikeness.

It tells whether a generated image shows what its caption says. Its features, like those of the
Fashion-MNIST judge, are the space in which sets of images are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib import backend, weights
from genlib.data.captions import ATTRIBUTES
from genlib.data.images import to_float

SHIPPED = "judge-scenes"
EYE = "eye-scenes"  # another, smaller one: the tokenizer learns from it, the judge stays apart
CRITIC = "critic-scenes"  # a third one, which chooses among images; the judge only measures
SIZES = tuple(len(values) for values in ATTRIBUTES.values())  # (4, 6, 4, 5, 5)
_ENDS = tuple(np.cumsum(SIZES)[:-1].tolist())


@dataclass(frozen=True)
class JudgeConfig:
    """What defines the judge."""

    width: int = 32  # channels at 32×32; they double twice
    features: int = 128


class ScenesJudge(keras.Model):
    """Images to attribute logits.

    Args:
        config: widths.
        seed: of the initial weights.
    """

    def __init__(self, config: JudgeConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="scenes_judge")
        self.config = config or JudgeConfig()
        seeds = iter(np.random.default_rng(seed).integers(2**31, size=16).tolist())

        def options() -> dict[str, Any]:
            start = keras.initializers.HeNormal(seed=next(seeds))
            return {"activation": "silu", "kernel_initializer": start}

        width = self.config.width
        image = keras.Input((64, 64, 3))
        x = layers.Conv2D(width, 4, strides=2, padding="same", **options())(image)
        x = layers.Conv2D(2 * width, 4, strides=2, padding="same", **options())(x)
        x = layers.Conv2D(2 * width, 3, padding="same", **options())(x)
        x = layers.Conv2D(4 * width, 4, strides=2, padding="same", **options())(x)  # 8×8
        x = layers.Conv2D(width, 1, **options())(x)  # positions matter: no global pooling
        features = layers.Dense(self.config.features, **options())(layers.Flatten()(x))
        logits = layers.Dense(sum(SIZES))(features)
        self.network = keras.Model(image, [features, logits])
        self._run = backend.compile_step(self.network, self.network.variables)

        maps = [x.output for x in self.network.layers if isinstance(x, layers.Conv2D)]
        self._maps = keras.Model(image, maps[:3])

    def perceptual_loss(self, images: Any, others: Any) -> Any:
        """Compares two batches of images by what the first three convolutions make of them.

        Returns:
            The mean absolute differences, each channel's relative to its mean size, added up.

        Reference: Johnson et al., 2016, arXiv:1603.08155, section 3.2.
        """
        loss = 0.0
        for a, b in zip(self._maps(images), self._maps(others), strict=True):
            size = ops.stop_gradient(ops.mean(ops.abs(a), axis=(0, 1, 2), keepdims=True))
            loss += ops.mean(ops.abs(a - b) / (size + 1e-3))
        return loss

    def call(self, images: Any) -> Any:
        """Returns logits `(b, 24)` of images `(b, 64, 64, 3)` in [-1, 1], value after value."""
        return self.network(images)[1]

    def _outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != (64, 64, 3) or len(images) == 0:
            raise ValueError(
                f"The judge looks at uint8 images (n, 64, 64, 3), n at least 1, got "
                f"{images.dtype} {images.shape}."
            )
        parts = [
            backend.to_numpy(self._run(to_float(images[i : i + 250])))
            for i in range(0, len(images), 250)
        ]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns features, float32 `(n, 128)`, of uint8 images `(n, 64, 64, 3)`.

        Raises:
            ValueError: if `images` has another type or shape, or is empty.
        """
        return self._outputs(images)[0]

    def probabilities(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns for each attribute how likely each of its values is, float32 `(n, values)`."""
        logits = np.split(self._outputs(images)[1], _ENDS, axis=1)
        odds = [np.exp(part - part.max(1, keepdims=True)) for part in logits]
        return [part / part.sum(1, keepdims=True) for part in odds]

    def attributes(self, images: np.ndarray) -> np.ndarray:
        """Returns the likeliest values, int64 `(n, 5)`, as `genlib.data.scenes` numbers them."""
        return np.stack([part.argmax(1) for part in self.probabilities(images)], 1)


def attribute_loss(attributes: Any, logits: Any) -> Any:
    """Returns the cross-entropy, summed over the attributes: int `(b, 5)`, float `(b, 24)`."""
    parts = ops.split(logits, list(_ENDS), axis=1)
    losses = [
        ops.mean(keras.losses.sparse_categorical_crossentropy(attributes[:, i], part, True))
        for i, part in enumerate(parts)
    ]
    return sum(losses)


def load_scenes_judge(path: str | Path = SHIPPED) -> ScenesJudge:
    """Returns the frozen judge, from the shipped weights unless told otherwise.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.
    """
    recipes = ("scenes-judge", "scenes-eye", "scenes-critic")
    return weights.load_model(path, recipes, ScenesJudge, JudgeConfig)[0]
