"""Nothing half-written, nothing overwritten unasked, and a place that is tried before the work."""

import errno
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlib import files, origin, plot

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


# ---------------------------------------------------------------- names and formats


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", ".png"),
        ("a.PNG", ".png"),
        ("v1.2/a.jpg", ".jpg"),
        ("a.JPEG", ".jpeg"),
        ("a.b.webp", ".webp"),
        (".png", ".png"),
        ("out", ""),
        ("out/", ""),
        ("out.v2/", ""),
        ("x.jpg/", ""),
        ("v1.2/out", ""),
        (".", ""),
        ("..", ""),
        ("./-", ""),
    ],
)
def test_the_ending_says_what_is_written(name, found):
    assert files.ending(name) == found


@pytest.mark.parametrize(
    "name", ["x.gif", "x.", "x.png ", "x.pngs", "out.v2", ".hidden", "a.b.txt"]
)
def test_another_ending_is_refused_with_the_list(name):
    with pytest.raises(ValueError, match=r"\.png, \.jpg, \.jpeg, \.webp.*put a / behind"):
        files.ending(name)


def test_a_dash_is_no_name():
    with pytest.raises(ValueError, match=r"standard output.*\./-"):
        files.ending("-")


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("-", "nothing is written to standard output. Give a name for the run"),
        ("x.jpg", "ends in '.jpg', as an image does. Give another name for the run"),
        ("a.b/x.PNG", "ends in '.PNG', as an image does"),
        (Path("x.webp"), "ends in '.webp', as an image does"),
    ],
)
def test_what_is_no_image_has_no_name_of_one(name, told, folder):
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        files.check_name(name, of="the run", folder=folder)
    slash = folder and "ends in" in told
    assert str(error.value).endswith(", or put a / behind it." if slash else "the run.")


def test_what_is_no_image_may_have_any_other_name():
    for name in ("run", "./-", "gan-0.5", "x.tar", "flow.v2/", Path("a/b"), ".", "..", "x.jpg/"):
        files.check_name(name, of="the run", folder=True)
    for name in ("b.json", "./-", "b", Path("a.txt")):
        files.check_name(name, of="the record")
    with pytest.raises(ValueError, match=r"'runs/' is a folder's name\. Give a file's"):
        files.check_name("runs/", of="the record")


@pytest.mark.parametrize(
    ("ending", "kind", "most"),
    [(".png", "PNG", 0), (".webp", "WEBP", 0), (".jpg", "JPEG", 16), (".jpeg", "JPEG", 16)],
)
def test_an_ending_is_written_as_that_format(ending, kind, most, tmp_path):
    smooth = np.linspace(0, 250, 64 * 64 * 3).reshape(1, 64, 64, 3).astype(np.uint8)
    plot.save_sheet(smooth, tmp_path / f"x{ending}", overwrite=False)
    with Image.open(tmp_path / f"x{ending}") as image:
        assert image.format == kind
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels - plot.sheet(smooth, gap=2)).max() <= most


@pytest.mark.parametrize(("ending", "most"), [(".webp", 16_383), (".jpg", 65_500)])
def test_a_format_takes_as_many_pixels_as_it_has_room_for(ending, most):
    """The limit is the encoder's own: with one pixel more Pillow would fail, after the work."""
    for shape in ((1, most), (most, 1)):
        assert files.to_image(np.zeros(shape, np.uint8), ending)
    told = f"{most + 1:,} × 1 pixels: \\{ending} has room for {most:,} × {most:,}. Write .png"
    with pytest.raises(ValueError, match=told):
        files.to_image(np.zeros((1, most + 1), np.uint8), ending)
    with pytest.raises(Exception, match=r"."):  # whatever the encoder says
        Image.fromarray(np.zeros((1, most + 1), np.uint8)).save(io.BytesIO(), files.FORMATS[ending])
    files.check_size(10**6, 10**6, ".png")


@pytest.mark.parametrize("n", [1, 8, 9, 64, 250])
def test_a_sheet_is_refused_by_the_size_that_it_would_have(n, monkeypatch, tmp_path):
    images = np.zeros((n, 5, 7, 1), np.uint8)
    height, width, _ = plot.sheet(images, gap=plot.GAP).shape
    for most, fits in ((max(height, width), True), (max(height, width) - 1, False)):
        monkeypatch.setattr(files, "LONGEST", {"WEBP": most})
        if fits:
            plot.check_sheet(n, 5, 7, tmp_path / "x.webp")
            plot.save_sheet(images, tmp_path / "x.webp")
            continue
        for ask in (plot.check_sheet, lambda n, h, w, path: plot.save_sheet(images, path)):
            with pytest.raises(ValueError, match="has room for"):
                ask(n, 5, 7, tmp_path / "y.webp")
    assert listing(tmp_path) == ["x.webp"]


