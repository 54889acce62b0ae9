"""The page "Reading genlib", and every passage of code that the book shows from its file."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, BOOK = ROOT / "genlib", ROOT / "book"
PAGE = (BOOK / "reading-genlib.md").read_text(encoding="utf-8")

sys.path.insert(0, str(ROOT / "scripts"))
import floors  # noqa: E402

LONGEST = 2_600  # lines of text, blank ones left out, comments and docstrings counted
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)\n```$", re.M | re.S)
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n(.*?)\n?```$", re.M | re.S)


def names_of_the_page() -> dict[str, Any]:
    """What the page defines to count its own walk: its names, without its experiments."""
    found: dict[str, Any] = {"ast": ast}
    for cell in CELL.findall(PAGE):
        code = re.sub(r"^:[^\n]*\n|\A---\n.*?^---\n", "", cell, flags=re.M | re.S)
        for node in ast.parse(code).body:
            names = {t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)}
            if isinstance(node, ast.FunctionDef) or "walk" in names:
                exec(compile(ast.Module([node], []), "page", "exec"), found)
    return found


NAMES = names_of_the_page()
WALK: tuple[str, ...] = NAMES["walk"]
SECTIONS = dict(re.findall(r"^## `(\S+)`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


class Shown(NamedTuple):
    """A passage that a page includes from a file."""

    page: str
    file: Path
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The object that is shown, or nothing, with its file."""
        return f"{self.file.name}:{self.options.get('pyobject', '')}"

    def lines(self) -> list[str]:
        """The lines, as Sphinx finds them; ValueError if it does not."""
        code = pytest.importorskip("sphinx.directives.code")
        config = SimpleNamespace(source_encoding="utf-8")
        return (
            code.LiteralIncludeReader(str(self.file), self.options, config).read()[0].splitlines()
        )


def shown(page: str, text: str) -> list[Shown]:
    """Every passage that a text includes, its options read as the book reads them."""
    code = pytest.importorskip("sphinx.directives.code")
    parse = pytest.importorskip("myst_parser.parsers.directives").parse_directive_text
    found = []
    for target, options in INCLUDE.findall(text):
        read = parse(code.LiteralInclude, target, options)
        assert not read.warnings, f"{page}, {target}: {read.warnings}"
        found.append(Shown(page, (BOOK / target).resolve(), read.options))
    return found


PASSAGES = [
    passage
    for path in sorted(BOOK.glob("*.md"))
    for passage in shown(path.stem, path.read_text(encoding="utf-8"))
]


# --- the walk -----------------------------------------------------------------------------------


def test_the_walk_can_be_read_in_an_afternoon() -> None:
    total = sum(NAMES["text_lines"]((LIBRARY / name).read_text("utf-8")) for name in WALK)
    assert total <= LONGEST


def test_the_page_counts_code_as_the_house_does() -> None:
    for path in floors.modules().values():
        assert NAMES["code_lines"](path.read_text("utf-8")) == floors.code_lines(path), path.name


def test_the_page_has_one_section_for_each_file_in_the_order_of_the_walk() -> None:
    assert tuple(SECTIONS) == WALK


def test_a_file_imports_only_what_was_read_before_or_is_named_as_plumbing() -> None:
    plumbing = set(re.findall(r"^\| `(\S+\.py)` \|", PAGE, re.M))
    files = floors.modules()
    used = set()
    for place, name in enumerate(WALK):
        modules = floors.imports(LIBRARY / name, set(files))
        needed = {files[module].relative_to(LIBRARY).as_posix() for module in modules}
        beyond = needed - set(WALK[:place])
        assert beyond <= plumbing, f"{name} imports {sorted(beyond - plumbing)}"
        used |= beyond
    assert used == plumbing, "the page names plumbing that nothing on the walk imports"


@pytest.mark.parametrize("name", WALK)
def test_a_section_shows_two_to_four_short_passages_and_an_experiment(name: str) -> None:
    passages = shown("reading-genlib", SECTIONS[name])
    assert 2 <= len(passages) <= 4
    assert {passage.file for passage in passages} == {LIBRARY / name}
    assert max(len(passage.lines()) for passage in passages) <= 15
    assert len(CELL.findall(SECTIONS[name])) == 1


def test_the_picture_shows_every_room_on_its_floor() -> None:
    picture = ElementTree.parse(BOOK / "_assets" / "images" / "house.svg")
    space = "{http://www.w3.org/2000/svg}"
    drawn = {
        text.text: int(group.attrib["id"].removeprefix("floor-"))
        for group in picture.iter(f"{space}g")
        for text in group.iter(f"{space}text")
        if text.get("class") == "room"
    }
    assert drawn == floors.floors(floors.rooms())
    alt = re.search(r"house\.svg\n.*?:alt: ([^\n]+)", PAGE, re.S)[1]
    assert not [room for room in drawn if not re.search(rf"\b{room}\b", alt)]


# --- the whole book -----------------------------------------------------------------------------


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda passage: f"{passage.page}-{passage.name}")
def test_what_a_page_shows_from_a_file_is_there(passage: Shown) -> None:
    assert any(line.strip() for line in passage.lines())


def test_the_book_shows_at_least_20_functions_in_full() -> None:
    cuts = {"lines", "start-at", "start-after", "end-at", "end-before"}
    whole = {
        (passage.file, passage.options["pyobject"])
        for passage in PASSAGES
        if "pyobject" in passage.options and not cuts & set(passage.options)
    }
    assert len(whole) >= 20
