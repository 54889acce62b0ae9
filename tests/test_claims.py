"""What compares speed, size, cost or quality names what backs it: a number, a source, an assertion.

A sentence is backed by a glued number, a citation or a link that stands in it. Elsewhere a mark
that no reader sees follows the claim: {by}`assert:NAME` (a line of a cell of this page that ends in
`# claim: NAME`), {by}`record:NAME` (a file of genlib/records), {by}`test:NAME` (a test that fails
if the claim is false), {by}`cite:KEY` (a source that the page cites in another sentence), or
{by}`definition` (it says what a word or a condition means, or what comes, and claims nothing).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from test_text import BIBLIOGRAPHY, CODE_INFO, FENCE, cited

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
sys.path[:0] = [str(BOOK / "_ext"), str(ROOT / "scripts")]
import house  # noqa: E402
import sync  # noqa: E402
from sync import MARK  # noqa: E402

CHAPTERS = [
    Path(chapter["file"]).name
    for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    if part["caption"] in ("Speed", "Applications", "Outlook")
    for chapter in part["chapters"]
]
OTHERS = ("index", "introduction", "deciders", "llm-guided-generation")
PAGES = [*OTHERS, *CHAPTERS]
by_page = pytest.mark.parametrize("page", PAGES)

COUNTS = r"(?!many|much|often)"  # "four times as many" compares numbers, not speed or size
COMPARES = re.compile(
    r"\b(?:fast|slow|quick|cheap|dear)(?:er|est)\b|\b(?:smaller|better|worse|expensive)\b"
    rf"|\bspeed-?ups?\b|\b(?:times|twice) as {COUNTS}|\btimes (?:less|fewer)\b"
    r"|\bas (?:fast|good|quick|cheap|small) as\b|\b(?:halve|double)[sd]?\b|\bgains?\b"
    r"|\bpays?\b(?! it\b)|\bsaves\b|\bsaved? (?:\w+ )?(?:time|memory|work|operations|bytes)\b"
    r"|\bcosts? (?:more|less|nothing|hardly|little|no|much|as much)\b"
    r"|\b(?:half|quarter|third|sixth) of (?:the|its) (?:bytes|time|work|weights)\b",
    re.I,
)
BACKED = re.compile(r"\{(?:glue\b|glue:\w+|cite(?::\w+)?|eq|ref|numref|doc)\}`")
GLUED = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)[^`]*`")
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)\n```$", re.M | re.S)
CLAIM = re.compile(r"#.*\bclaim: ([a-z0-9-]+)$")


def read(page: str) -> str:
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- sentences


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The text without code, mathematics, headings, aims and exercises: (first line, paragraph)."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    def blank_box(match: re.Match[str]) -> str:  # the last line of such a box has its sources
        sourced = "{admonition} Your model" in match["info"] and re.search(
            "^Sources?:", match["body"], re.M
        )
        return blank(match) if sourced else match[0]

    text = FENCE.sub(blank_box, re.sub(r"\A---\n.*?\n---\n|<!--.*?-->", blank, text, flags=re.S))
    text = re.sub(r"^## Exercises$.*?(?=^## |\Z)", blank, text, flags=re.M | re.S)
    text = re.sub(
        r"^\*\*You will be able to\*\*.*?(?=^\*\*You need)", blank, text, flags=re.M | re.S
    )
    # A sentence that ends in a formula has its reason there.
    text = re.sub(r"(?<=[^\s.?!$])(?=\n\n\$\$\n)", " {eq}`below`", text)
    fences: list[str] = []
    skipped = mathematics = False
    first, lines, lead = 0, list[str](), ""
    for number, line in enumerate([*text.split("\n"), ""], 1):
        fence = re.match(r"(`{3,}|~{3,}|:{3,})(.*)$", line)
        if fence and fences and fence[1] == fences[-1] and not fence[2].strip():
            fences.pop()
            skipped = False
        elif fence and not skipped:
            fences.append(fence[1])
            skipped = bool(CODE_INFO.search(fence[2].strip()))
        mathematics ^= line.count("$$") % 2 == 1
        aside = fence or skipped or mathematics or re.match(r"\$\$|#+ |\(\S+\)=$|%|:[a-z-]+:", line)
        starts = re.match(r"\s*(?:-|\*|\d+\.|\||:) ?", line) and not line.startswith("**")
        if (aside or starts or not line.strip()) and lines:
            paragraph = "\n".join(lines)
            if paragraph[0] != "|":
                lead = paragraph
            elif lead.endswith(":"):  # what backs the sentence before a table backs the table
                paragraph += "".join(f"{{by}}`{mark}`" for mark in MARK.findall(lead))
            yield first, paragraph
            lines = []
        if not aside and line.strip():
            first = first if lines else number
            lines.append(line)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence of a page with its line."""
    for first, paragraph in paragraphs(text):
        start = 0
        for end in re.finditer(r"(?<=[.?!])[)\"*]*(?=\s+[A-Z`{*\"(]|\s*\Z)", paragraph):
            found = paragraph[start : end.end()]
            line = first + paragraph[:start].count("\n") + len(found) - len(found.lstrip("\n"))
            yield line, " ".join(found.split())
            start = end.end()
        if paragraph[start:].strip():
            yield first + paragraph[:start].count("\n"), " ".join(paragraph[start:].split())


