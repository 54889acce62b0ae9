"""The judge of Fashion-MNIST: a small classifier whose features measure generated images.

It is trained once, then frozen and shipped with a hash, so that a distance measured today can be
compared with one measured next year. Its features play the part that Inception's play in the
usual FID, at the size of these images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from genlib import bench, weights
from genlib.data import FashionMNIST, to_float
from genlib.metrics import accuracy

FEATURES = 64  # width of the layer before the classes: the space in which images are compared
BATCH = 128
SHIPPED = "judge-fashion"


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
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

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


def load_judge(path: str | Path = SHIPPED) -> Judge:
    """Returns the frozen judge.

    Args:
        path: its weights; the shipped ones unless told otherwise.

    Returns:
        The judge, with the card of its weights as `card`.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.

    Example:
        >>> judge = load_judge()
        >>> judge.probabilities(np.zeros((3, 28, 28, 1), np.uint8)).shape
        (3, 10)
    """
    arrays, card = weights.load(path)
    model = build_judge()
    weights.assign(model, arrays)
    return Judge(model, card)


def save_judge(model: keras.Model, path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Writes a trained judge and its card, as `load_judge` reads them.

    Args:
        model: the trained judge.
        path: where, with or without `.safetensors`.
        metrics: what `train_judge` returned; it becomes part of the card.

    Raises:
        OSError: if the folder cannot be written or the disk is full.
    """
    card = {"recipe": "judge", **metrics, "hardware": bench.environment()}
    weights.save(path, weights.model_arrays(model, "float16"), card)


def train_judge(
    data: FashionMNIST,
    *,
    epochs: int,
    seed: int,
    log: Callable[[str], None] | None = None,
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains a judge with Adam, the learning rate falling along a half cosine to zero.

    No image is flipped or shifted: the judge has to notice a generator that does so.

    Args:
        data: Fashion-MNIST.
        epochs: passes over the training images.
        seed: of weights, dropout and order.
        log: called with one line after each epoch.

    Returns:
        The model, and what to write on its card: seed, epochs, optimiser's steps, hours, the
        data's label, and under `metrics` the test accuracy with its 95 % interval.

    Raises:
        ValueError: if `epochs` is not positive.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: training takes at least 1.")
    start = time.perf_counter()
    model = build_judge(seed)
    n = len(data.train_images)
    steps = epochs * -(-n // BATCH)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)),
        loss=[None, keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
    )
    images, rng = to_float(data.train_images), np.random.default_rng(seed)
    for epoch in range(epochs):
        order = rng.permutation(n)  # our own order: Keras would draw it from global state
        history = model.fit(
            images[order], data.train_labels[order], batch_size=BATCH, shuffle=False, verbose=0
        )
        if log is not None:
            log(f"epoch {epoch + 1}/{epochs}: loss {history.history['loss'][-1]:.4f}")
    rate = accuracy(data.test_labels, Judge(model).predict(data.test_images))
    return model, {
        "seed": seed,
        "epochs": epochs,
        "steps": steps,
        "hours": round((time.perf_counter() - start) / 3600, 3),
        "data": data.label(),
        "metrics": {
            "test_images": len(data.test_images),
            "accuracy": rate.value,
            "accuracy_low": round(rate.low, 5),
            "accuracy_high": round(rate.high, 5),
        },
    }
