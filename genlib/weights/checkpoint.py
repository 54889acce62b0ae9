"""Checkpoints of a training run: complete, checked, and never half-written.

A run's folder holds `run.json` (what is trained, written once), `checkpoint-<epoch>.safetensors`
(every variable, optimiser included, with a card that repeats what the other two files say),
`state.json` (which checkpoint is the last, and the history of losses) and `samples/`. `state.json`
is replaced only after the checkpoint that it names is whole on the disk, so a kill at any moment
leaves a run that can go on. If one of the two files is lost or damaged, `mend` writes it again from
the last whole checkpoint. One process at a time writes into a run: `writer.lock` is its lock.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import re
import shlex
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from genlib import backend, weights
from genlib.files import is_temporary, remove_leftovers, write_atomic

LOCK, WRITER = "writer.lock", "writer.json"  # the lock, and who has it


class RunError(ValueError):
    """A run's folder does not hold what was asked for."""


@dataclass
class State:
    """How far a run has come."""

    epoch: int = 0  # epochs completed
    history: dict[str, list[float]] = field(default_factory=dict)  # one mean per epoch
    seconds: float = 0.0  # spent in training steps, all sessions together
    images: int = 0  # that these steps saw, an image counted each time


# ---------------------------------------------------------------- a run's folder


@contextlib.contextmanager
def open_run(folder: Path, description: Mapping[str, Any]) -> Iterator[None]:
    """Starts a run in a folder, or makes sure that the run in it is the one described; locks it.

    A run of former times may lack the fingerprints of what it learns from. It is taken for the one
    described, and has them from then on.

    Args:
        folder: of the run; made where it does not exist.
        description: recipe, configuration, seed and data; what JSON can hold.

    Raises:
        RunError: if the folder holds another run, or files that are no run, or if somebody else
            writes there.
        OSError: if the folder cannot be written.
    """
    wanted = json.loads(json.dumps(description))
    _check_new(folder)
    with _lock(folder):
        _check_new(folder)  # once more: another may have been here since
        remove_leftovers(folder)  # nobody else writes here, so these are a killed one's
        file = folder / "run.json"
        found = read_run(folder) if file.is_file() else {}
        known = {key: found.get(key) for key in wanted}
        if found:
            known["recipe"] = weights.FORMER.get(found["recipe"], found["recipe"])
            known |= {k: v for k, v in wanted.items() if k not in found and "fingerprint" in k}
        for key, value in wanted.items() if found else ():
            if key not in found and known[key] is None:
                raise _lost(folder, f"{file} does not tell {key!r}")
            if known[key] != value:
                raise RunError(
                    f"{folder} holds a run with {key} = {known[key]!r}, not {value!r}. "
                    "Give the same settings to go on with it, or another --out to start anew."
                )
        if not wanted.keys() <= found.keys():
            _write_json(file, {**wanted, **found})
        yield


def _check_new(folder: Path) -> None:
    """Raises RunError if a folder without `run.json` holds anything."""
    if not os.path.lexists(folder):
        return
    free = folder.is_dir() and all(
        path.name in (LOCK, WRITER) or is_temporary(path) for path in folder.iterdir()
    )
    # Looked for last: another writer's first file may appear while the folder is listed.
    if free or (folder / "run.json").is_file():
        return
    if folder.is_dir() and _epochs(folder):
        raise _lost(folder, f"{folder / 'run.json'} is missing")
    raise RunError(
        f"{folder} is not empty and holds no run (no run.json). Give an empty or a new folder."
    )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps other writers out of a folder, and tells them who writes.

    Raises:
        RunError: if there is another writer.
        OSError: if the folder cannot be written, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, writer = filelock.FileLock(folder / LOCK), folder / WRITER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(
            f"{folder} is being written by {_writer(writer)}. Wait until it ends, stop it, or give "
            "another --out."
        ) from None
    now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
    try:
        _write_json(writer, {"host": socket.gethostname(), "process": os.getpid(), "since": now})
        yield
    finally:
        for path in (writer, folder / LOCK):
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def _writer(file: Path) -> str:
    try:
        who = json.loads(file.read_bytes())
        return f"process {who['process']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"  # which has only just begun


