"""One loop that trains any task, stops cleanly, and goes on where it stopped.

A run is a function of its settings and its seed alone: the order of the images and every random
number follow from (seed, epoch, step), never from what happened before. So a run that was killed
and resumed ends in the same weights as one that was not.

Training waits for nothing that it does not need at once. What an epoch needs, images, captions and
their embeddings, is prepared while the epoch before it runs, in a thread of its own; and a loss is
looked at only now and then, because each look waits for the device.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genlib import backend, files, plot, ranges
from genlib.weights import checkpoint
from genlib.weights.checkpoint import State

REPORT_EVERY = 50  # steps between two looks at the losses; each look waits for the device


class TrainingDiverged(ArithmeticError):  # noqa: N818  the name says what happened
    """A loss or a weight became NaN or infinite."""


class Task(Protocol):
    """What the loop needs to know of a model in training.

    No class inherits from it: whatever has these attributes and methods is a task.
    """

    images_per_step: int  # for the rate that is shown
    steps_per_epoch: int  # how many losses `epoch` yields

    @classmethod
    def of(cls, card: Mapping[str, Any], source: str | None = None) -> Task:
        """Makes the task that a run's description or a card tells of.

        Args:
            card: what `card` returned.
            source: of Fashion-MNIST, where the task needs it (see `genlib.data.fashion_mnist`).
        """

    def card(self) -> dict[str, Any]:
        """Returns recipe, settings, seed and data: all that decides the result."""

    def variables(self) -> dict[str, Any]:
        """Returns every variable that training changes, the optimiser's too, by name."""

    def prepare(self, epoch: int) -> Any:
        """Returns what the steps of an epoch (counted from 0) need; may run ahead, in a thread."""

    def epoch(self, epoch: int, prepared: Any) -> Iterator[dict[str, Any]]:
        """Takes the steps of one epoch, and yields the losses of each by name, as scalar tensors.

        The task does not read them, which would wait for the device: the loop does, now and then.
        """

    def sample(self) -> np.ndarray:
        """Returns images to look at, uint8 `(n, height, width, channels)`: always the same ones."""

    def trained(self) -> AbstractContextManager[keras.Model]:
        """Lends the model that is exported: where weights are averaged, with the average."""


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
            Several processes (`genlib.train.processes`) draw no sheets.
        progress: show a bar with losses and images per second.
        on_epoch: called with the number of completed epochs and the state, after each epoch.

    Returns:
        The state at the end: epochs completed, and the mean losses of each epoch.

    Raises:
        ValueError: if `epochs` is out of its range in `genlib.ranges`.
        RunError: if the folder holds another run, or a damaged one, or is being written.
        TrainingDiverged: at the first NaN or infinity; the last good checkpoint is kept.
        OSError: if the disk is full or the folder cannot be written; the last checkpoint stands.
    """
    ranges.check("epochs", epochs)
    folder, card, state = None if out is None else Path(out), task.card(), State()
    process, processes = backend.processes()  # of several, the first one alone writes
    writes = folder is not None and process == 0
    writer = checkpoint.open_run(folder, card) if folder and writes else nullcontext()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[report]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress or process > 0)
    with writer, bar, ThreadPoolExecutor(1) as ahead:
        if folder is not None:
            if writes:
                _check_places(folder)
            state = checkpoint.restore(folder, task.variables())
        bar_id = bar.add_task("", total=epochs * task.steps_per_epoch, report="")

        def show(step: int, report: str) -> None:
            done = state.epoch * task.steps_per_epoch + step
            epoch = f"epoch {state.epoch + 1}/{epochs}"
            bar.update(bar_id, completed=done, description=epoch, report=report)

        coming = ahead.submit(task.prepare, state.epoch) if state.epoch < epochs else None
        while coming is not None:
            prepared = coming.result()
            last = state.epoch + 1 == epochs
            coming = None if last else ahead.submit(task.prepare, state.epoch + 1)
            start = time.perf_counter()
            losses = _one_epoch(task, state.epoch, prepared, show)
            state.seconds += time.perf_counter() - start
            state.images += task.steps_per_epoch * task.images_per_step
            for name, value in losses.items():
                state.history.setdefault(name, []).append(value)
            state.epoch += 1
            if folder is not None:
                if not backend.is_finite([v.value for v in task.variables().values()]):
                    raise _diverged(task, state.epoch, "a weight")
                if processes == 1:  # a sheet is drawn with weights that one process holds alone
                    sheets = folder / "samples"
                    sheets.mkdir(exist_ok=True)
                    plot.save_png(task.sample(), sheets / f"epoch-{state.epoch:04d}.png")
                if writes:
                    checkpoint.save(folder, state, task.variables(), card)
            if on_epoch is not None:
                on_epoch(state.epoch, state)
    return state


def _check_places(folder: Path) -> None:
    """Makes sure, before an epoch's work, that its state and its samples can be written."""
    files.check_file(folder / "state.json")
    sheets = folder / "samples"
    if os.path.lexists(sheets) and not sheets.is_dir():
        raise FileExistsError(f"{sheets} is no folder. Move it away, and give the command again.")


def _one_epoch(
    task: Task, epoch: int, prepared: Any, report: Callable[[int, str], Any]
) -> dict[str, float]:
    """Takes one epoch's steps; returns the mean of each loss, by name."""
    sums: dict[str, float] = {}
    waiting: list[Mapping[str, Any]] = []
    start = time.perf_counter()
    for step, losses in enumerate(task.epoch(epoch, prepared), start=1):
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
        f"Train with a lower learning rate (settings: {task.card().get('config')})."
    )
