"""Several processes train as one does, and end together when one of them dies."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from test_cli import genlib

from genlib import backend, weights
from genlib.train import processes

needs_jax = pytest.mark.skipif(backend.name() != "jax", reason="keras.distribution, on JAX")
STEPS = 1e-5  # the largest difference of a weight after a few steps: sums in another order
# Of the weights' length, after hundreds: rounding decides on which side of a kink a unit falls.
EPOCHS = 0.01
JAX = {"KERAS_BACKEND": "jax"}


def train(folder, epochs, n, **environment):
    command = ("train", "vae", "--source", "subset", "--epochs", str(epochs), "--out", "run")
    return genlib(*command, "--processes", str(n), cwd=folder, **JAX, **environment)


def last(folder):
    state = json.loads((folder / "run" / "state.json").read_text())
    return state, weights.load(folder / "run" / state["checkpoint"])[0]


def distance(one, other):
    """How far weights are from others, as a share of their own length."""
    assert one.keys() == other.keys()
    names = [name for name in one if name.startswith("model")]
    flat = [np.concatenate([arrays[name].ravel() for name in names]) for arrays in (one, other)]
    return np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])


FLOW = """
import sys
from genlib.train import processes
if len(sys.argv) > 2:
    processes.join(2)
import numpy as np
from genlib import backend
from genlib.models.flow import FlowConfig
from genlib.models.transformer import TransformerConfig
from genlib.train import tasks
tasks.EPOCH = 128
blocks = TransformerConfig(1, 32, heads=2, kv_heads=2, hidden=64, modulated=True)
task = tasks.FlowTask(tasks.Recipe(epochs=2, batch_size=16, warmup=2), FlowConfig(blocks))
rng = np.random.default_rng(0)
shape = (128, 16, 16, task.model.config.channels)
drawn = {"text": rng.standard_normal((128, 128), np.float32)}
drawn["latents"] = rng.standard_normal(shape, np.float32)
losses = [float(backend.to_numpy(step["loss"])) for step in task.epoch(0, drawn)]
if backend.processes()[0] == 0:
    arrays = {name: np.asarray(v.value) for name, v in task.variables().items()}
    np.savez(sys.argv[1], losses=losses, **{k.replace("/", "-"): v for k, v in arrays.items()})
"""


@needs_jax
def test_two_processes_that_were_started_by_hand_take_the_steps_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    alone = subprocess.Popen([sys.executable, "-c", FLOW, "one.npz"], cwd=tmp_path)
    assert alone.wait(timeout=1800) == 0
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FLOW, "two.npz", "join"],
            cwd=tmp_path,
            env={**os.environ, processes.ADDRESS: address, processes.WHICH: str(i)},
            stdin=subprocess.DEVNULL,  # nobody who holds it: they are not to end with anyone
        )
        for i in range(2)
    ]
    assert [process.wait(timeout=1800) for process in both] == [0, 0]
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert len(one["losses"]) == 8
    assert np.allclose(one["losses"], two["losses"], rtol=1e-5)
    names = [name for name in one if name.startswith("model")]
    assert len(names) > 10
    assert max(np.abs(one[name] - two[name]).max() for name in names) < STEPS


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = train(folder, 2, 1)
    assert done.returncode == 0, done.stderr
    return last(folder)


@needs_jax
def test_two_processes_end_in_the_weights_of_one(alone, tmp_path):
    done = train(tmp_path, 2, 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 epochs done") == 1  # one of them tells it
    state, arrays = last(tmp_path)
    assert distance(arrays, alone[1]) < EPOCHS
    assert state["history"]["loss"] == pytest.approx(alone[0]["history"]["loss"], rel=1e-3)
    assert not list((tmp_path / "run").glob("writer.*"))


@needs_jax
@pytest.mark.parametrize("victim", ["a process", "the command"])
def test_a_kill_ends_all_soon_and_the_same_command_goes_on(victim, alone, tmp_path):
    code = "import sys; sys.argv[0] = 'genlib'; from genlib import cli; cli.main()"
    command = ["train", "vae", "--source", "subset", "--epochs", "2", "--out", "run"]
    for _ in range(5):  # a busy machine may kill too late to show anything
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        begun = subprocess.Popen(
            [sys.executable, "-c", code, *command, "--processes", "2"],
            cwd=tmp_path, env={**os.environ, **JAX}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not (tmp_path / "run" / "state.json").exists():
            assert begun.poll() is None, begun.stderr.read()
            time.sleep(0.01)
        children = psutil.Process(begun.pid).children()
        start = time.monotonic()
        if victim == "a process":
            for child in children[1:]:
                child.kill()
            _, told = begun.communicate(timeout=60)
        else:
            begun.send_signal(signal.SIGKILL)
            begun.wait()
        psutil.wait_procs(children, timeout=60)
        assert not any(child.is_running() for child in children)
        assert time.monotonic() - start < 30
        if last(tmp_path)[0]["epoch"] < 2:
            break
    assert len(children) == 2
    assert last(tmp_path)[0]["epoch"] < 2, "five times it was killed too late to show anything"
    if victim == "a process":
        assert begun.returncode == 1
        assert "of 2 was killed by signal 9" in told or "of 2 ended with status" in told
        assert "same command goes on" in " ".join(told.split())
        # What is left is the same after either, so this is tried after one.
        again = train(tmp_path, 2, 2)
        assert again.returncode == 0, again.stderr
        assert distance(last(tmp_path)[1], alone[1]) < EPOCHS


@needs_jax
def test_a_batch_that_cannot_be_shared_in_equal_parts_is_refused(tmp_path):
    done = train(tmp_path, 1, 3)
    assert done.returncode == 1
    assert "cannot be shared by 3 processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(backend.name() == "jax", reason="there it works")
def test_another_backend_is_told_what_to_set(tmp_path):
    done = genlib("train", "vae", "--out", "run", "--processes", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert "KERAS_BACKEND=jax" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("which", "address"), [("2", "127.0.0.1:1"), ("x", "127.0.0.1:1"), ("0", "nowhere"), ("0", "")]
)
def test_variables_that_tell_no_process_are_refused(which, address, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv(processes.WHICH, which)
    monkeypatch.setenv(processes.ADDRESS, address)
    with pytest.raises(ValueError, match="give a number from 0 to 1"):
        processes.join(2)


def test_one_process_keeps_its_batch_as_it_is():
    batch = {"x": np.arange(6.0)}
    assert backend.spread(batch) is batch
