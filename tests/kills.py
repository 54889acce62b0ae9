"""Kills genlib at random moments (kill -9), starts it again, and prints what came out, as JSON.

    python tests/kills.py train 20 0 FOLDER      # what, how often, seed of the moments, where

One process imports everything once, and each command is a fork of it that has computed nothing
yet: what is killed is the command at work, not Python while it imports. The moments are drawn
evenly from the time that an unbroken command takes; some fall on the writing of files, which is
short, so every second kill waits for the first file that has a temporary name after its moment.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import keras  # noqa: F401  imported, but nothing is computed before the forks
import numpy as np
from PIL import Image

from genlib import cli, weights
from genlib.ladder import quality
from genlib.train import gan, registry
from genlib.weights import checkpoint

N = 256  # images of a tiny run


def main(what, times, seed, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(int(seed))
    os.chdir(folder)
    tiny()
    if what == "export":  # of what: a run
        assert finished(start("train", "run")) == 0
    begun = time.monotonic()
    assert finished(start(what, "unbroken")) == 0
    length = time.monotonic() - begun
    right = result(what, "unbroken")
    outcomes = []
    for turn in range(int(times)):
        name, status = f"killed-{turn}", 0
        while status >= 0:  # it may end before its moment: then another one is drawn
            remove(name)
            process = start(what, name)
            status = kill(process, rng.uniform(0, length), writing=turn % 2 == 1)
        left = sorted(str(path) for path in Path().rglob("*") if name in str(path))
        again = finished(start(what, name))
        same = again == 0 and result(what, name) == right
        tidy = not list(Path().rglob(".*.genlib"))
        outcomes.append(
            {"status": status, "left": left, "again": again, "same": same, "tidy": tidy}
        )
        remove(name)
    print(json.dumps({"seconds": round(length, 2), "outcomes": outcomes}))


def tiny():
    """Makes training and measuring short; how files are written is untouched."""
    real = registry.fashion_mnist

    def few(source=None):
        data = real("subset")
        return type(data)(
            data.train_images[:N], data.train_labels[:N], data.test_images, data.test_labels,
            data.source, data.is_subset,
        )  # fmt: skip

    for module in (sys.modules["genlib.data"], gan, registry):
        module.fashion_mnist = few
    quality.of = lambda recipe, source=None: lambda model: {"weights": len(model.weights)}


COMMANDS = {
    "train": ["train", "gan", "--epochs", "5", "--out", "{}"],
    "export": ["export", "run", "-o", "{}"],
    "generate": [
        "generate", "a sunset", "-n", "48", "--describe", "off", "--option", "steps=1", "-o", "{}/",
    ],
}  # fmt: skip


def start(what, name):
    """Starts a command in a process of its own; returns its number."""
    return fork([word.format(name) for word in COMMANDS[what]], f"{name}.log")


def fork(words, log):
    """Starts genlib in a fork of this process, which has imported everything; returns its number.

    What it prints is lost, what it complains of is added to a file.
    """
    if child := os.fork():
        return child
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.argv = ["genlib", *words]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code or 0)
    except BaseException:
        os._exit(70)


def finished(process):
    """Waits for a process; returns its status, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill(process, after, writing):
    """Kills a process after some seconds, or then while it writes; returns its status."""
    end = time.monotonic() + after
    while time.monotonic() < end or (writing and not is_writing()):
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)
    return finished(process)


def is_writing():
    """Returns whether a file or folder has a temporary name now."""
    with contextlib.suppress(OSError):  # a folder that has got its own name meanwhile
        return any(Path().rglob(".*.genlib"))
    return False


def result(what, name):
    """Returns what a command made, whatever the time and the process; raises if it is not whole."""
    if what == "generate":
        folder = Path(name)
        lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
        names = [json.loads(line)["file_name"] for line in lines]
        assert {*names, "metadata.jsonl"} == {path.name for path in folder.iterdir()}
        return [digest(np.asarray(Image.open(folder / name))) for name in names]
    if what == "export":
        arrays, card = weights.load(f"./{name}")
        assert card["epochs"] == 5
    else:
        state = json.loads((Path(name) / "state.json").read_text())
        assert state["epoch"] == 5
        assert not list(Path(name).glob("writer.*"))
        assert checkpoint.read_run(Path(name))["recipe"] == "gan"
        arrays, _ = weights.load(Path(name) / state["checkpoint"])
    return {key: digest(array) for key, array in arrays.items()}


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def remove(name):
    for path in Path().glob(f"{name}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
