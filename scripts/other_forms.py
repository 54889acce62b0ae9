"""Write the book in other forms than a site, into _build/forms: PDF, ePub, Markdown.

Each is built by Sphinx from the same executed pages as the site (`make book` first, or they are
executed now). What they need of Sphinx is in `book/_ext/forms.py`.

    python scripts/other_forms.py pdf epub markdown
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import zipfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import chromium
import pikepdf
import typer
import yaml
from sync import pages

from genlib import files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from forms import NAME  # noqa: E402

BUILD = ROOT / "_build"
FORMS = BUILD / "forms"

# Chromium writes a heading of the outline twice where it moves it to the next page.
TWICE = re.compile(r"^(\d[\d.]* |)\1(.+)\2$")
# At the foot of each page: its number.
FOOT = (
    '<div style="width: 100%; text-align: center; font: 8px sans-serif">'
    '<span class="pageNumber"></span></div>'
)
# Wait for fonts, images and formulas.
SETTLED = """
const done = arguments[arguments.length - 1];
(async () => {
  await document.fonts.ready;
  while (!window.MathJax?.startup?.promise) await new Promise(wait => setTimeout(wait, 100));
  await window.MathJax.startup.promise;
  const images = [...document.images];
  images.forEach(image => image.loading = 'eager');
  await Promise.all(images.map(image => image.decode().catch(() => 0)));
  done(document.querySelectorAll('mjx-container').length);
})();
"""


def build(builder: str) -> Path:
    """Build the pages with one of Sphinx's builders; warnings are errors, as for the site."""
    # Of an old build Sphinx would keep pages that have not changed, and the list of references,
    # which has.
    shutil.rmtree(BUILD / builder, ignore_errors=True)
    how = ["custom", "--custom-builder", builder] if builder != "singlehtml" else [builder]
    command = ["jupyter-book", "build", ".", "--builder", *how]
    if builder == "markdown":  # it writes the text of a box or caption, and warns of each
        command += ["--quiet", "--quiet"]
    else:
        command += ["-W", "-n", "--keep-going", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True)
    return BUILD / builder


def put(path: Path, content: bytes) -> None:
    """Put a finished file in its place, so that none is ever half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, content)
    print(f"{path.relative_to(ROOT)}: {len(content) / 1e6:.1f} MB")


def epub() -> None:
    """Write the ePub, and say in its list of files which pages hold MathML, as ePub 3 asks."""
    built = build("epub") / f"{NAME}.epub"
    whole = io.BytesIO()
    with zipfile.ZipFile(built) as book, zipfile.ZipFile(whole, "w") as marked:
        with_formulas = {
            name
            for name in book.namelist()
            if name.endswith(".xhtml") and b"<math" in book.read(name)
        }

        def mark(match: re.Match[str]) -> str:
            found = ' properties="mathml"' if match[1] in with_formulas else ""
            return f'{found} href="{match[1]}"'

        for entry in book.infolist():  # the first one is `mimetype`, not compressed
            content = book.read(entry)
            if entry.filename.endswith(".opf"):
                content = re.sub(r' href="([^"]+)"', mark, content.decode()).encode()
            marked.writestr(entry, content)
    put(FORMS / f"{NAME}.epub", whole.getvalue())


def pdf() -> None:
    """Print all pages at once with Chromium: outline, page numbers, links inside the file."""
    folder = build("singlehtml")
    # Sphinx writes the one page where the first one lies, with addresses as if it lay at the top.
    (folder / "book.html").write_bytes((folder / "book" / "index.html").read_bytes())
    with chromium.served(folder) as address, chromium.opened() as driver:
        driver.get(f"{address}/book.html")
        print(f"{driver.execute_async_script(SETTLED)} formulas set")
        printed = driver.execute_cdp_cmd(
            "Page.printToPDF",
            {
                "displayHeaderFooter": True,
                "headerTemplate": "<span></span>",
                "footerTemplate": FOOT,
                "generateDocumentOutline": True,
                "generateTaggedPDF": True,
                "paperWidth": 8.27,  # inches: A4
                "paperHeight": 11.69,
                "printBackground": True,
                "scale": 0.72,
            },
        )
    whole = io.BytesIO()
    with pikepdf.open(io.BytesIO(base64.b64decode(printed["data"]))) as book:
        book.docinfo["/Title"] = "Image Generation at Speed"
        for entry in book.objects:
            if isinstance(entry, pikepdf.Dictionary) and {"/Title", "/Dest"} <= set(entry.keys()):
                entry.Title = TWICE.sub(r"\1\2", str(entry.Title).removesuffix("#"))
        book.save(whole, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    put(FORMS / f"{NAME}.pdf", whole.getvalue())


def markdown() -> None:
    """Write each page as Markdown, and llms.txt, which lists them in the order of the book."""
    folder = build("markdown")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    lines = [f"# {config['title']}", "", "> A book that runs, and the library that it teaches."]
    captions = {part["chapters"][0]["file"]: part["caption"] for part in toc["parts"]}
    for page in pages(toc):
        text = (folder / f"{page}.md").read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.M)
        assert title, f"{page} has no title"
        put(FORMS / f"{page}.md", text.encode())
        if page in captions:
            lines += ["", f"## {captions[page]}", ""]
        address = f"{config['html']['baseurl'].rstrip('/')}/{page}.md"
        lines.append(f"- [{title[1]}]({address})")
    put(FORMS / "llms.txt", ("\n".join(lines) + "\n").encode())


class Form(StrEnum):
    """What can be written."""

    PDF = "pdf"
    EPUB = "epub"
    MARKDOWN = "markdown"


def main(names: Annotated[list[Form], typer.Argument(help="Which of them to write.")]) -> None:
    """Writes the book in other forms than a site, into _build/forms."""
    forms = {Form.PDF: pdf, Form.EPUB: epub, Form.MARKDOWN: markdown}
    for name in names:
        forms[name]()


if __name__ == "__main__":
    typer.run(main)