def compares(sentence: str) -> bool:
    """Whether a sentence claims that something is faster, smaller, cheaper or better."""
    words = re.sub(r"(?<!\})`[^`]*`|\{by\}`[^`]*`", "", sentence)
    return bool(COMPARES.search(words)) and not words.rstrip(")*").endswith("?")


def unbacked(text: str) -> list[str]:
    """The claims of a page that name nothing, with their lines."""
    return [
        f"{line}: {sentence}"
        for line, sentence in sentences(text)
        if compares(sentence) and not BACKED.search(sentence) and not MARK.search(sentence)
    ]


# ---------------------------------------------------------------- what backs them


def code(text: str) -> Iterator[str]:
    """The code of each cell, without its options."""
    for cell in CELL.findall(text):
        yield re.sub(r"\A---\n.*?^---\n|\A(?::[^\n]*\n)+", "", cell, flags=re.M | re.S)


def asserted(text: str) -> list[str]:
    """The names of the claims that assertions in the cells of a page carry."""
    found = []
    for cell in code(text):
        lines = cell.split("\n")
        marks = {n: m[1] for n, line in enumerate(lines, 1) if (m := CLAIM.search(line))}
        if not marks:
            continue
        checks = [
            range(node.lineno, (node.end_lineno or node.lineno) + 1)
            for node in ast.walk(ast.parse(cell))
            if isinstance(node, ast.Assert)
            or (isinstance(node, ast.Call) and "assert_" in ast.unparse(node.func))
        ]
        found += [name for n, name in marks.items() if any(n in lines for lines in checks)]
    return found


@cache
def glued() -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """What the cells of the book glue: the keys, and patterns of keys that are put together."""
    cells = [cell for page in BOOK.glob("*.md") for cell in code(page.read_text("utf-8"))]
    calls = re.findall(r"\bglue\(\s*(f?)\"([^\"]+)\"", "\n".join(cells))
    plain = frozenset(key for formatted, key in calls if not formatted)
    for cell in cells:
        if "glue(key," in cell:  # in a loop over what the cell names
            plain |= frozenset(re.findall(r"\"([^\"]+)\"", cell))
    parts = [re.split(r"\{[^}]*\}", key) for formatted, key in calls if formatted]
    return plain, tuple(re.compile(".+".join(map(re.escape, part))) for part in parts)


@cache
def names_of_tests() -> frozenset[str]:
    """The names of all tests."""
    files = (ROOT / "tests").glob("test_*.py")
    return frozenset(
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.M)
    )


