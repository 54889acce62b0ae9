"""The recipes by name (`find`, `make`), and what makes weights of a run (`export`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from genlib import backend, bench, ranges, weights
from genlib.data import fashion_mnist
from genlib.train.distill import ImageStudentTask, ShortcutTask, SmallShortcutTask
from genlib.train.gan import GANTask
from genlib.train.heal import HealTask
from genlib.train.judges import JudgeTask, PerceptualTask, RewardTask, ScenesJudgeTask
from genlib.train.loop import Task
from genlib.train.tasks import (
    CoarseToFineTask,
    FashionTask,
    FitTask,
    FlowTask,
    ImageGPTTask,
    TokenizerTask,
)
from genlib.train.text_student import TextStudentTask
from genlib.train.vae import VAETask
from genlib.weights import checkpoint

# In this order they can be trained: each needs the weights of some before it.
TASKS: Mapping[str, type[Task]] = {
    "judge": JudgeTask,
    "gan": GANTask,
    "gan-small": HealTask,
    "vae": VAETask,
    "scenes-judge": ScenesJudgeTask,
    "scenes-perceptual": PerceptualTask,
    "scenes-reward": RewardTask,
    "tokenizer": TokenizerTask,
    "text-student": TextStudentTask,
    "image-gpt": ImageGPTTask,
    "coarse-to-fine": CoarseToFineTask,
    "flow": FlowTask,
    "flow-shortcut": ShortcutTask,
    "flow-small": SmallShortcutTask,
    "image-gpt-student": ImageStudentTask,
}


def find(name: str) -> type[Task]:
    """Returns the task of a recipe.

    Raises:
        ValueError: if there is no such recipe.
    """
    name = weights.FORMER.get(name, name)
    if name not in TASKS:
        raise ValueError(f"No recipe {name!r}. Choose one of {tuple(TASKS)}.")
    return TASKS[name]


def make(
    name: str, *, epochs: int | None = None, seed: int | None = None, source: str | None = None
) -> tuple[Task, int]:
    """Makes the task of a recipe, once, with some settings in place of its own.

    Args:
        name: of the recipe.
        epochs: of the run; the recipe's own unless given. A rate that falls is spread over them.
        seed: the recipe's own unless given.
        source: of Fashion-MNIST, for tasks that need it.

    Returns:
        The task, and its epochs.

    Raises:
        ValueError: if there is no such recipe, or a number is out of range.
    """
    kind = find(name)
    if epochs is not None:
        ranges.check("epochs", epochs)  # before data and weights are loaded
    if issubclass(kind, HealTask):
        if backend.processes()[1] > 1:
            raise ValueError(f"{name} is trained by one process alone: leave --processes out.")
        data = fashion_mnist(source)
        task = kind(data.train_images, seed=0 if seed is None else seed, data_label=data.label())
        return task, kind.epochs if epochs is None else epochs
    if not issubclass(kind, FitTask):
        raise ValueError(f"{name} is made by its own class: {kind.__name__}(images, …).")
    recipe = kind.recipe if epochs is None else replace(kind.recipe, epochs=epochs)
    if issubclass(kind, FashionTask):
        return kind(fashion_mnist(source), recipe, seed=seed), recipe.epochs
    return kind(recipe, seed=seed), recipe.epochs


def export(
    run: str | Path,
    path: str | Path,
    measure: Callable[[keras.Model], Mapping[str, Any]] | None = None,
    source: str | None = None,
    *,
    overwrite: bool = True,
) -> dict[str, Any]:
    """Writes a run's model, averaged where its task averages, as float16 weights with their card.

    Args:
        run: the folder of a run.
        path: of the weights, without ending.
        measure: measures the model that is written, and returns what the card shall say of it.
        source: of Fashion-MNIST, for tasks that need it; what is measured on other data than the
            run's is measured only where this names them.
        overwrite: as in `weights.save`.

    Returns:
        The card.

    Raises:
        FileNotFoundError: if the folder holds no run, or no checkpoint yet.
        RunError: if the run trains something else, other data, or is damaged.
        OSError: if the weights cannot be written.
    """
    folder = Path(run)
    card = checkpoint.read_run(folder, (*TASKS, *weights.FORMER))
    with weights.reading(folder / "run.json"):
        task = find(card["recipe"]).of(card, source)
    for key, value in task.card().items() if measure and source is None else ():
        if "fingerprint" in key and card.get(key, value) != value:
            raise checkpoint.RunError(
                f"{folder} holds a run with {key} = {card[key]!r}, and here it is {value!r}: other "
                "data would measure something else. Give the --source that it was trained on."
            )
    state = checkpoint.restore_trained(folder, task.variables())
    with task.trained() as model:
        weights.assign(model, weights.model_arrays(model, "float16"))  # measure what is written
        all_epochs = state.epoch * task.steps_per_epoch * task.images_per_step
        card |= {
            "epochs": state.epoch,
            "images": state.images or all_epochs,  # runs of former times did not count them
            "hours": round(state.seconds / 3600, 3),
            "hardware": bench.environment(),
            "metrics": dict(measure(model)) if measure else {},
        }
        weights.save(path, weights.model_arrays(model, "float16"), card, overwrite=overwrite)
    return card