# ---------------------------------------------------------------- nothing is overwritten unasked


def test_what_exists_is_overwritten_only_when_asked(tmp_path):
    file = tmp_path / "a.bin"
    files.write_atomic(file, b"first", overwrite=False)
    for check in (files.check_file, lambda *a, **k: files.write_atomic(*a, b"second", **k)):
        with pytest.raises(FileExistsError, match=r"a\.bin exists.*--overwrite"):
            check(file, overwrite=False)
    assert file.read_bytes() == b"first"
    files.check_file(file)
    files.write_atomic(file, b"second")
    assert file.read_bytes() == b"second"
    assert listing(tmp_path) == ["a.bin"]


def test_what_another_process_wrote_meanwhile_stays(tmp_path, monkeypatch):
    """Where the file system can give no second name, as FAT, the look before the rename counts."""
    file = tmp_path / "a.bin"

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    for link in (os.link, no_links):
        monkeypatch.setattr(os, "link", link)
        file.write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            files.write_atomic(file, b"mine", overwrite=False)
        assert file.read_bytes() == b"theirs"
        file.unlink()
        files.write_atomic(file, b"mine", overwrite=False)
        assert file.read_bytes() == b"mine"
    assert listing(tmp_path) == ["a.bin"]


def test_a_free_name_has_the_next_number(tmp_path):
    for name in ("images.png", "images-2.png", "images-3.png"):
        found = files.free_name(tmp_path / "images.png")
        assert found.name == name
        found.symlink_to("nowhere")  # a broken link is something, too


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_no_file_and_stays(tmp_path, overwrite):
    (tmp_path / "a.json" / "deep").mkdir(parents=True)
    (tmp_path / "link.json").symlink_to("a.json")
    for name in ("a.json", "link.json"):
        for write in (files.check_file, lambda p, **k: files.write_atomic(p, b"x", **k)):
            with pytest.raises(IsADirectoryError, match=r"a\.json is a folder\. Give .* move it"):
                write(tmp_path / name, overwrite=overwrite)
    assert listing(tmp_path) == ["a.json", "deep", "link.json"]


# ---------------------------------------------------------------- links


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "target.png").write_bytes(b"old")
    link = tmp_path / "link.png"
    link.symlink_to("far/target.png")
    with pytest.raises(FileExistsError):
        files.write_atomic(link, b"new", overwrite=False)
    files.write_atomic(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "target.png").read_bytes() == b"new"

    broken = tmp_path / "broken.png"
    broken.symlink_to("far/new.png")
    files.check_file(broken, overwrite=False)
    files.write_atomic(broken, b"new", overwrite=False)
    assert broken.is_symlink()
    assert (tmp_path / "far" / "new.png").read_bytes() == b"new"

    (tmp_path / "far" / "empty").mkdir()
    folder = tmp_path / "folder"
    folder.symlink_to("far/empty")
    files.check_folder(folder)
    files.write_folder(folder, {"a": b"whole"})
    assert folder.is_symlink()
    assert listing(tmp_path / "far" / "empty") == ["a"]


def test_a_circle_of_links_is_told_before_the_work(tmp_path):
    for one, other in (("a.png", "b.png"), ("b.png", "a.png")):
        (tmp_path / one).symlink_to(other)
    with pytest.raises(OSError, match=r"exists|cannot be written"):
        files.check_file(tmp_path / "a.png", overwrite=False)


# ---------------------------------------------------------------- a place is tried before the work


@pytest.mark.parametrize("check", [files.check_file, files.check_folder])
def test_a_trial_leaves_nothing_behind(check, tmp_path):
    check(tmp_path / "a" / "b" / "c")
    assert listing(tmp_path) == []
    (tmp_path / "a").mkdir()
    check(tmp_path / "a" / "b" / "c")
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize("check", [files.check_file, files.check_folder])
@pytest.mark.parametrize(
    "name",
    ["x" * 256, "夕" * 86, "file/x", "file/deep/x", "/proc/x", "/dev/full/x", "x" * 300 + "/y"],
    ids=["long", "long Chinese", "file", "deep", "proc", "device", "long folder"],
)
def test_what_cannot_be_written_is_told_before_the_work(check, name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as error:
        check(tmp_path / name)
    assert ".genlib" not in str(error.value)
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "夕" * 83 + ".png", "🌅" * 62 + ".png"])
def test_the_longest_names_are_tried_and_written(name, tmp_path):
    files.check_file(tmp_path / name)
    files.write_atomic(tmp_path / name, b"whole")
    assert listing(tmp_path) == [name]
    folder = name.removesuffix(".png")
    files.check_folder(tmp_path / folder)
    files.write_folder(tmp_path / folder, {"a": b"whole"})


