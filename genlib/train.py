"""Recipes to weights: one loop that trains any task, stops cleanly, and goes on where it stopped.

A run is a function of its settings and its seed alone: the order of the images and every latent
follow from (seed, epoch, step), never from what happened before. So a run that was killed and
resumed ends in the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genlib import backend, checkpoint, plot
from genlib.checkpoint import State
from genlib.data.images import to_float
from genlib.models.gan import ARTICLE, GAN, GANConfig

REPORT_EVERY = 50  # steps between two looks at the losses; each look waits for the device


class TrainingDiverged(ArithmeticError):  # noqa: N818  the name says what happened
    """A loss or a weight became NaN or infinite."""


class Task(Protocol):
    """What the loop needs to know of a model in training."""

    images_per_step: int
    steps_per_epoch: int

    def describe(self) -> dict[str, Any]:
        """Returns recipe, settings and data: all that decides the result, besides the seed."""

    def variables(self) -> dict[str, Any]:
        """Returns every variable that training changes, by name."""

    def epoch(self, epoch: int) -> Iterator[dict[str, Any]]:
        """Takes the steps of one epoch (counted from 0), yielding the losses of each."""

    def sample(self) -> np.ndarray:
        """Returns images to look at, uint8 `(n, height, width, channels)`: always the same ones."""


class GANTask:
    """Trains a GAN on images.

    Args:
        images: uint8 `(n, 28, 28, 1)`, at least one batch of them.
        config: networks, step and optimiser.
        seed: of weights, order and latents.
        data_label: what the images are, for the run's record.

    Raises:
        ValueError: if there are fewer images than one batch.
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
        if seed < 0:
            raise ValueError(f"seed = {seed}; give 0 or a positive integer.")
        self.images, self.config, self.seed, self.data_label = images, config, seed, data_label
        self.gan = GAN(config, seed)
        self.variables = self.gan.variables
        self.images_per_step = config.batch_size
        self.steps_per_epoch = len(images) // config.batch_size

    def describe(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data."""
        data = f"{self.data_label}, {len(self.images)} images"
        return {"recipe": "gan", "config": asdict(self.config), "seed": self.seed, "data": data}

    def epoch(self, epoch: int) -> Iterator[dict[str, Any]]:
        """Takes one step for each batch of a fresh permutation; the incomplete batch is left."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        for step in range(self.steps_per_epoch):
            chosen = order[step * self.images_per_step :][: self.images_per_step]
            z = GAN.latents(self.images_per_step, seed=(self.seed, epoch, step))
            yield self.gan.train_step(z, to_float(self.images[chosen]))

    def sample(self) -> np.ndarray:
        """Returns 64 images from fixed latents."""
        return self.gan.sample(64, seed=self.seed)


def run(
    task: Task,
    epochs: int,
    out: str | Path | None = None,
    *,
    progress: bool = True,
    on_epoch: Callable[[int, State], None] | None = None,
) -> State:
    """Trains a task until it has seen `epochs` epochs in all.

    Args:
        task: what to train.
        epochs: in all, those of an interrupted run counted in.
        out: the run's folder for checkpoints and sample sheets; `None` keeps nothing on disk.
        progress: show a bar with losses and images per second.
        on_epoch: called with the number of completed epochs and the state, after each epoch.

    Returns:
        The state at the end: epochs completed, and the mean losses of each epoch.

    Raises:
        ValueError: if `epochs` is smaller than 1.
        RunError: if the folder holds another run.
        TrainingDiverged: at the first NaN or infinity; the last good checkpoint is kept.
        OSError: if the disk is full or the folder cannot be written; the last checkpoint stands.
    """
    if epochs < 1:
        raise ValueError(f"epochs = {epochs}; give at least 1.")
    folder = None if out is None else Path(out)
    state = State()
    if folder is not None:
        checkpoint.open_run(folder, task.describe())
        state = checkpoint.restore(folder, task.variables())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[report]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        bar_id = bar.add_task("", total=epochs * task.steps_per_epoch, report="")

        def show(step: int, report: str) -> None:
            done = state.epoch * task.steps_per_epoch + step
            epoch = f"epoch {state.epoch + 1}/{epochs}"
            bar.update(bar_id, completed=done, description=epoch, report=report)

        while state.epoch < epochs:
            start = time.perf_counter()
            losses = _one_epoch(task, state.epoch, show)
            state.seconds += time.perf_counter() - start
            for name, value in losses.items():
                state.history.setdefault(name, []).append(value)
            state.epoch += 1
            if folder is not None:
                if not backend.is_finite([v.value for v in task.variables().values()]):
                    raise _diverged(task, state.epoch, "a weight")
                sheets = folder / "samples"
                sheets.mkdir(exist_ok=True)
                plot.save_png(task.sample(), sheets / f"epoch-{state.epoch:04d}.png")
                checkpoint.save(folder, state, task.variables())
            if on_epoch is not None:
                on_epoch(state.epoch, state)
    return state


def load_gan(folder: str | Path) -> GAN:
    """Loads the GAN of a run as its last checkpoint has it.

    Raises:
        FileNotFoundError: if the folder holds no run, or the run has no checkpoint yet.
        RunError: if the run trains something else, or is damaged.
        WeightsError: if the checkpoint is damaged.
    """
    folder = Path(folder)
    description = checkpoint.read_run(folder, ("gan",))
    gan = GAN(GANConfig(**description["config"]), description["seed"])
    checkpoint.restore_trained(folder, gan.variables())
    return gan


def _one_epoch(task: Task, epoch: int, report: Callable[[int, str], Any]) -> dict[str, float]:
    """Takes one epoch's steps; returns each loss's mean."""
    sums: dict[str, float] = {}
    waiting: list[Mapping[str, Any]] = []
    start = time.perf_counter()
    for step, losses in enumerate(task.epoch(epoch), start=1):
        waiting.append(losses)
        if step % REPORT_EVERY and step < task.steps_per_epoch:
            continue
        for values in backend.to_numpy(waiting):
            for name, value in values.items():
                if not math.isfinite(value):
                    raise _diverged(task, epoch + 1, f"the loss of the {name}")
                sums[name] = sums.get(name, 0.0) + float(value)
        waiting.clear()
        rate = step * task.images_per_step / (time.perf_counter() - start)
        text = ", ".join(f"{name} {value / step:.3f}" for name, value in sums.items())
        report(step, f"{text}, {rate:,.0f} images/s")
    return {name: value / task.steps_per_epoch for name, value in sums.items()}


def _diverged(task: Task, epoch: int, what: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"In epoch {epoch}, {what} became NaN or infinite. The last good checkpoint is kept. "
        f"Train with a lower learning rate (settings: {task.describe().get('config')})."
    )
