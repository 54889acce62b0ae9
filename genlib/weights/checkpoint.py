"""Checkpoints of a training run: complete, checked, and never half-written.

A run's folder holds `run.json` (what is trained, written once), `checkpoint-<epoch>.safetensors`
(every variable, optimiser included, with its card), `state.json` (which checkpoint is the last,
and the history of losses) and `samples/`. `state.json` is replaced only after the checkpoint that
it names is whole on the disk, so a kill at any moment leaves a run that can go on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genlib import backend, weights
from genlib.files import is_free, remove_leftovers, write_atomic


class RunError(ValueError):
    """A run's folder does not hold what was asked for."""


@dataclass
class State:
    """How far a run has come."""

    epoch: int = 0  # epochs completed
    history: dict[str, list[float]] = field(default_factory=dict)  # one mean per epoch
    seconds: float = 0.0  # spent in training steps, all sessions together
    images: int = 0  # that these steps saw, an image counted each time


def open_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Starts a run in a folder, or makes sure that the run in it is the one described.

    Args:
        folder: of the run; made where it does not exist.
        description: recipe, configuration, seed and data; what JSON can hold.

    Raises:
        RunError: if the folder holds another run, or files that are no run.
        OSError: if the folder cannot be written.
    """
    file = folder / "run.json"
    if file.is_file():
        remove_leftovers(folder)  # a run has one writer, so these are a killed one's
        found = read_run(folder)
        for key, wanted in json.loads(json.dumps(description)).items():
            if found.get(key) != wanted:
                raise RunError(
                    f"{folder} holds a run with {key} = {found.get(key)!r}, not {wanted!r}. "
                    "Give the same settings to go on with it, or another --out to start anew."
                )
        return
    if not is_free(folder):
        raise RunError(
            f"{folder} is not empty and holds no run (no run.json). Give an empty or a new folder."
        )
    if folder.exists():
        remove_leftovers(folder)
    write_atomic(file, json.dumps(description, indent=2).encode() + b"\n")


def read_run(folder: Path, recipes: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the description of the run in a folder.

    Args:
        folder: of the run.
        recipes: of which the run must be one; any unless given.

    Raises:
        FileNotFoundError: if there is none.
        RunError: if `run.json` cannot be read, or the run trains something else.
    """
    run = _read_json(folder / "run.json")
    if recipes is not None and run.get("recipe") not in recipes:
        raise RunError(
            f"{folder} holds a run of {run.get('recipe')!r}, not {' or '.join(recipes)}."
        )
    return run


def save(folder: Path, state: State, variables: Mapping[str, Any]) -> None:
    """Writes a checkpoint, then points `state.json` at it, then drops the one before the last.

    Args:
        folder: of the run.
        state: how far it has come.
        variables: every Keras variable that training changes, by name.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the last checkpoint stands.
    """
    arrays = {name: np.asarray(backend.to_numpy(v.value)) for name, v in variables.items()}
    name = f"checkpoint-{state.epoch:06d}"
    weights.save(folder / name, arrays, {"epoch": state.epoch})
    content = {**asdict(state), "checkpoint": name}
    write_atomic(folder / "state.json", json.dumps(content, indent=2).encode() + b"\n")
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-2]:
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)


def restore(folder: Path, variables: Mapping[str, Any]) -> State:
    """Loads the last checkpoint into variables; a run without one starts at epoch 0.

    Raises:
        RunError: if `state.json` is damaged, or the variables are others.
        WeightsError: if the checkpoint is damaged.
        FileNotFoundError: if the checkpoint that `state.json` names is missing.
    """
    if not (folder / "state.json").is_file():
        return State()
    state = _read_json(folder / "state.json")
    arrays, _ = weights.load(folder / str(state.get("checkpoint")))
    if arrays.keys() != variables.keys():
        raise RunError(
            f"{folder} holds the variables of another model: {sorted(arrays)[:3]}…, expected "
            f"{sorted(variables)[:3]}…. Give the settings that the run was started with."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(backend.to_numpy(variable.value).dtype))
    return State(state["epoch"], state["history"], state["seconds"], state.get("images", 0))


def restore_trained(folder: Path, variables: Mapping[str, Any]) -> State:
    """Loads the last checkpoint as `restore` does, of a run that has come so far.

    Raises:
        FileNotFoundError: if the run has no checkpoint yet.
        RunError, WeightsError: as `restore`.
    """
    state = restore(folder, variables)
    if state.epoch == 0:
        raise FileNotFoundError(
            f"The run in {folder} has no checkpoint yet. Train it for one epoch first."
        )
    return state


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"No run in {file.parent} ({file.name} is missing). Start one: genlib train."
        )
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(
            f"{file} is damaged ({error}). Start the run anew in another folder."
        ) from error
    if not isinstance(content, dict):
        raise RunError(f"{file} is damaged. Start the run anew in another folder.")
    return content