def test_an_empty_folder_that_cannot_be_replaced_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for here in (".", "../" + tmp_path.name):
        with pytest.raises(FileExistsError, match="is where you are"):
            files.check_folder(here)

    def busy(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os, "replace", busy)  # what the system says of a mount point
    with pytest.raises(OSError, match=r"mounted cannot be written: Device or resource busy"):
        files.check_folder(tmp_path / "mounted")
    assert listing(tmp_path) == ["mounted"]


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"a\.png cannot be written: No space left"):
        files.check_file(tmp_path / "a.png")
    assert listing(tmp_path) == []


def test_an_empty_folder_keeps_its_mode(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    files.write_folder(tmp_path / "shared", {"a": b"whole"})
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o2775


# ---------------------------------------------------------------- after a kill


def killed(write):
    """Runs a writer in a process that is gone when its temporary file is whole."""
    if (child := os.fork()) == 0:
        os.replace = os.link = lambda *_: os._exit(9)
        write()
    os.waitpid(child, 0)


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    file, folder = tmp_path / "a.png", tmp_path / "out"
    for overwrite in (True, False):
        killed(lambda over=overwrite: files.write_atomic(file, b"half", overwrite=over))
    killed(lambda: files.write_folder(folder, {"0.png": b"half"}))
    # A file's, which is the second one's; a folder's, and the image in it.
    assert len(listing(tmp_path)) == 3
    files.write_atomic(file, b"whole")
    files.write_folder(folder, {"0.png": b"whole"})
    assert listing(tmp_path) == ["0.png", "a.png", "out"]


def test_a_living_writer_s_file_is_no_leftover(tmp_path):
    living = files._neighbour(tmp_path / "a.png")
    living.write_bytes(b"in the making")
    foreign = tmp_path / ".a.png.1.abcd0000.genlib"
    foreign.write_bytes(b"another machine's")
    files.write_atomic(tmp_path / "a.png", b"whole")
    assert listing(tmp_path) == sorted([living.name, foreign.name, "a.png"])
    assert not files.is_leftover(living)


# ---------------------------------------------------------------- what an image tells


RECORD = {
    "prompt": "",
    "n": 4,
    "seed": 2**64 - 1,
    "method": "flow-shortcut",
    "describe": "student",
    "best_of": 2,
    "options": {"steps": 4, "guidance": 1.0, "xla": False, "solver": "euler"},
}
PROMPTS = [
    "a sunset",
    "生成一张夕阳",
    "-5 °C; rm -rf ~",
    "it's $HOME `x` \\ \"",
    "two\nlines\x1b[2J🌅",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_png_tells_its_record_and_the_command(prompt, tmp_path):
    record = {**RECORD, "prompt": prompt}
    plot.save_sheet(IMAGE, tmp_path / "x.png", origin.texts("generate", record))
    told = origin.read(tmp_path / "x.png")
    assert {key: told[key] for key in record} == record
    command = origin.command(told, "again.png")
    assert command.isprintable()
    if "\x1b" not in prompt:  # which $'…' says, a way of bash and zsh
        words = shlex.split(command)
    else:
        shell = f"printf '%s\\0' {command}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
        words = done.stdout.split("\0")[:-1]
    assert words[:2] == ["genlib", "generate"]
    assert words[-4:] == ["-o", "again.png", "--", prompt]
    assert {"--best-of", "steps=4", 'solver="euler"', "xla=false"} <= set(words)


def test_an_image_that_tells_nothing_or_half_is_one_sentence(tmp_path):
    file = tmp_path / "x.png"
    plot.save_sheet(IMAGE, file)
    with pytest.raises(files.DamagedFileError, match="does not tell how it was made"):
        origin.read(file)
    for key, value in {"n": "many", "options": "[", "seed": "1.5", "prompt": None}.items():
        told = origin.texts("generate", RECORD)
        told = {k: v for k, v in (told | {key: value}).items() if v is not None}
        file.write_bytes(files.to_png(IMAGE[0], text=told))
        with pytest.raises(files.DamagedFileError, match=f"in part how it was made: {key}"):
            origin.read(file)
    for content in (b"", b"text", files.to_png(IMAGE[0])[:60]):
        file.write_bytes(content)
        with pytest.raises(files.DamagedFileError, match="not a whole image"):
            origin.read(file)
    with pytest.raises(FileNotFoundError):
        origin.read(tmp_path / "nowhere.png")


def test_files_and_origin_need_no_framework():
    code = "import sys; from genlib import files, origin, ranges; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
