"""From a prompt to images, with small untrained models: the path, not the pictures."""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from genlib import backend, cli, files, pipeline, pretrained, weights
from genlib.models.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT, ImageGPTConfig
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shape = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
    model = Flow(FlowConfig(shape, channels=2, text_width=8))
    tokenizer = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4))

    def encode(texts):
        return np.array([[len(t), *range(7)] for t in texts], np.float32) / 10

    def describe(prompt, n, seed, method):
        said = [f"{prompt}, {seed}, {i}" for i in range(n)]
        values = ("sunset", "sea", "left", "clear", "boat")
        return [
            SimpleNamespace(text=t, understood=f"read by {method}", attributes=values) for t in said
        ]

    loaded = pipeline.load
    monkeypatch.setattr(pipeline, "load", lambda m: model if m == pipeline.DEFAULT else loaded(m))
    monkeypatch.setattr(pipeline, "load_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(pipeline.text, "encode", encode)
    monkeypatch.setattr(pipeline.text, "describe", describe, raising=False)


def test_the_same_arguments_give_the_same_images():
    first, second = (pipeline.generate("a sunset", 3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    other = pipeline.generate("a sunset", 3, seed=6)
    assert np.any(first.images != other.images)
    assert first.images.shape == (3, 64, 64, 3)
    assert first.images.dtype == np.uint8


def test_an_image_does_not_depend_on_how_many_there_are():
    one, three = (pipeline.generate("a sunset", n, seed=5) for n in (1, 3))
    assert np.abs(one.images[0].astype(int) - three.images[0]).max() <= 1


def test_every_stage_is_timed_and_notes_are_said_once():
    made = pipeline.generate("a sunset", 2)
    assert list(made.milliseconds) == ["describe", "encode", "generate", "decode"]
    assert all(ms >= 0 for ms in made.milliseconds.values())
    assert made.notes == ("read by student",)
    assert len(made.descriptions) == 2


def test_describing_can_be_left_out():
    made = pipeline.generate("a sunset", 2, describe="off")
    assert made.descriptions == ("a sunset", "a sunset")
    assert made.notes == ()


@pytest.fixture
def bright(monkeypatch):
    """A reward model that likes bright images, and its scores."""
    seen = []

    def agreement(reward_model, images, asked):
        seen.append(images)
        return images.mean((1, 2, 3), np.float64)

    monkeypatch.setattr(pipeline, "agreement", agreement)
    return seen


def test_best_of_n_keeps_for_each_image_the_draw_that_the_reward_model_likes_best(bright):
    made = pipeline.generate("a sunset", 4, seed=5, best_of=3)
    assert made.method["best_of"] == 3
    assert set(made.milliseconds) == {"describe", "encode", "generate", "decode", "choose"}
    one = pipeline.generate("a sunset", 4, seed=5)
    assert (made.images.mean((1, 2, 3)) >= one.images.mean((1, 2, 3))).all()
    assert made.descriptions == one.descriptions


def test_best_of_n_with_different_seeds_shares_no_image(bright):
    for seed in (0, 1, 2):
        pipeline.generate("a sunset", 2, seed=seed, best_of=4, describe="llm")
    drawn = np.concatenate(bright)
    assert len(drawn) == 3 * 4 * 2
    assert len({image.tobytes() for image in drawn}) == len(drawn)


def test_the_first_draw_of_best_of_n_is_the_plain_image_and_no_draw_depends_on_n(bright):
    plain = pipeline.generate("a sunset", 3, seed=5).images
    for n in (3, 1):
        pipeline.generate("a sunset", n, seed=5, best_of=2)
    first, second, first_alone, second_alone = bright
    np.testing.assert_array_equal(first, plain)
    for many, alone in ((first, first_alone), (second, second_alone)):
        assert np.abs(many[0].astype(int) - alone[0]).max() <= 1


def test_a_second_best_of_n_loads_nothing(monkeypatch):
    pipeline.generate("a sunset", 1, best_of=2)
    monkeypatch.setattr(weights, "load", lambda *_: pytest.fail("loaded again"))
    monkeypatch.setattr(weights, "load_model", lambda *_: pytest.fail("loaded again"))
    made = pipeline.generate("a dawn", 1, best_of=2)
    assert made.images.shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pipeline.generate(""), ValueError, "prompt is empty"),
        (lambda: pipeline.generate(" \n"), ValueError, "prompt is empty"),
        (lambda: pipeline.generate(3), TypeError, "got int"),
        (lambda: pipeline.generate("x", 0), ValueError, "give a whole number from 1 to 1,024"),
        (lambda: pipeline.generate("x", 2000), ValueError, "give a whole number from 1 to 1,024"),
        (lambda: pipeline.generate("x", seed=-1), ValueError, "seed = -1"),
        (lambda: pipeline.generate("x", seed=2**64), ValueError, "seed = 18446744073709551616"),
        (lambda: pipeline.generate("\ud83c"), ValueError, "not Unicode"),
        (lambda: pipeline.generate("x", method="magic"), ValueError, "No method 'magic'"),
        (
            lambda: pipeline.generate("x", top_k=3),
            ValueError,
            r"no option \['top_k'\]; it has \['guidance', 'steps', 'xla'\]",
        ),
        (lambda: pipeline.generate("x", describe="poet"), ValueError, "'poet'"),
        (lambda: pipeline.generate("x", best_of=0), ValueError, "best_of = 0"),
        (lambda: pipeline.generate("x", best_of=2, describe="off"), ValueError, "reward model"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0), ("n", 1025), ("n", float("nan")), ("n", 1.5), ("n", True),
        ("seed", -1), ("seed", 2**64), ("seed", 0.5),
        ("best_of", 0), ("best_of", 10**9), ("best_of", float("inf")),
        ("steps", 0), ("steps", 10**9), ("steps", 2.5), ("steps", "four"), ("steps", None),
        ("guidance", float("nan")), ("guidance", float("inf")), ("guidance", 1e38),
        ("guidance", -1), ("temperature", float("nan")), ("temperature", -1),
        ("temperature", 1e-40), ("min_p", 1.5), ("min_p", float("nan")),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_alike_by_python_command_line_and_server(
    name, value, capsys, monkeypatch, tmp_path
):
    """All before anything is loaded, or written."""
    monkeypatch.setattr(pipeline, "load", lambda *_: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    method = "image-gpt" if name in ("temperature", "min_p") else "flow"
    with pytest.raises(ValueError, match=f"^{name} = .*; give ") as python:
        pipeline.generate("x", **{"method": method, name: value})

    option = {"n": "-n", "seed": "--seed", "best_of": "--best-of"}.get(name)
    if option is None or type(value) is int:  # Typer itself takes nothing but whole numbers there
        given = (option, str(value)) if option else ("--option", f"{name}={json.dumps(value)}")
        told = genlib(capsys, "generate", "x", "--method", method, *given)
        assert told == (1, "", f"genlib: {python.value}\n")
    assert list(tmp_path.iterdir()) == []

    server = pytest.importorskip("genlib.serve.app", reason="the server's packages")
    if name in ("n", "seed"):
        with pytest.raises(ValueError, match=f"{name} = "):
            server._read(json.dumps({"prompt": "x", name: value}).encode(), 64)
    elif name != "best_of":  # which it does not offer
        with pytest.raises(ValueError, match=f"^{name} = "):
            server.Renderer(method, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"xla": 5}, "xla = 5; give true or false"),
        ({"xla": "yes"}, "xla = 'yes'"),
        ({"solver": "heun"}, r"solver = 'heun'; give one of \('euler', 'midpoint'\)"),
        ({"solver": ["euler"]}, r"solver = \['euler'\]"),
    ],
)
def test_an_option_of_another_kind_is_refused_before_anything_is_loaded(
    options, message, monkeypatch
):
    monkeypatch.setattr(pipeline, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        pipeline.generate("x", method="flow", **options)


def test_a_model_refuses_numbers_and_texts_that_are_not_finite():
    shape = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16)
    models = [
        pipeline.load(pipeline.DEFAULT),
        ImageGPT(ImageGPTConfig(shape, text_width=8)),
        CoarseToFine(CoarseToFineConfig(shape, text_width=8)),
    ]
    texts = np.zeros((1, 8), np.float32)
    for model in models:
        more = {"top_p": 1e-30}
        if model.kind == "latents":
            more = {"noise": np.full((1, 16, 16, 2), np.nan)}
        for options in ({"guidance": np.nan}, {"guidance": 1e38}, more):
            with pytest.raises(ValueError, match=r"guidance = |finite|top_p = "):
                model.sample(texts, **options)
        with pytest.raises(ValueError, match="NaN or infinity"):
            model.sample(texts * np.nan)


