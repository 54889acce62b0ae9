"""What this book adds to its theme, in one small Sphinx extension.

* `{{ repository }}` in a page becomes the address in `_config.yml`, which stands nowhere else.
* The buttons for Colab and Kaggle and the download open the paired notebook in `notebooks/`.
* A page's first paragraph is its description for search engines.
* The foot of each page tells its version, and the machine of each record that it shows.
* `{cost-badge}` shows what a chapter cost to run when it was last recorded.
* `{predict}` asks for a guess before a measured number is shown.
* `{by}` names what backs a claim; `tests/test_claims.py` reads it, and no reader sees it.
* `{mermaid}` shows the drawing of a diagram that `scripts/diagrams.py` made of its source.
"""

import functools
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from sync import MARK, PLACEHOLDER, cpu_cores  # noqa: E402

DIAGRAMS = ROOT / "book" / "_assets" / "diagrams"
RECORDS = ROOT / "genlib" / "records"
TIMES = ROOT / "benchmarks" / "chapter-times.json"


def derive_settings(app: Sphinx, config: Config) -> None:
    """Take the version from where the package has it, and what follows from the site's address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.version = config.release = project["version"]
    config.ogp_site_url = config.html_baseurl
    # A missing page is shown at any depth, so its links start at the site's own root.
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path


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
    """Send the theme's Colab and download buttons to the notebook without outputs; add Kaggle's."""
    notebook = paired_notebook(app, pagename)
    if app.builder.name != "html" or not notebook.exists():
        return
    shutil.copyfile(notebook, Path(app.outdir) / "_sources" / f"{pagename}.ipynb")
    theme = app.config.html_theme_options
    address = "/".join(
        (theme["repository_url"], "blob", theme["repository_branch"], "notebooks", notebook.name)
    )
    for group in context.get("header_buttons", []):
        for button in list(group.get("buttons", [])):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(
                    f"{pagename}.md", f"notebooks/{notebook.name}"
                )
                kaggle = {"text": "Kaggle", "tooltip": "Launch on Kaggle", "icon": "fab fa-kaggle"}
                kaggle["url"] = f"https://kaggle.com/kernels/welcome?src={address}"
                group["buttons"].append(button | kaggle)


def describe_page(app: Sphinx, doctree: nodes.document) -> None:
    """Take a page's first paragraph as what search engines and other sites say of it."""
    for paragraph in doctree.findall(nodes.paragraph):
        if "cost-badge" not in paragraph["classes"]:
            said = textwrap.shorten(paragraph.astext(), 200, placeholder=" …")
            doctree.insert(0, nodes.meta(name="description", content=said))
            app.env.metadata[app.env.docname]["og:description"] = said
            return


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """List all pages for search engines, those too that this build did not have to write again."""
    if exception is not None or app.builder.name != "html":
        return
    base = app.config.html_baseurl
    pages = [base + app.builder.get_target_uri(name) for name in sorted(app.env.found_docs)]
    rows = "".join(f"<url><loc>{html.escape(page)}</loc></url>\n" for page in pages)
    text = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}</urlset>\n'
    Path(app.outdir, "sitemap.xml").write_text(f'<?xml version="1.0"?>\n{text}', encoding="utf-8")


@functools.cache
def edition(root: Path, version: str) -> str:
    """Version, commit and day of what is built; outside a repository only the version."""
    command = ["git", "log", "-1", "--format=commit %h, %cs"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"Version {version}."
    return f"Version {version}, {found.stdout.strip()}."


def machines(source: str) -> list[str]:
    """One sentence for each record that a page loads: its name, machine and day."""
    told = []
    loaded = re.findall(r"records\.load\([\"']([\w-]+)[\"']\)|`record:([\w-]+)`", source)
    many = re.findall(r"records\.FOLDER\.glob\([\"']([\w*-]+)\.json[\"']\)", source)
    several = {path.stem for pattern in many for path in RECORDS.glob(f"{pattern}.json")}
    for name in sorted({a or b for a, b in loaded} | several):
        record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
        known = record["environment"]
        hardware = known["hardware"]
        on = hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}"
        told.append(f"Record {name}: {on}, {known['date'][:10]}.")
    return told


def write_foot(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Say at the end of a page which edition it is, and where what it shows was measured."""
    if doctree is None or app.builder.name != "html":
        return
    source = Path(app.env.doc2path(pagename)).read_text(encoding="utf-8")
    lines = [edition(Path(app.srcdir), app.config.version), *machines(source)]
    context["theme_extra_footer"] += "<br>" + html.escape(" ".join(lines))


def describe_cost(record: dict[str, Any]) -> list[str]:
    """One line of words for each fact of a chapter's recorded run."""
    seconds = record["seconds"]
    time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
    facts = [f"{time} on {cpu_cores(record['cores'])}"]
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
            f'<label><input type="radio" name="{group}"/> {html.escape(choice)}</label>'
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
    app.connect("config-inited", derive_settings)
    app.connect("source-read", fill_in_repository)
    app.connect("source-read", drop_marks)
    app.connect("doctree-read", describe_page)
    app.connect("build-finished", write_sitemap)
    # After the theme (priority 500) has made its buttons.
    app.connect("html-page-context", point_buttons_at_notebook, priority=900)
    app.connect("html-page-context", write_foot)
    app.add_css_file("custom.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
