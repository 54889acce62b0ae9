"""Many prompts: each image once, the same bytes whoever makes them, and failures that are told."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import filelock
import numpy as np
import psutil
import pytest
from PIL import Image
from test_cli import genlib

from genlib import bulk, files, origin, pipeline

TIMES = int(os.environ.get("GENLIB_KILLS", "3"))
QUICK = {"describe": "off", "steps": 1}


def ask(folder, *lines):
    """Writes a file of prompts."""
    file = folder / "prompts.jsonl"
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(written) + "\n", encoding="utf-8")
    return file


def alone(prompts, out, **settings):
    """Makes all shards in this process, as a worker does one by one."""
    run = bulk.identity(prompts, **QUICK, **settings)
    out.mkdir(exist_ok=True)
    (out / "run.json").write_text(json.dumps(run))
    return [
        bulk.make_shard(n, asked, str(out), run) for n, asked in bulk.shards(prompts, run["shard"])
    ]


def sums(out):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in out.glob("*.tar")}


# ---------------------------------------------------------------- prompts


def test_a_line_is_a_prompt_or_json_and_its_number_is_its_seed(tmp_path):
    asked = list(bulk.lines(ask(tmp_path, "a tree", "", {"prompt": "夕阳", "seed": 9, "n": 3})))
    assert asked == [bulk.Asked(1, "a tree", 1, 1), bulk.Asked(3, "夕阳", 9, 3)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": "x"', "delimiter"),
        ('{"prompt": ""}', "empty"),
        ('{"seed": 1}', "empty"),
        ('{"prompt": 7}', "is a text"),
        ('{"prompt": "x", "n": 0}', "n = 0"),
        ('{"prompt": "x", "n": true}', "n = True"),
        ('{"prompt": "x", "seed": -1}', "seed = -1"),
        ('{"prompt": "x", "sede": 1}', "['sede']"),
        ('{"prompt": "\\ud800"}', "not Unicode"),
        ('{"prompt": ' + "[" * 50_000, "recursion"),
        ("x" * 2**17, "65,536 bytes"),
    ],
)
def test_a_bad_line_is_told_and_the_next_ones_are_read(line, told, tmp_path):
    bad, good = bulk.lines(ask(tmp_path, line, "a tree"))
    assert told in bad.error
    assert bad.n == 0
    assert good == bulk.Asked(2, "a tree", 2, 1)


def test_a_line_that_is_not_utf_8_is_told(tmp_path):
    (tmp_path / "p").write_bytes(b"\xff\xfe\na tree\n")
    bad, good = bulk.lines(tmp_path / "p")
    assert "utf-8" in bad.error
    assert good.prompt == "a tree"


@pytest.mark.parametrize("first", ['{"prompt": "a tree", "seed": 9, "n": 3}', "a tree", ""])
def test_a_mark_of_the_byte_order_is_no_part_of_a_line(first, tmp_path):
    """Windows begins a file with it, and files that are put together have it further down."""
    lines = [first, "a house", ""]
    (tmp_path / "p").write_text("\n".join(lines))
    wanted = list(bulk.lines(tmp_path / "p"))
    for marked in ({0}, {0, 1}, {0, 1, 2}):
        written = "\n".join("\ufeff" * (i in marked) + line for i, line in enumerate(lines))
        (tmp_path / "p").write_text(written, encoding="utf-8")
        assert list(bulk.lines(tmp_path / "p")) == wanted
    assert [one.prompt for one in wanted] == (["a tree"] if first else []) + ["a house"]


def test_shards_end_after_so_many_images_and_keep_lines_whole(tmp_path):
    counts = [1, 1, 5, 4, 1, 3, 2]
    file = ask(tmp_path, *({"prompt": "x", "n": n} for n in counts))
    parts = list(bulk.shards(file, 4))
    assert [number for number, _ in parts] == list(range(len(parts)))
    assert [[one.n for one in part] for _, part in parts] == [[1, 1, 5], [4], [1, 3], [2]]


def test_a_hundred_thousand_lines_are_never_in_memory_at_once(tmp_path):
    file = ask(tmp_path, *(f"a house number {i}" for i in range(100_000)))
    tracemalloc.start()
    count = sum(len(part) for _, part in bulk.shards(file, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_000
    assert peak < file.stat().st_size / 4


# ---------------------------------------------------------------- a shard


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two shards, one line of which is bad."""
    folder = tmp_path_factory.mktemp("made")
    prompts = ask(folder, "a tree", {"prompt": "a house", "seed": 5, "n": 2}, {"prompt": ""}, "山")
    return prompts, folder / "out", alone(prompts, folder / "out", shard=3)


