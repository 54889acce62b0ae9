"""Generators that need no training: from a run, or from the weights that come with genlib."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from genlib import bench, checkpoint, metrics, train, weights
from genlib.data import FashionMNIST
from genlib.models import gan
from genlib.models.judge import Judge, load_judge

TRAIN_IMAGES = 12_000  # among which the nearest neighbour is sought: seconds, not minutes


def load_generator(name: str | Path) -> tuple[keras.Model, dict[str, Any]]:
    """Loads a generator and the card that tells how it was made.

    Args:
        name: a run's folder, a weights file, or the bare name of shipped weights, such as
            `"gan-conv-fashion"` and `"gan-mlp-fashion"`.

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
    if card.get("recipe") != "gan":
        raise weights.WeightsError(
            f"{name} holds weights of {card.get('recipe')!r}, not of a GAN's generator."
        )
    generator = gan.build_generator(card["config"]["network"])
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
        "metrics": _plain(evaluate(model.generator, data, load_judge())),
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
    return metrics.report(
        judge.features(data.test_images[: 2 * n]),
        judge.features(gan.sample(generator, n, seed)),
        train=judge.features(data.train_images[:TRAIN_IMAGES]),
    )


def _plain(report: metrics.Report) -> dict[str, Any]:
    """Returns a report as JSON can hold it: `[value, low, high]` for each score and its floor."""
    parts = {"scores": report.scores, "floor": report.floor}
    return {"n": report.n} | {
        part: {name: [e.value, e.low, e.high] for name, e in estimates.items()}
        for part, estimates in parts.items()
    }