def genlib(capsys, *arguments):
    """Runs the command line in this process; returns status, output and errors."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["genlib", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    told = capsys.readouterr()
    return end.value.code or 0, told.out, told.err


QUICK = ("-n", "2", "--describe", "off", "--option", "steps=1")


def test_no_image_of_the_command_line_s_is_overwritten_unasked(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images.png", "images-2.png"):
        code, out, _ = genlib(capsys, "generate", "a sunset", *QUICK)
        assert (code, name in out) == (0, True)
    first = Path("images.png").read_bytes()
    code, out, err = genlib(capsys, "generate", "a boat", *QUICK, "-o", "images.png")
    assert (code, out) == (1, "")
    assert "images.png exists. Give a new name, or --overwrite" in err
    assert Path("images.png").read_bytes() == first
    code, _, _ = genlib(capsys, "generate", "a boat", *QUICK, "-o", "images.png", "--overwrite")
    assert code == 0
    assert Path("images.png").read_bytes() != first
    for name in ("samples.png", "samples-2.png"):
        code, out, _ = genlib(capsys, "sample", "gan-mlp-fashion", "-n", "2")
        assert (code, name in out) == (0, True)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x.gif", ".png, .jpg, .jpeg, .webp"),
        ("-", "./-"),
        ("full", "not an empty folder"),
        ("full/", "not an empty folder"),
        (".", "not an empty folder"),
        ("x" * 252 + ".png", "cannot be written"),
        ("full/a.txt/b.png", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_is_told_before_anything_is_loaded(
    out, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "load", lambda *_: pytest.fail("loaded"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    code, told, err = genlib(capsys, "generate", "x", "-o", out)
    assert (code, told) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    if out != "full" and out != "full/":
        assert genlib(capsys, "sample", "gan-mlp-fashion", "-o", out)[0] == 1
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "a.txt"]


@pytest.mark.parametrize("out", ["sheet.png", "sheet.webp", "sheet.jpg", "out", "out.v2/"])
def test_show_prints_the_command_that_makes_the_same_pixels(out, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt = '-a 夕阳 at the "sea"; it\'s $HOME'
    options = ("-n", "2", "--seed", "7", "--steps", "2", "--guidance", "1.0", "--describe", "off")
    code, _, err = genlib(capsys, "generate", *options, "-o", out, "--", prompt)
    assert code == 0, err
    made = Path(out)
    if made.suffix in (".webp", ".jpg"):
        assert Image.open(made).format == {".webp": "WEBP", ".jpg": "JPEG"}[made.suffix]
        assert genlib(capsys, "show", out)[0] == 1
        return
    name = made if made.is_file() else made / "0001.png"
    code, told, _ = genlib(capsys, "show", str(name))
    assert code == 0
    for line in (f"prompt: {prompt}", "seed: 7", "method: flow-shortcut", "genlib: 0.1.0"):
        assert line in told.splitlines()
    words = shlex.split(told.splitlines()[-1].partition(": ")[2])
    code, _, err = genlib(capsys, *words[1:])
    assert code == 0, err
    again = Path(words[words.index("-o") + 1])
    again = again if again.is_file() else again / "0001.png"
    assert again != name
    np.testing.assert_array_equal(Image.open(again), Image.open(name))


def test_show_s_command_draws_a_sample_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genlib(capsys, "sample", "gan-mlp-fashion", "-n", "3", "--seed", "5", "-o", "a.png")
    words = shlex.split(genlib(capsys, "show", "a.png")[1].splitlines()[-1].partition(": ")[2])
    assert genlib(capsys, *words[1:])[0] == 0
    np.testing.assert_array_equal(Image.open("a-again.png"), Image.open("a.png"))


def test_a_prompt_that_looks_like_an_option_gets_a_hint(capsys):
    for prompt in ("-sunset", "-5 degrees", "--sunset", "-nature at dusk"):
        code, _, err = genlib(capsys, "generate", prompt)
        assert code == 2
        assert "stands behind --" in " ".join(re.sub(r"[│|]", " ", err).split())
    code, _, err = genlib(capsys, "generate", "-")
    assert (code, err.count("\n")) == (1, 1)
    assert "standard input" in err


def test_too_little_memory_is_one_sentence(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    class ResourceExhaustedError(Exception):
        pass

    for error in (MemoryError(), ResourceExhaustedError("OOM when allocating tensor")):
        monkeypatch.setattr(pipeline, "load", lambda *_, error=error: raise_(error))
        code, _, err = genlib(capsys, "generate", "x")
        assert (code, err.count("\n")) == (1, 1)
        assert "not enough memory" in err
    monkeypatch.setattr(pipeline, "load", lambda *_: raise_(KeyError("a mistake of ours")))
    with pytest.raises(KeyError):
        genlib(capsys, "generate", "x")


def raise_(error):
    raise error


def test_a_sheet_is_written_whole(tmp_path):
    pipeline.save(pipeline.generate("a sunset", 4), tmp_path / "new" / "sheet.png")
    assert Image.open(tmp_path / "new" / "sheet.png").size[0] > 128
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_a_folder_holds_images_and_what_they_show(tmp_path):
    made = pipeline.generate("日落", 3)
    pipeline.save(made, tmp_path / "out")
    lines = (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["text"] for r in records] == list(made.descriptions)
    image = np.asarray(Image.open(tmp_path / "out" / records[2]["file_name"]))
    np.testing.assert_array_equal(image, made.images[2])


def test_what_was_there_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        pipeline.check_out(tmp_path / "out")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        pipeline.save(pipeline.generate("a sunset", 1), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["diary.txt"]


def test_what_a_killed_writer_left_is_not_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "replace", lambda *_: os._exit(9))
    out = tmp_path / "out"
    if (child := os.fork()) == 0:
        files.write_atomic(out / "a.bin", b"half")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(out.iterdir())) == 1
    monkeypatch.undo()
    pipeline.check_out(out)
    files.write_folder(out, {"b.bin": b"whole"})
    assert [path.name for path in out.iterdir()] == ["b.bin"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("x" * 251 + ".png", "夕" * 83 + ".png"):
        files.write_atomic(tmp_path / name, b"whole")
    assert len(list(tmp_path.iterdir())) == 2


def test_room_is_checked_before_the_work(tmp_path):
    pipeline.check_out(tmp_path / "a" / "b" / "sheet.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        pipeline.check_out(tmp_path / "file" / "sheet.png")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(IsADirectoryError):
        pipeline.check_out(tmp_path / "x.png")


def test_the_command_line_writes_and_reports(tmp_path):
    out = tmp_path / "s.png"
    arguments = ["generate", "a sunset", "-n", "2", "-o", str(out), "--json"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["n"] == 2
    assert set(record["milliseconds"]) == {"describe", "encode", "generate", "decode"}
    assert out.is_file()


def test_the_command_line_takes_every_option_of_a_method(tmp_path, monkeypatch):
    given = {}

    def generate(prompt, n, **options):
        given.update(options)
        images = np.zeros((n, 64, 64, 3), np.uint8)
        return pipeline.Generated(images, ("",) * n, (), {}, {})

    monkeypatch.setattr(pipeline, "generate", generate)
    monkeypatch.setattr(backend, "name", lambda: "jax")  # PyTorch has no XLA
    arguments = [
        "generate",
        "x",
        "-n",
        "1",
        "-o",
        str(tmp_path / "s.png"),
        "--xla",
        "--method",
        "flow",
    ]
    arguments += ["--option", "steps=2", "--option", "guidance=1.5", "--option", "solver=midpoint"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    options = {key: given[key] for key in ("xla", "steps", "guidance", "solver")}
    assert options == {"xla": True, "steps": 2, "guidance": 1.5, "solver": "midpoint"}
    assert type(given["steps"]) is int
    given.clear()
    CliRunner().invoke(cli.app, [*arguments[:6], "--overwrite"])
    assert set(given) == {"seed", "method", "describe", "best_of"}  # the method's own defaults


@pytest.mark.parametrize("method", pipeline.METHODS)
def test_xla_is_an_option_of_every_method_and_wrong_ones_name_what_exists(method, monkeypatch):
    monkeypatch.setattr(backend, "name", lambda: "jax")  # PyTorch has none, and says so
    assert pretrained.method_options(method, {"xla": True})["xla"] is True
    with pytest.raises(ValueError, match="no option") as refused:
        pretrained.method_options(method, {"speed": 3})
    assert all(name in str(refused.value) for name in pretrained.METHODS[method].options)


@pytest.mark.parametrize("pair", ["steps", ""])
def test_an_option_without_a_value_is_refused(pair, tmp_path):
    arguments = ["generate", "x", "-o", str(tmp_path / "s.png"), "--option", pair]
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, ValueError)
    assert "NAME=VALUE" in str(result.exception)


def test_serve_hands_all_its_options_on(monkeypatch):
    app = pytest.importorskip("genlib.serve.app", reason="the server's packages")
    asked = {}
    monkeypatch.setattr(
        app, "run", lambda host, port, **options: asked.update(options, host=host, port=port)
    )
    arguments = "serve --host ::1 --port 0 --method flow --describe off --max-batch 2 --max-wait 0"
    arguments += " --max-queue 3 --max-connections 6 --timeout 4 --cache-bytes 5"
    arguments += " --option steps=2 --option xla=true"
    result = CliRunner().invoke(cli.app, arguments.split())
    assert result.exit_code == 0, result.output
    assert asked == {
        "host": "::1", "port": 0, "method": "flow", "describe": "off", "max_batch": 2,
        "max_wait": 0, "max_queue": 3, "max_connections": 6, "timeout": 4, "cache_bytes": 5,
        "steps": 2, "xla": True,
    }  # fmt: skip


def test_the_command_line_lists_methods_and_describes():
    methods = CliRunner().invoke(cli.app, ["methods"]).stdout
    assert all(name in methods for name in pipeline.METHODS)
    described = CliRunner().invoke(cli.app, ["describe", "a sunset", "-n", "2"]).stdout
    assert described.splitlines() == ["a sunset, 0, 0", "a sunset, 0, 1"]