def test_a_shard_has_each_image_with_its_row(made):
    _, out, done = made
    rows = list(bulk.read(out))
    assert [(row["line"], row["i"], row["seed"]) for row, _ in rows] == [
        (1, 0, 1), (2, 0, 5), (2, 1, 5), (4, 0, 4),
    ]  # fmt: skip
    assert [d.images for d in done] == [3, 1]
    assert [d.failures for d in done] == [0, 1]
    assert done[1].failed[0]["line"] == 3
    assert "empty" in done[1].failed[0]["error"]
    for row, png in rows:
        assert row["sha256"] == hashlib.sha256(png).hexdigest()
        assert np.asarray(Image.open(io.BytesIO(png))).shape == (64, 64, 3)


def test_an_image_is_that_of_generate_and_tells_how_it_was_made(made, tmp_path):
    _, out, _ = made
    row, png = list(bulk.read(out))[2]
    (tmp_path / "x.png").write_bytes(png)
    told = origin.read(tmp_path / "x.png")
    assert (told["prompt"], told["seed"], told["n"]) == ("a house", 5, 2)
    again = pipeline.generate("a house", 2, seed=5, **QUICK).images[row["i"]]
    difference = np.abs(again.astype(int) - np.asarray(Image.open(io.BytesIO(png))))
    assert difference.max() <= 1  # the rounding of the last grey level, in another batch


def test_the_headers_of_a_shard_tell_nothing_of_the_machine(made):
    with tarfile.open(made[1] / "shard-000000.tar") as tar:
        for entry in tar:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname) == (0, 0, 0, "")


def test_a_whole_shard_is_skipped_and_any_other_made_again_with_the_same_bytes(made):
    prompts, out, _ = made
    right = sums(out)
    assert [d.made for d in alone(prompts, out, shard=3)] == [0, 0]
    file = out / "shard-000000.tar"
    whole = file.read_bytes()
    for damaged in (b"", whole[:700], whole[: len(whole) // 2], whole.replace(b"IDAT", b"IDAX")):
        file.write_bytes(damaged)
        assert [d.made for d in alone(prompts, out, shard=3)] == [1, 0]
        assert sums(out) == right
    file.write_bytes((out / "shard-000001.tar").read_bytes())  # whole, and another one's
    assert [d.made for d in alone(prompts, out, shard=3)] == [1, 0]
    assert sums(out) == right


def test_a_damaged_shard_is_not_read(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made[1], out)
    whole = (out / "shard-000001.tar").read_bytes()
    (out / "shard-000001.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(files.DamagedFileError, match=r"shard-000001\.tar is not a whole shard"):
        list(bulk.read(out))


def test_a_prompt_that_breaks_the_drawing_fails_alone(made, monkeypatch, tmp_path):
    complete = pipeline.complete

    def breaks(prompt, *rest):
        if prompt == "a house":
            raise KeyError("no such house")
        return complete(prompt, *rest)

    monkeypatch.setattr(pipeline, "complete", breaks)
    done = alone(made[0], tmp_path / "out", shard=3)
    assert [d.failures for d in done] == [1, 1]
    assert done[0].failed[0]["error"] == "KeyError: 'no such house'"
    assert [row["line"] for row, _ in bulk.read(tmp_path / "out")] == [1, 4]


@pytest.mark.parametrize("error", [MemoryError("none left"), OSError("no disk")])
def test_what_is_no_prompt_s_fault_is_not_recorded_as_one(made, error, monkeypatch, tmp_path):
    def breaks(*_):
        raise error

    monkeypatch.setattr(pipeline, "complete", breaks)
    with pytest.raises(type(error), match=str(error)):
        alone(made[0], tmp_path / "out", shard=3)
    assert not sums(tmp_path / "out")


def test_a_full_disk_is_told_and_leaves_nothing_half(made, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"shard-000000\.tar cannot be written: No space left"):
        alone(made[0], tmp_path / "out", shard=3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def test_a_worker_with_another_version_or_without_the_disk_refuses(made, monkeypatch, tmp_path):
    prompts, out, _ = made
    run = bulk.identity(prompts, **QUICK, shard=3)
    with pytest.raises(bulk.ShardError, match="same disk"):
        bulk.make_shard(0, (), str(tmp_path), run)
    monkeypatch.setattr(bulk, "__version__", "0.0.1")
    with pytest.raises(bulk.ShardError, match="the same genlib"):
        bulk.make_shard(0, (), str(out), run)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "image-gpt"}, "a flow can"),
        ({"describe": "me"}, "'student', 'llm' or 'off'"),
        ({"shard": 0}, "shard = 0"),
        ({"speed": 9}, "no option"),
        ({"guidance": 2}, "guidance = 2: flow-shortcut is a shortcut"),
    ],
)
def test_bad_settings_are_refused(settings, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        bulk.identity(ask(tmp_path, "x"), **settings)


def test_a_file_that_asks_for_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="asks for nothing"):
        bulk.identity(ask(tmp_path, "", " "))


