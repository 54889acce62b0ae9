"""The command line does what the README says, and its errors are one line."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def genlib(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "genlib.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "GENLIB_OFFLINE": "1"},
    )  # fmt: skip


def test_train_then_sample_writes_a_sheet(tmp_path):
    trained = genlib(
        "train", "gan", "--epochs", "1", "--out", "runs/gan", "--source", "subset", cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    assert "1 epochs done" in trained.stdout
    assert "subset" in trained.stderr
    drawn = genlib("sample", "runs/gan", "-n", "16", "-o", "samples.png", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert np.asarray(Image.open(tmp_path / "samples.png")).std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nowhere"], "nowhere"),
        (["train", "gan", "--out", "x", "--network", "vgg"], "Unknown network 'vgg'"),
        (["train", "gan", "--out", "x", "--source", "moon"], "moon"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(arguments, message, tmp_path):
    result = genlib(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unwritable_folder_is_reported(tmp_path):
    # Root may write everywhere but into the kernel's own file system.
    out = "/proc/genlib-run" if os.geteuid() == 0 else "locked/run"
    (tmp_path / "locked").mkdir(mode=0o500)
    result = genlib("train", "gan", "--out", out, "--source", "subset", cwd=tmp_path)
    assert result.returncode == 1
    assert out in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_in_the_way_of_the_run_is_reported(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    result = genlib("train", "gan", "--out", "run", "--source", "subset", cwd=tmp_path)
    assert result.returncode == 1
    assert "holds no run" in result.stderr
    assert (tmp_path / "run").read_text() == "not a folder"
