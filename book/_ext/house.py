"""What this book adds to its theme, in one small Sphinx extension.

* `{{ repository }}` in a page becomes the address in `_config.yml`, which stands nowhere else.
* The Colab button and the download open the paired notebook in `notebooks/`.
* `{cost-badge}` shows what a chapter cost to run when it was last recorded.
* `{predict}` asks for a guess before a measured number is shown.
* `{by}` names what backs a claim; `tests/test_claims.py` reads it, and no reader sees it.
* `{mermaid}` shows the drawing of a diagram that `scripts/diagrams.py` made of its source.
"""

import hashlib
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DIAGRAMS = Path(__file__).resolve().parents[1] / "_assets" / "diagrams"
MARK = re.compile(r"\{by\}`[^`]*`")
PLACEHOLDER = "{{ repository }}"
TIMES = Path(__file__).resolve().parents[2] / "benchmarks" / "chapter-times.json"


def fill_in_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the address in place of its placeholder, as `scripts/sync.py` does in the notebooks."""
    source[0] = source[0].replace(PLACEHOLDER, app.config.html_theme_options["repository_url"])


def drop_marks(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take out the marks of claims, as `scripts/sync.py` does in the notebooks."""
    source[0] = MARK.sub("", source[0])


def paired_notebook(app: Sphinx, docname: str) -> Path:
    """Where the notebook of a chapter lies."""
    return Path(app.srcdir) / "notebooks" / f"{Path(docname).name}.ipynb"


def point_buttons_at_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Send the theme's Colab and download buttons to the notebook without outputs."""
    notebook = paired_notebook(app, pagename)
    if not notebook.exists():
        return
    shutil.copyfile(notebook, Path(app.outdir) / "_sources" / f"{pagename}.ipynb")
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(
                    f"{pagename}.md", f"notebooks/{notebook.name}"
                )


def describe_cost(record: dict[str, Any]) -> list[str]:
    """One line of words for each fact of a chapter's recorded run."""
    seconds = record["seconds"]
    time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
    facts = [f"{time} on {record['cores']} CPU cores"]
    if "gpu_seconds" in record:
        facts.append(f"{record['gpu_seconds']:.0f} s on {record['gpu']}")
    if "peak_megabytes" in record:
        facts.append(f"{record['peak_megabytes'] / 1000:.1f} GB of memory")
    return [*facts, "no download", f"recorded {record['date']}"]


class CostBadge(SphinxDirective):
    """`{cost-badge}`: the cost of this chapter; nothing at all before its first recorded run."""

    def run(self) -> list[nodes.Node]:
        """Read the record and write one line of small labels."""
        self.env.note_dependency(str(TIMES))
        records = json.loads(TIMES.read_text()) if TIMES.exists() else {}
        record = records.get(Path(self.env.docname).name)
        if record is None:
            return []
        line = nodes.paragraph(classes=["cost-badge"])
        for fact in describe_cost(record):
            line += [nodes.inline("", fact), nodes.Text(" ")]
        return [line]


def diagram_name(page: str, source: str) -> str:
    """The file of a diagram's drawing: its page, and a hash of its source."""
    digest = hashlib.sha256(source.strip().encode()).hexdigest()[:8]
    return f"{page}-{digest}.svg"


class Diagram(SphinxDirective):
    """`{mermaid}`: a diagram, shown as the drawing that lies in the repository."""

    has_content = True
    option_spec: ClassVar = {"caption": directives.unchanged, "alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Look the drawing up; without one, the build fails with what to do."""
        name = diagram_name(Path(self.env.docname).name, "\n".join(self.content))
        if not (DIAGRAMS / name).is_file():
            raise self.error(f"No drawing {name} of this diagram. Run: python scripts/diagrams.py")
        if "alt" not in self.options:
            raise self.error("A diagram needs :alt:, words for those who cannot see it.")
        path = f"/book/_assets/diagrams/{name}"
        self.env.note_dependency(str(DIAGRAMS / name))
        figure = nodes.figure(classes=["diagram"], align="center")
        figure += nodes.image(uri=path, alt=self.options["alt"])
        if "caption" in self.options:
            words, messages = self.parse_inline(self.options["caption"], lineno=self.lineno)
            figure += [nodes.caption(self.options["caption"], "", *words), *messages]
        return [figure]


class Predict(SphinxDirective):
    """`{predict}`: a question with choices; the answer appears once one of them is chosen.

    The page needs no script for it: a style sheet shows the answer beside a checked button. Print,
    a book file and a browser without `:has()` show question, choices and answer as text.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"choices": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Write the question as text, the choices as buttons, and the answer as it is parsed."""
        choices = [choice.strip() for choice in self.options.get("choices", "").split(";")]
        if len(choices) < 3 or not all(choices):
            raise self.error("A prediction needs :choices:, at least three, between semicolons.")
        self.assert_has_content()
        group = f"predict-{self.env.new_serialno('predict')}"
        words, messages = self.parse_inline(self.arguments[0], lineno=self.lineno)
        box = nodes.container(classes=["predict"])
        box += nodes.paragraph("", "", nodes.strong("", "Predict first. "), *words)
        buttons = "".join(
            f'<label><input type="radio" name="{group}"> {html.escape(choice)}</label>'
            for choice in choices
        )
        box += nodes.raw(
            "", f"<fieldset><legend>Your guess</legend>{buttons}</fieldset>", format="html"
        )
        box += nodes.raw("", f"\\emph{{Choose: {', '.join(choices)}.}}", format="latex")
        box += nodes.raw("", '<div class="predict-answer" aria-live="polite">', format="html")
        box += self.parse_content_to_nodes()
        box += nodes.raw("", "</div>", format="html")
        return [box, *messages]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("cost-badge", CostBadge)
    app.add_directive("mermaid", Diagram)
    app.add_directive("predict", Predict)
    app.connect("source-read", fill_in_repository)
    app.connect("source-read", drop_marks)
    # After the theme (priority 500) has made its buttons.
    app.connect("html-page-context", point_buttons_at_notebook, priority=900)
    app.add_css_file("custom.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
