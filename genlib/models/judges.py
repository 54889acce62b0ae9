"""The judges: small frozen networks that look at images, and measure generators.

* `Judge` classifies Fashion-MNIST. `ScenesJudge` reads the five attributes of a 64×64 image, and so
  tells whether a generated image shows what its caption says.
* The features of both are the space in which sets of images are compared: they play the part that
  Inception's play in the usual FID.

A judge is trained once, then frozen and shipped with a hash, so that a distance measured today can
be compared with one measured next year. Two smaller networks of the kind of `ScenesJudge`, of other
seeds, do other work, so that none is trained on what measures it: the *perceptual network*, through
which the tokenizer's loss looks at images, and the *reward model*, which chooses the best of n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from scipy import special

from genlib import backend
from genlib.data.captions import ATTRIBUTES
from genlib.data.images import to_float

FASHION_JUDGE, SCENES_JUDGE = "judge-fashion", "judge-scenes"  # names of the shipped weights
PERCEPTUAL_NETWORK, REWARD_MODEL = "perceptual-scenes", "reward-scenes"
SIZES = tuple(len(values) for values in ATTRIBUTES.values())  # (4, 6, 4, 5, 5)
_ENDS = tuple(np.cumsum(SIZES)[:-1].tolist())

# --- Fashion-MNIST ------------------------------------------------------------------------------

FEATURES = 64  # width of the layer before the classes: the space in which images are compared
BATCH = 128


def build_judge(seed: int = 0) -> keras.Model:
    """Builds the untrained judge: three convolutions, one layer of features, ten logits.

    Args:
        seed: of the initial weights and of dropout.

    Returns:
        A model from images `(b, 28, 28, 1)`, float32 in [-1, 1], to the pair of features
        `(b, 64)` and logits `(b, 10)`. 257,162 weights.

    Example:
        >>> features, logits = build_judge()(np.zeros((2, 28, 28, 1), np.float32))
        >>> tuple(features.shape), tuple(logits.shape)
        ((2, 64), (2, 10))
    """
    seeds = iter(range(seed * 1000, seed * 1000 + 1000))

    def he() -> keras.initializers.Initializer:
        return keras.initializers.HeNormal(seed=next(seeds))

    images = keras.Input((28, 28, 1), name="images")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", kernel_initializer=he())(images)
    x = layers.MaxPooling2D()(x)  # (b, 14, 14, 32)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", kernel_initializer=he())(x)
    x = layers.MaxPooling2D()(x)  # (b, 7, 7, 64)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", kernel_initializer=he())(x)
    x = layers.Dropout(0.3, seed=next(seeds))(layers.Flatten()(x))  # (b, 3136)
    # SiLU, not ReLU: a ReLU that is off for every image would be a lost feature.
    describe = layers.Dense(FEATURES, activation="silu", kernel_initializer=he(), name="features")
    features = describe(x)
    logits = layers.Dense(10, kernel_initializer=he(), name="logits")(features)
    return keras.Model(images, [features, logits], name="judge")


class Judge:
    """A frozen judge: images in, NumPy arrays out.

    Args:
        model: what `build_judge` returns, with trained weights.
        card: the card of the weights, empty if there is none.
    """

    def __init__(self, model: keras.Model, card: dict[str, Any] | None = None) -> None:
        self.model = model
        self.card = card or {}

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (28, 28, 1):
            raise ValueError(
                f"The judge looks at uint8 images (n, 28, 28, 1), got {images.dtype} "
                f"{images.shape}. Convert with genlib.data.to_uint8 and add the channel axis."
            )
        if len(images) == 0:
            raise ValueError("The judge got no image. Give at least one.")
        features, logits = self.model.predict(to_float(images), batch_size=500, verbose=0)
        return features, logits

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the features that `genlib.metrics` compares.

        Args:
            images: uint8 `(n, 28, 28, 1)`.

        Returns:
            float32 `(n, 64)`.

        Raises:
            ValueError: if `images` has another type or shape, or is empty.
        """
        return self._run(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns how the judge spreads its belief over the ten classes.

        Args:
            images: uint8 `(n, 28, 28, 1)`.

        Returns:
            float32 `(n, 10)`; rows sum to 1.

        Raises:
            ValueError: if `images` has another type or shape, or is empty.
        """
        logits = self._run(images)[1]
        return special.softmax(logits, axis=1)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the likeliest class of each image.

        Args:
            images: uint8 `(n, 28, 28, 1)`.

        Returns:
            int64 `(n,)`, 0..9; names in `genlib.data.CLASS_NAMES`.

        Raises:
            ValueError: if `images` has another type or shape, or is empty.
        """
        return self._run(images)[1].argmax(axis=1).astype(np.int64)


# --- Scenes -------------------------------------------------------------------------------------


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
        return [special.softmax(part, axis=1) for part in logits]

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