def read_run(folder: Path, recipes: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the description of the run in a folder.

    Args:
        folder: of the run.
        recipes: of which the run must be one; any unless given.

    Raises:
        FileNotFoundError: if there is none.
        RunError: if `run.json` is lost or damaged, or the run trains something else.
    """
    file = folder / "run.json"
    if not file.is_file():
        if _epochs(folder):
            raise _lost(folder, f"{file} is missing")
        raise FileNotFoundError(
            f"No run in {folder} (run.json is missing). Start one: genlib train."
        )
    try:
        run = _read_json(file)
        if not isinstance(run.get("recipe"), str):
            raise ValueError("it names no recipe")
    except ValueError as error:
        raise _lost(folder, f"{file} is damaged ({error})") from error
    if recipes is not None and run["recipe"] not in recipes:
        raise RunError(f"{folder} holds a run of {run['recipe']!r}, not {' or '.join(recipes)}.")
    return run


# ---------------------------------------------------------------- checkpoints


def save(
    folder: Path, state: State, variables: Mapping[str, Any], run: Mapping[str, Any] | None = None
) -> None:
    """Writes a checkpoint, points `state.json` at it, and drops those before the last but one.

    Args:
        folder: of the run.
        state: how far it has come.
        variables: every Keras variable that training changes, by name.
        run: the description of the run, for `mend`.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the last checkpoint stands.
    """
    arrays = {name: np.asarray(backend.to_numpy(v.value)) for name, v in variables.items()}
    name, content = _name(state.epoch), asdict(state)
    weights.save(folder / name, arrays, {**content, "run": dict(run or {})})
    _write_json(folder / "state.json", {**content, "checkpoint": name})
    before = [epoch for epoch in _epochs(folder) if epoch < state.epoch]
    for epoch in before[:-1]:
        for file in weights.paths(folder / _name(epoch)):
            file.unlink(missing_ok=True)


def restore(folder: Path, variables: Mapping[str, Any]) -> State:
    """Loads the last checkpoint into variables; a run without any starts at epoch 0.

    Raises:
        RunError: if `state.json` or the checkpoint that it names is lost or damaged, or the
            variables are others.
    """
    file = folder / "state.json"
    if not file.is_file():
        if _epochs(folder):
            raise _lost(folder, f"{file} is missing")
        return State()
    try:
        content = _read_json(file)
        state = _state(content)
        if content.get("checkpoint") != _name(state.epoch):
            raise ValueError(f"its checkpoint is {content.get('checkpoint')!r}")
    except ValueError as error:
        raise _lost(folder, f"{file} is damaged ({error})") from error
    try:
        arrays, _ = weights.load(folder / _name(state.epoch))
    except (weights.WeightsError, FileNotFoundError) as error:
        raise _lost(folder, f"The last checkpoint is lost: {str(error).rstrip('.')}") from error
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if shapes != {name: tuple(v.value.shape) for name, v in variables.items()}:
        raise RunError(
            f"{folder} holds the variables of another model: {sorted(arrays)[:3]}…, expected "
            f"{sorted(variables)[:3]}…. Give the settings that the run was started with."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(backend.to_numpy(variable.value).dtype))
    return state


def restore_trained(folder: Path, variables: Mapping[str, Any]) -> State:
    """Loads the last checkpoint as `restore` does, of a run that has come so far.

    Raises:
        FileNotFoundError: if the run has no checkpoint yet.
        RunError: as `restore`.
    """
    state = restore(folder, variables)
    if state.epoch == 0:
        raise FileNotFoundError(
            f"The run in {folder} has no checkpoint yet. Train it for one epoch first."
        )
    return state


def mend(folder: Path) -> State:
    """Writes `state.json`, and `run.json` if it is lost, from the last whole checkpoint.

    Returns:
        The state from which the run goes on.

    Raises:
        RunError: if no checkpoint is whole, or somebody writes into the run, or neither `run.json`
            nor the checkpoint tells what is trained.
        OSError: if the folder cannot be written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"No run in {folder}. Start one: genlib train.")
    with _lock(folder):
        card = _last_whole(folder)
        if card is None:
            raise RunError(f"{folder} holds no whole checkpoint. Start anew in another folder.")
        try:
            found = read_run(folder)
        except (RunError, FileNotFoundError):
            found = {}
        whole = card["run"] if isinstance(card.get("run"), dict) else {}
        if not whole and not found:
            raise RunError(
                f"Neither run.json in {folder} nor {_name(card['epoch'])} tells what is trained. "
                "Put run.json back, or start anew in another folder."
            )
        if not whole.keys() <= found.keys():
            _write_json(folder / "run.json", {**whole, **found})
        try:
            state = _state(card)
        except ValueError:  # a checkpoint of former times knows its epoch alone
            state = State(card["epoch"])
        content = {**asdict(state), "checkpoint": _name(state.epoch)}
        _write_json(folder / "state.json", content)
    return state


def _name(epoch: int) -> str:
    return f"checkpoint-{epoch:06d}"


def _epochs(folder: Path) -> list[int]:
    """Returns the epochs of which there is a checkpoint, or a part of one, in order.

    Only exact names count: a copy with another name is the user's.
    """
    found = set()
    for path in folder.glob("checkpoint-*"):
        number = re.fullmatch(r"checkpoint-(\d+)", path.stem)
        exact = number and path.stem == _name(int(number[1])) and path.is_file()
        if number and exact and path.suffix in (".safetensors", ".json"):
            found.add(int(number[1]))
    return sorted(found)


def _last_whole(folder: Path) -> dict[str, Any] | None:
    """Returns the card of the last checkpoint that is whole, if any is."""
    for epoch in reversed(_epochs(folder)):
        with contextlib.suppress(weights.WeightsError, OSError):
            _, card = weights.load(folder / _name(epoch))
            if card.get("epoch") == epoch:
                return card
    return None


def _lost(folder: Path, what: str) -> RunError:
    """Says what is lost, and the command that goes on from the last whole checkpoint."""
    card = _last_whole(folder)
    if card is None:
        return RunError(f"{what}, and no checkpoint is whole: start anew in another folder.")
    name, command = _name(card["epoch"]), f"genlib mend {shlex.quote(str(folder))}"
    return RunError(f"{what}; go on from the last whole checkpoint, {name}, with: {command}")


def _state(content: Mapping[str, Any]) -> State:
    """Reads a state; runs of former times did not count images.

    Raises:
        ValueError: if a part is missing, or of another kind.
    """
    epoch, history, seconds = (content.get(key) for key in ("epoch", "history", "seconds"))
    images = content.get("images", 0)
    if type(epoch) is not int or epoch < 1:
        raise ValueError(f"its epoch is {epoch!r}")
    lists = list(history.values()) if isinstance(history, dict) else [None]
    if not all(isinstance(one, list) and all(map(_is_number, one)) for one in lists):
        raise ValueError("it has no history of losses")
    if not _is_number(seconds) or not _is_number(images):
        raise ValueError(f"its seconds are {seconds!r}, its images {images!r}")
    return State(epoch, dict(history or {}), seconds, images)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: if there is none in the file.
    """
    try:
        content = json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_atomic(file, json.dumps(content, indent=2).encode() + b"\n")