def missing(mark: str, text: str) -> bool:
    """Whether a mark names nothing that is there."""
    kind, _, name = mark.partition(":")
    match kind:
        case "assert":
            return name not in asserted(text)
        case "record":
            return not (ROOT / "genlib" / "records" / f"{name}.json").is_file()
        case "test":
            return name not in names_of_tests()
        case "cite":
            return name not in cited(text) & set(BIBLIOGRAPHY)
        case _:
            return mark != "definition"


# ---------------------------------------------------------------- tests


@by_page
def test_each_comparing_sentence_names_what_backs_it(page):
    found = unbacked(read(page))
    assert not found, "\n".join(["back it, weaken it or cut it; this file says how:", *found])


@by_page
def test_each_mark_names_something(page):
    text = read(page)
    assert not [mark for mark in MARK.findall(text) if missing(mark, text)]


@by_page
def test_each_asserted_claim_is_made_in_the_text_once(page):
    text = read(page)
    named = [mark.removeprefix("assert:") for mark in MARK.findall(text) if mark[:7] == "assert:"]
    claims = [
        found[1]
        for cell in code(text)
        for line in cell.split("\n")
        if (found := CLAIM.search(line))
    ]
    assert sorted(claims) == sorted(asserted(text)), "a claim's comment stands at an assertion"
    assert len(set(claims)) == len(claims)
    assert set(claims) <= set(named), "no sentence names this claim"


@by_page
def test_each_glued_number_is_glued_by_a_cell(page):
    plain, patterns = glued()
    keys = set(GLUED.findall(read(page)))
    assert not [k for k in keys - plain if not any(p.fullmatch(k) for p in patterns)]


@pytest.mark.parametrize(
    "text",
    [
        "The student is faster.",
        "Text.\n\n- It costs\n  less than that.",
        "::::{grid} 1\n:gutter: 3\n\n:::{grid-item}\nThe cache saves time.\n:::\n::::",
        "```{predict} How fast?\n:choices: 1; 2; 3\n\nIt is twice as fast.\n```",
        "The first is {term}`faster <speed>` (and the second is not).",
    ],
)
def test_a_bare_claim_is_found(text):
    assert len(unbacked(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Is the student faster?",
        "# It is faster\n\n(it-is-faster)=\n\n```python\nprint('It is faster.')\n```",
        "It is faster{by}`assert:student`.",
        "It is faster, see {doc}`frontier`.",
        "$$\nfaster\n$$\n",
        "## Exercises\n\n**1.** The second is faster.\n",
        "**You will be able to**\n\n- say what is faster;\n\n**You need** nothing.",
        "```{predict} How many times as fast?\n:choices: 1; 2; 3\n\nLook.\n```",
        "Look at `better`.",
    ],
)
def test_what_claims_nothing_or_names_its_source_passes(text):
    assert not unbacked(text)


def test_a_line_is_counted_from_the_top_of_the_page():
    text = "---\na: b\n---\n\n# T\n\nOne. Two.\nIt is\nfaster. So\nit is slower.\n"
    assert unbacked(text) == ["8: It is faster.", "9: So it is slower."]


def test_only_an_assertion_carries_a_claim():
    lines = (
        *("```{code-cell} ipython3", ":tags: [x]", "", "assert all(", "    a)  # claim: one"),
        *("b = 1  # claim: two", "bench.assert_faster(c)  # claim: three", "```\n"),
    )
    assert asserted("\n".join(lines)) == ["one", "three"]


def test_a_mark_that_names_nothing_is_found():
    marks = ("assert:no-such", "record:no-such", "test:no_such", "cite:no-such", "said", "")
    assert all(missing(mark, "Text.") for mark in marks)


def test_no_mark_reaches_a_reader():
    source = ["A claim{by}`record:ladder`. Next."]
    house.drop_marks(None, "page", source)
    assert source == ["A claim. Next."]
    assert "{by}" not in sync.notebook(sync.FRONT_MATTER + "\nA claim{by}`record:ladder`. Next.\n")
