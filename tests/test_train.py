"""Runs stop cleanly, go on where they stopped, and never lose what was finished."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlib import backend, cli, pretrained, train
from genlib.data import FashionMNIST
from genlib.models import gan
from genlib.models.gan import GANConfig
from genlib.train import loop
from genlib.train.heal import HealTask
from genlib.train.judges import JudgeTask
from genlib.weights import checkpoint

SMALL = GANConfig(batch_size=32)


def blobs(n=128, seed=0):
    """Images that a GAN learns in seconds: one bright square on black."""
    images = np.zeros((n, 28, 28, 1), np.uint8)
    for image, (row, column) in zip(
        images, np.random.default_rng(seed).integers(8, 12, (n, 2)), strict=True
    ):
        image[row : row + 8, column : column + 8] = 230
    return images


def weights_of(task):
    return {name: backend.to_numpy(v.value) for name, v in task.variables().items()}


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_training_moves_samples_towards_the_data():
    task = train.GANTask(blobs(1024), GANConfig(batch_size=64, learning_rate=1e-3))
    mean = blobs(1024).mean(0)

    def distance():
        return np.abs(task.sample().mean(0) - mean).mean()

    before = distance()
    state = train.run(task, epochs=12, progress=False)
    assert distance() < before / 2
    assert [len(v) for v in state.history.values()] == [12, 12]


def test_an_interrupted_run_ends_in_the_weights_of_an_unbroken_one(tmp_path):
    unbroken = train.GANTask(blobs(), SMALL, seed=3)
    train.run(unbroken, 4, progress=False)
    for epochs in (1, 3, 4):
        resumed = train.GANTask(blobs(), SMALL, seed=3)
        train.run(resumed, epochs, tmp_path / "run", progress=False)
    assert_same_weights(weights_of(unbroken), weights_of(resumed))


class Slow(train.GANTask):
    """Takes no step of an epoch before the next epoch is being prepared."""

    def __init__(self):
        super().__init__(blobs(), SMALL)
        self.begun = [threading.Event() for _ in range(3)]
        self.threads = set()

    def prepare(self, epoch):
        self.threads.add(threading.current_thread())
        self.begun[epoch].set()
        return epoch

    def epoch(self, epoch, prepared):
        assert prepared == epoch
        if epoch + 1 < len(self.begun):
            assert self.begun[epoch + 1].wait(60), "nobody prepares the next epoch"
        yield from super().epoch(epoch)


def test_the_next_epoch_is_prepared_ahead_and_the_weights_are_those_of_one_after_the_other():
    ahead = Slow()
    train.run(ahead, 3, progress=False)
    assert threading.main_thread() not in ahead.threads
    plain = train.GANTask(blobs(), SMALL)
    for epoch in range(3):
        for _ in plain.epoch(epoch, plain.prepare(epoch)):
            pass
    assert_same_weights(weights_of(ahead), weights_of(plain))


def test_no_epoch_is_prepared_that_no_one_asked_for():
    task = Slow()
    task.begun = task.begun[:2]  # preparing a third would be an error
    assert train.run(task, 2, progress=False).epoch == 2


def test_losses_are_fetched_now_and_then_and_none_is_left_out(monkeypatch):
    task = train.GANTask(blobs(), SMALL)
    task.steps_per_epoch = 120
    monkeypatch.setattr(task, "epoch", lambda epoch, _: ({"loss": float(i)} for i in range(120)))
    fetched = []
    copy = backend.to_numpy
    monkeypatch.setattr(loop.backend, "to_numpy", lambda made: fetched.append(made) or copy(made))
    state = train.run(task, 1, progress=False)
    assert state.history == {"loss": [pytest.approx(59.5)]}
    assert len(fetched) == 3  # after 50, 100 and 120 steps


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_9_then_resume_ends_in_the_weights_of_an_unbroken_run(tmp_path):
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_train import SMALL, blobs; from genlib import train\n"
        "train.run(train.GANTask(blobs(6400), SMALL), int(sys.argv[2]), sys.argv[1])\n"
    )

    def start(folder, epochs):
        command = [sys.executable, "-c", program, str(folder), str(epochs)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)

    killed = start(tmp_path / "killed", 200)
    deadline = time.monotonic() + 1800
    while not (tmp_path / "killed" / "state.json").exists():
        assert killed.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)  # into the next epoch, or into the writing of a checkpoint
    killed.kill()
    killed.wait()
    done = json.loads((tmp_path / "killed" / "state.json").read_text())["epoch"]
    assert done < 200
    assert start(tmp_path / "killed", done + 2).wait() == 0
    assert start(tmp_path / "unbroken", done + 2).wait() == 0

    first, second = (train.GANTask(blobs(6400), SMALL) for _ in range(2))
    assert checkpoint.restore(tmp_path / "killed", first.variables()).epoch == done + 2
    assert checkpoint.restore(tmp_path / "unbroken", second.variables()).epoch == done + 2
    assert_same_weights(weights_of(first), weights_of(second))


def test_sheets_and_the_last_two_checkpoints_stand_in_the_folder(tmp_path):
    train.run(train.GANTask(blobs(), SMALL), 4, tmp_path / "run", progress=False)
    sheets = sorted(p.name for p in (tmp_path / "run" / "samples").iterdir())
    assert sheets == [f"epoch-000{i}.png" for i in (1, 2, 3, 4)]
    assert Image.open(tmp_path / "run" / "samples" / sheets[-1]).size[0] >= 8 * 28
    kept = sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*.safetensors"))
    assert kept == ["checkpoint-000003.safetensors", "checkpoint-000004.safetensors"]


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    task = train.GANTask(blobs(), SMALL)
    train.run(task, 1, tmp_path / "run", progress=False)
    good = weights_of(task)
    first = next(iter(task.variables().values()))
    first.assign(backend.to_numpy(first.value) * np.nan)
    healthy_restore, checkpoint.restore = checkpoint.restore, lambda *_: train.State(1, {})
    try:
        with pytest.raises(train.TrainingDiverged, match=r"epoch 2.*NaN.*lower learning rate"):
            train.run(task, 3, tmp_path / "run", progress=False)
    finally:
        checkpoint.restore = healthy_restore
    again = train.GANTask(blobs(), SMALL)
    assert checkpoint.restore(tmp_path / "run", again.variables()).epoch == 1
    assert_same_weights(good, weights_of(again))


def test_a_full_disk_is_reported_and_the_last_checkpoint_stands(tmp_path, monkeypatch):
    train.run(train.GANTask(blobs(), SMALL), 1, tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "state.json").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train.run(train.GANTask(blobs(), SMALL), 2, tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert (tmp_path / "run" / "state.json").read_bytes() == before
    assert not list((tmp_path / "run").rglob(".*"))
    assert train.run(train.GANTask(blobs(), SMALL), 2, tmp_path / "run", progress=False).epoch == 2


def test_another_run_s_folder_is_refused_with_what_differs(tmp_path):
    train.run(train.GANTask(blobs(), SMALL, seed=1), 1, tmp_path / "run", progress=False)
    with pytest.raises(checkpoint.RunError, match=r"seed = 1, not 2"):
        train.run(train.GANTask(blobs(), SMALL, seed=2), 2, tmp_path / "run", progress=False)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("…")
    with pytest.raises(checkpoint.RunError, match="holds no run"):
        train.run(train.GANTask(blobs(), SMALL), 1, tmp_path / "letters", progress=False)


def test_a_damaged_checkpoint_is_named_and_refused(tmp_path):
    train.run(train.GANTask(blobs(), SMALL), 1, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "checkpoint-000001.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint-000001\.safetensors.*SHA-256"):
        pretrained.load_gan(tmp_path / "run")


# ---------------------------------------------------------------- what is lost is told, and mended


def trained(folder, epochs=3, seed=0):
    task = train.GANTask(blobs(64), SMALL, seed=seed)
    train.run(task, epochs, folder, progress=False)
    return task


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def change(file, **values):
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


DAMAGES = {
    "a state that is missing": lambda run: (run / "state.json").unlink(),
    "a state that is half": lambda run: (run / "state.json").write_text('{"epoch": 3, "hi'),
    "a state of another kind": lambda run: (run / "state.json").write_text("[3]"),
    "a state without history": lambda run: change(run / "state.json", history=None),
    "a state whose history is a word": lambda run: change(run / "state.json", history="long"),
    "a state without epoch": lambda run: change(run / "state.json", epoch=None),
    "a state of epoch -1": lambda run: change(run / "state.json", epoch=-1),
    "a state whose seconds are NaN": lambda run: change(run / "state.json", seconds=float("nan")),
    "a state with another's name": lambda run: change(run / "state.json", checkpoint="../../x"),
    "a state ahead of its checkpoints": lambda run: change(
        run / "state.json", epoch=9, checkpoint="checkpoint-000009"
    ),
    "a card that is missing": lambda run: (run / "run.json").unlink(),
    "a card that is empty": lambda run: (run / "run.json").write_text(""),
    "a card without recipe": lambda run: change(run / "run.json", recipe=None),
    "a card without seed": lambda run: change(run / "run.json", seed=None),
    "a card nested too deeply": lambda run: (run / "run.json").write_text("[" * 100_000),
    "neither state nor card": lambda run: [
        (run / name).unlink() for name in ("state.json", "run.json")
    ],
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, weights_of(trained(folder))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_lost_is_one_sentence_with_the_command_that_mends_it(damage, whole_run, tmp_path):
    folder, unbroken = whole_run
    run = tmp_path / "a run"
    shutil.copytree(folder, run)
    DAMAGES[damage](run)
    before = files_of(run)
    with pytest.raises(checkpoint.RunError) as error:
        trained(run, 4)
    assert "\n" not in str(error.value)
    assert "checkpoint-000003" in str(error.value)
    assert str(error.value).endswith(f"genlib mend '{run}'")
    assert files_of(run) == before  # nothing was pruned, nothing was written

    assert checkpoint.mend(run).epoch == 3
    again = trained(run, 3)
    assert_same_weights(unbroken, weights_of(again))
    assert json.loads((run / "state.json").read_text())["history"].keys() == {
        "generator",
        "discriminator",
    }


@pytest.mark.parametrize("name", ["state.json", "run.json"])
def test_a_folder_in_the_place_of_a_file_is_told_until_it_is_moved_away(name, whole_run, tmp_path):
    """The command that a message names works, or says itself what is in its way."""
    run = tmp_path / "run"
    shutil.copytree(whole_run[0], run)
    before = files_of(run)
    (run / name).unlink()
    (run / name / "deep").mkdir(parents=True)
    with pytest.raises((checkpoint.RunError, OSError), match=rf"{name} is (a folder|missing)"):
        trained(run, 4)
    with pytest.raises(IsADirectoryError, match=rf"{name} is a folder\. .* move it away"):
        checkpoint.mend(run)
    assert (run / name / "deep").is_dir()
    (run / name).rename(tmp_path / "away")
    assert checkpoint.mend(run).epoch == 3
    assert files_of(run).keys() == before.keys()
    trained(run, 4)


@pytest.mark.parametrize(("name", "folder"), [("state.json", True), ("samples", False)])
def test_what_is_in_the_way_of_a_run_is_told_before_the_work(name, folder, whole_run, tmp_path):
    """In a new run, where nothing is read yet: the first epoch would be lost."""
    run, card = tmp_path / "run", (whole_run[0] / "run.json").read_bytes()
    run.mkdir()
    (run / "run.json").write_bytes(card)
    (run / name).mkdir() if folder else (run / name).write_text("theirs")
    task = train.GANTask(blobs(64), SMALL)
    task.epoch = lambda *_: pytest.fail("an epoch has begun")
    with pytest.raises(OSError, match=rf"{name} is (a|no) folder\. .*ove it away"):
        train.run(task, 1, run, progress=False)


def test_the_command_of_the_message_is_one_that_mends(whole_run, tmp_path, monkeypatch, capsys):
    run = tmp_path / "it's a run"
    shutil.copytree(whole_run[0], run)
    (run / "state.json").unlink()
    with pytest.raises(checkpoint.RunError) as error:
        trained(run, 1)
    words = shlex.split(str(error.value).rpartition("with: ")[2])
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "stands at epoch 3" in capsys.readouterr().out
    assert trained(run, 4)


def test_a_damaged_last_checkpoint_is_left_for_the_one_before(whole_run, tmp_path):
    folder, _ = whole_run
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    (run / "checkpoint-000003.safetensors").write_bytes(b"half")
    with pytest.raises(checkpoint.RunError, match=r"checkpoint-000003.*SHA-256.*checkpoint-000002"):
        trained(run, 4)
    assert checkpoint.mend(run).epoch == 2
    assert_same_weights(weights_of(trained(run, 4)), weights_of(trained(tmp_path / "unbroken", 4)))


def test_a_run_without_any_whole_checkpoint_says_so(tmp_path):
    run = tmp_path / "run"
    trained(run, 1)
    for name in ("state.json", "checkpoint-000001.json"):
        (run / name).unlink()
    with pytest.raises(checkpoint.RunError, match="no checkpoint is whole"):
        trained(run, 2)
    with pytest.raises(checkpoint.RunError, match="no whole checkpoint"):
        checkpoint.mend(run)
    assert (run / "checkpoint-000001.safetensors").is_file()


def test_a_checkpoint_of_former_times_knows_its_epoch_alone(tmp_path):
    run = tmp_path / "run"
    trained(run, 2)
    change(run / "checkpoint-000002.json", history=None, seconds=None, images=None, run=None)
    (run / "state.json").unlink()
    assert checkpoint.mend(run) == checkpoint.State(2)
    (run / "run.json").unlink()
    with pytest.raises(checkpoint.RunError, match=r"Neither run\.json.*Put run\.json back"):
        checkpoint.mend(run)


def test_only_exact_names_are_pruned_and_never_what_was_just_written(tmp_path):
    run = tmp_path / "run"
    trained(run, 2)
    mine = (
        "checkpoint-000002-keep.safetensors",
        "checkpoint-000001.safetensors.bak",
        "checkpoint-1.safetensors",
        "checkpoint-000000001.safetensors",
        "checkpoint-best.json",
    )
    for name in mine:
        (run / name).write_text("mine")
    (run / "checkpoint-000001").mkdir()
    for ahead in ("checkpoint-000008.safetensors", "checkpoint-000008.json"):
        (run / ahead).write_text("of a state that was put back")
    trained(run, 5)
    found = {path.name for path in run.glob("checkpoint-*")} - {*mine, "checkpoint-000001"}
    kept = {f"checkpoint-00000{i}.{end}" for i in (4, 5, 8) for end in ("safetensors", "json")}
    assert found == kept
    assert {(run / name).read_text() for name in mine} == {"mine"}


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    run = tmp_path / "run"
    trained(run, 1)
    description = train.GANTask(blobs(64), SMALL).card()
    with checkpoint.open_run(run, description):
        before = files_of(run)
        who = rf"process {os.getpid()} on {re.escape(socket.gethostname())} since \d{{4}}-"
        for write in (lambda: trained(run, 2), lambda: checkpoint.mend(run)):
            with pytest.raises(checkpoint.RunError, match=who):
                write()
        assert files_of(run) == before
    assert trained(run, 2)
    assert not list(run.glob("writer.*"))


def test_two_writers_who_begin_at_once_are_one(tmp_path):
    begun, results = threading.Barrier(4), []

    def write():
        begun.wait()
        try:
            with checkpoint.open_run(tmp_path / "run", {"recipe": "x"}):
                end = time.monotonic() + 60
                while len(results) < 3 and time.monotonic() < end:  # until the others are refused
                    time.sleep(0.01)
                results.append("wrote")
        except checkpoint.RunError as error:
            results.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results.count("wrote") == 1
    assert sum("is being written by" in result for result in results) == 3, results


def test_a_folder_is_new_or_a_run_also_when_another_writer_begins_while_it_is_listed(
    tmp_path, monkeypatch
):
    listed = Path.iterdir

    def first_writes(folder):
        (folder / "run.json").write_text('{"recipe": "y"}')
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", first_writes)
    with (
        pytest.raises(checkpoint.RunError, match="recipe = 'y', not 'x'"),
        checkpoint.open_run(tmp_path, {"recipe": "x"}),
    ):
        pass


def test_a_killed_writer_s_lock_is_none(tmp_path):
    if (child := os.fork()) == 0:
        with checkpoint.open_run(tmp_path / "run", {"recipe": "x"}):
            os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / "run" / "writer.json").is_file()
    with checkpoint.open_run(tmp_path / "run", {"recipe": "x"}):
        pass


# ---------------------------------------------------------------- what the data are


def test_other_images_with_the_same_label_and_count_are_another_run(tmp_path):
    trained(tmp_path / "run", 1)
    other = train.GANTask(blobs(64, seed=1), SMALL)
    with pytest.raises(checkpoint.RunError, match=r"data fingerprint = '[0-9a-f]{16}', not"):
        train.run(other, 2, tmp_path / "run", progress=False)


def test_a_run_of_former_times_goes_on_and_has_a_fingerprint_from_then_on(tmp_path):
    run = tmp_path / "run"
    trained(run, 1)
    change(run / "run.json", **{"data fingerprint": None})
    trained(run, 2)
    assert len(json.loads((run / "run.json").read_text())["data fingerprint"]) == 16
    with pytest.raises(checkpoint.RunError, match="data fingerprint"):
        train.run(train.GANTask(blobs(64, seed=1), SMALL), 3, run, progress=False)


def test_other_classes_of_the_same_images_are_other_data():
    images, labels = blobs(256), np.arange(256) % 10
    cards = [
        JudgeTask(FashionMNIST(images, given, images, labels, "path", True)).card()
        for given in (labels, labels[::-1].copy())
    ]
    assert {key for key in cards[0] if cards[0][key] != cards[1][key]} == {"labels fingerprint"}


def test_another_teacher_is_another_run():
    teachers = [gan.build_generator("conv", seed) for seed in (0, 1)]
    cards = [HealTask(blobs(), teacher=teacher, latents=64).card() for teacher in teachers]
    assert {key for key in cards[0] if cards[0][key] != cards[1][key]} == {"teacher fingerprint"}


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"5 images do not fill a batch of 32"):
        train.GANTask(blobs(5), SMALL)
    for epochs in (0, 1.5, float("nan"), 10**9):
        with pytest.raises(
            ValueError, match=r"epochs = .*; give a whole number from 1 to 1,000,000"
        ):
            train.run(train.GANTask(blobs(), SMALL), epochs)
    with pytest.raises(ValueError, match="seed = -1"):
        train.GANTask(blobs(), SMALL, seed=-1)
    with pytest.raises(FileNotFoundError, match="No run in"):
        pretrained.load_gan("nowhere")
