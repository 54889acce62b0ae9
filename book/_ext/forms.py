"""The book in other forms than a site: what its ePub, PDF and Markdown need beside the pages.

* `make epub`: formulas become MathML, which readers of books draw without scripts.
* `make pdf`: all pages on one (Sphinx's `singlehtml`), which `scripts/other_forms.py` prints.
* `make markdown`: each page as Markdown beside the site's, and `llms.txt`, which lists them.
* `{forms}` in a page links those files, if they lie beside the site.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from myst_nb.sphinx_ import HideInputCells
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

# What the converter to MathML calls by other names.
DIALECT = {r"{aligned}": r"{align*}"}
OF_A_SITE = ("_theme", "opengraph", "notfound")
BUILD = Path(__file__).resolve().parents[2] / "_build"
NAME = "image-generation-at-speed"
# The name of each file, what readers call it, and what it is for.
FORMS = {
    f"{NAME}.pdf": ("PDF", "to print"),
    f"{NAME}.epub": ("ePub", "for a reader of books"),
    "llms.txt": ("Markdown", "for a language model"),
}


def mathml(formula: str, display: str) -> str:
    """One formula in LaTeX as MathML.

    Raises:
        ValueError: if it holds something that the converter does not know.
    """
    for ours, its_own in DIALECT.items():
        formula = formula.replace(ours, its_own)
    if r"\\" in formula and r"\begin" not in formula:
        formula = rf"\begin{{align*}}{formula}\end{{align*}}"
    made = latex2mathml.converter.convert(formula, display=display)
    if unknown := re.search(r">(&|\\[a-zA-Z]+)<", made):
        raise ValueError(f"{unknown[1]} cannot be written as MathML; it is in {formula}")
    return made


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula of its own, with its number."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    self.body.append(mathml(node.astext(), "block"))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def for_the_builder(app: Sphinx) -> None:
    """Set what one of the forms asks for, once it is known which is built."""
    if app.builder.name != "html":
        app.registry.post_transforms.remove(HideInputCells)  # nothing can be unfolded there
    if app.builder.name == "singlehtml":
        app.set_html_assets_policy("always")  # its one page is named after one without formulas
    if app.builder.name == "epub":
        app.config.html_math_renderer = "mathml"
        app.config.html_copy_source = False
        app.config.epub_identifier = app.config.epub_uid
        # Of the book's own files only the style: scripts run in no reader of books.
        own = Path(app.srcdir) / "book" / "_assets"
        app.config.html_static_path = [
            str(own / "custom.css") if (Path(app.srcdir) / path) == own else path
            for path in app.config.html_static_path
        ]
        # Nor have the buttons of the site's theme, and what a site tells to other sites.
        for event in ("html-page-context", "html-collect-pages", "build-finished"):
            listeners = app.events.listeners[event]
            listeners[:] = [
                one
                for one in listeners
                if not any(name in one.handler.__module__ for name in OF_A_SITE)
            ]


def leave_out(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Leave out what only a notebook or a browser needs."""
    if app.builder.name == "html":
        return
    for said in list(doctree.findall(nodes.meta)):
        said.parent.remove(said)  # for search engines
    for cell in list(doctree.findall(nodes.container)):
        if {"tag_set-up", "forms"} & set(cell["classes"]):  # installs genlib on Colab; links here
            cell.parent.remove(cell)
    for script in list(doctree.findall(nodes.raw)):
        if "<script" in script.astext():
            page = Path(script.source or docname).stem
            address = f"{app.config.html_baseurl.rstrip('/')}/book/{page}.html"
            said = nodes.paragraph("", "", nodes.emphasis("", "On the site this part draws: "))
            said += nodes.reference("", address, refuri=address)
            script.replace_self(said)


def keep_own_styles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave the styles of the site's buttons out of the ePub."""
    if app.builder.name == "epub":
        kept = ("custom.css", "epub.css", "pygments.css")
        context["css_files"] = [
            file for file in context["css_files"] if Path(str(file.filename)).name in kept
        ]


class Forms(SphinxDirective):
    """`{forms}`: links to the book's other forms; which are missing is said, with the command."""

    def run(self) -> list[nodes.Node]:
        """Write one line for each form."""
        items = nodes.bullet_list()
        for file, (name, purpose) in FORMS.items():
            path = BUILD / "forms" / file
            self.env.note_dependency(str(path))
            line = nodes.paragraph()
            if path.is_file():
                size = path.stat().st_size / 1e6
                line += nodes.reference("", name, refuri=f"../{file}", internal=False)
                line += nodes.Text(f", {purpose} ({size:.1f} MB)")
            else:
                line += nodes.Text(f"{name}, {purpose}: ")
                line += nodes.literal("", f"make {name.lower()}")
            items += nodes.list_item("", line)
        return [nodes.container("", items, classes=["forms"])]


def lay_beside(app: Sphinx, exception: Exception | None) -> None:
    """Put the forms that were built beside the pages of the site."""
    folder = BUILD / "forms"
    if exception is None and app.builder.name == "html" and folder.is_dir():
        shutil.copytree(folder, app.outdir, dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("forms", Forms)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None)
    )
    app.connect("builder-inited", for_the_builder, priority=900)  # after all extensions
    app.connect("doctree-resolved", leave_out)
    app.connect("html-page-context", keep_own_styles)
    app.connect("build-finished", lay_beside)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