def many(folder, *more, **how):
    command = ("generate-many", "prompts.jsonl", "--shard", "2", "--describe", "off", "--json")
    return genlib(*command, "--option", "steps=1", *more, cwd=folder, **how)


def test_one_worker_and_two_make_the_same_bytes_and_bind_the_folder(tmp_path):
    ask(tmp_path, "a tree", {"prompt": "a house", "n": 2}, {"prompt": ""}, "山", "a ship", "rain")
    for workers in (1, 2):
        done = many(tmp_path, "-o", f"by-{workers}", "--workers", str(workers))
        assert done.returncode == 3, done.stderr  # a line failed
        record = json.loads(done.stdout)
        assert record["images"] == 6
        assert record["made"] == record["shards"] == 3
        assert [row["line"] for row in record["failed"]] == [3]
        assert "images/s" in done.stderr
    assert sums(tmp_path / "by-1") == sums(tmp_path / "by-2")
    assert len(list(bulk.read(tmp_path / "by-2"))) == 6
    (tmp_path / "by-2" / "shard-000001.tar").unlink()  # a worker that has drawn nothing before
    assert json.loads(many(tmp_path, "-o", "by-2", "--workers", "1").stdout)["made"] == 1
    assert sums(tmp_path / "by-1") == sums(tmp_path / "by-2")
    with filelock.FileLock(tmp_path / "by-1" / "writer.lock"):
        locked = many(tmp_path, "-o", "by-1", "--workers", "1")
    assert locked.returncode == 1
    assert "is being written by another process" in locked.stderr
    ask(tmp_path, "another prompt")
    other = many(tmp_path, "-o", "by-2", "--workers", "1")
    assert other.returncode == 1
    assert "holds a run with prompts = '6 lines, 6 images" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["-o", "/proc/out"], "/proc/out/run.json cannot be written"),
        (["-o", "prompts.jsonl"], "cannot be written"),
        (["-o", "out", "--workers", "0"], "workers = 0"),
        (
            ["-o", "out", "--scheduler", "tcp://127.0.0.1:1"],
            "No worker answers at tcp://127.0.0.1:1",
        ),
    ],
)
def test_what_cannot_work_is_told_in_one_sentence_before_the_work(more, told, tmp_path):
    ask(tmp_path, "a tree")
    found = many(tmp_path, *more)
    assert found.returncode == 1
    assert told in found.stderr
    assert "Traceback" not in found.stderr


def test_a_missing_dask_is_named_with_the_command_that_installs_it(tmp_path):
    ask(tmp_path, "a tree")
    found = many(tmp_path, "-o", "out", without=["distributed"])
    assert found.returncode == 1
    assert "pip install distributed" in found.stderr


def test_workers_listen_at_this_machine_alone():
    with bulk._connect(1, None) as client:
        assert client.submit(os.getpid).result() != os.getpid()
        me = psutil.Process()
        listening = [
            connection.laddr.ip
            for process in (me, *me.children(recursive=True))
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
def test_whatever_is_killed_nothing_is_lost_and_nothing_made_twice(tmp_path):
    program = Path(__file__).with_name("bulk_kills.py")
    command = [sys.executable, str(program), str(TIMES), "0", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == TIMES
    wrong = [o for o in outcomes if o["again"] or not (o["same"] and o["kept"] and o["tidy"])]
    assert not wrong, json.dumps(wrong, indent=1)
    assert {o["status"] for o in outcomes if o["kind"] == "worker"} <= {0}
    assert {o["status"] for o in outcomes if o["kind"] != "worker"} <= {-9}
