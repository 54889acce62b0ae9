"""Generators that need no training: from a run, or from the weights that come with genlib."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from genlib import bench, checkpoint, metrics, train, weights
from genlib.data import FashionMNIST, to_float
from genlib.models import gan
from genlib.models.judge import Judge, load_judge
from genlib.models.vae import VAE, VAEConfig
from genlib.speed import prune

TRAIN_IMAGES = 12_000  # among which the nearest neighbour is sought: seconds, not minutes


def load_generator(name: str | Path) -> tuple[keras.Model, dict[str, Any]]:
    """Loads a generator and the card that tells how it was made.

    Args:
        name: a run's folder, a weights file, or the bare name of shipped weights, such as
            `"gan-conv-fashion"`, `"gan-mlp-fashion"`, and `"gan-small-fashion"`, which is pruned.

    Returns:
        The generator, latents `(batch, 100)` → images in [-1, 1], and its card.

    Raises:
        FileNotFoundError: if there is neither a run nor a weights file of that name.
        RunError: if the run trains something else, or is damaged.
        WeightsError: if the weights are damaged or do not belong to a GAN.

    Example:
        >>> generator, card = load_generator("gan-mlp-fashion")
        >>> gan.sample(generator, 4).shape
        (4, 28, 28, 1)
    """
    if Path(name).is_dir():
        return train.load_gan(name).generator, checkpoint.read_run(Path(name))
    arrays, card = weights.load(name)
    if card.get("recipe") == "gan":
        generator = gan.build_generator(card["config"]["network"])
    elif card.get("recipe") == "gan-small":  # made by genlib.speed.heal
        generator = prune.build_narrow(card["config"]["groups"])
    else:
        raise weights.WeightsError(
            f"{name} holds weights of {card.get('recipe')!r}, not of a GAN's generator."
        )
    weights.assign(generator, arrays)
    return generator, card


def export_generator(run: str | Path, path: str | Path, data: FashionMNIST) -> dict[str, Any]:
    """Writes a run's generator as float16 weights, with a card that holds its measured quality.

    Args:
        run: the folder of a trained run.
        path: of the weights, without ending.
        data: the images that it was trained on; its test images are the measure.

    Returns:
        The card.

    Raises:
        FileNotFoundError, RunError, WeightsError: as `train.load_gan`.
        OSError: if the weights cannot be written.
    """
    description = checkpoint.read_run(Path(run))
    model = train.load_gan(run)
    state = checkpoint.restore(Path(run), model.variables())
    card = {
        **description,
        "config": asdict(model.config),
        "epochs": state.epoch,
        "hours": round(state.seconds / 3600, 3),
        "hardware": bench.environment(),
        "metrics": plain(evaluate(model.generator, data, load_judge())),
    }
    weights.save(path, weights.model_arrays(model.generator, "float16"), card)
    return card


def evaluate(
    generator: Any, data: FashionMNIST, judge: Judge, n: int = 1000, seed: int = 1
) -> metrics.Report:
    """Measures a generator against test images, which neither it nor the judge was trained on.

    Args:
        generator: latents `(batch, 100)` → images in [-1, 1].
        data: real images. Nearness is measured to `TRAIN_IMAGES` of its training images.
        judge: whose features compare images.
        n: generated images; twice as many test images are used, for the floor.
        seed: of the latents.
    """
    return _report(gan.sample(generator, n, seed), data, judge)


def load_vae(name: str | Path = "vae-fashion") -> tuple[VAE, dict[str, Any]]:
    """Loads a VAE of Fashion-MNIST and its card.

    Args:
        name: a weights file; the shipped one unless told otherwise.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged, or those of another model.

    Example:
        >>> load_vae()[0].sample(4, seed=0).shape
        (4, 28, 28, 1)
    """
    return weights.load_model(name, ("vae",), VAE, VAEConfig)


def train_vae(
    path: str | Path,
    data: FashionMNIST,
    config: VAEConfig | None = None,
    *,
    epochs: int = 40,
    batch_size: int = 128,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains a VAE with Adam, and writes it as float16 weights with a card of its quality.

    The learning rate falls along a half cosine from 1e-3 to zero.

    Args:
        path: of the weights, without ending.
        data: its training images are learnt, its test images are the measure.
        config: shape, weight of the KL term and seed.
        epochs: passes over the training images, at least 1.
        batch_size: images per step.
        log: called with one line after each epoch.

    Returns:
        The card.

    Raises:
        ValueError: if `epochs` is not positive.
        OSError: if the weights cannot be written.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: training takes at least 1.")
    start, vae = time.perf_counter(), VAE(config)
    images, rng = to_float(data.train_images), np.random.default_rng(vae.config.seed)
    steps = epochs * -(-len(images) // batch_size)
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)))
    for epoch in range(epochs):
        shuffled = images[rng.permutation(len(images))]  # Keras would draw it from global state
        logs = vae.fit(shuffled, batch_size=batch_size, shuffle=False, verbose=0).history
        if log is not None:
            log(f"epoch {epoch + 1}/{epochs}: -ELBO {logs['loss'][-1]:.1f} nats an image")
    weights.assign(vae, weights.model_arrays(vae, "float16"))  # measure what is written
    card = {
        "recipe": "vae",
        "config": {**asdict(vae.config), "widths": list(vae.config.widths)},
        "seed": vae.config.seed,
        "data": f"{data.label()}, {len(images)} images",
        "epochs": epochs,
        "hours": round((time.perf_counter() - start) / 3600, 3),
        "hardware": bench.environment(),
        "metrics": plain(_report(vae.sample(1000, seed=1), data, load_judge())),
    }
    weights.save(path, weights.model_arrays(vae, "float16"), card)
    return card


def _report(images: np.ndarray, data: FashionMNIST, judge: Judge) -> metrics.Report:
    return metrics.report(
        judge.features(data.test_images[: 2 * len(images)]),
        judge.features(images),
        train=judge.features(data.train_images[:TRAIN_IMAGES]),
    )


def plain(report: metrics.Report) -> dict[str, Any]:
    """Returns a report as JSON can hold it: `[value, low, high]` for each score and its floor."""
    parts = {"scores": report.scores, "floor": report.floor}
    return {"n": report.n} | {
        part: {name: [e.value, e.low, e.high] for name, e in estimates.items()}
        for part, estimates in parts.items()
    }
