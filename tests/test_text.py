"""What holds for the text of the book: citations, terms, links, symbols, and no typed speeds."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from pybtex.database import parse_string

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGES = sorted(p for p in BOOK.rglob("*.md") if not any(q.startswith("_") for q in p.parts[-2:]))
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)

FENCE = re.compile(
    r"^(?P<ticks>`{3,}|~{3,}|:{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=ticks)[ ]*$", re.M | re.S
)
CODE_INFO = re.compile(r"\{(code-cell|code|code-block|mermaid|literalinclude|raw)\}|^[a-z]+$|^$")


def without_code(text: str) -> str:
    """The page without front matter, code and comments; the text of other directives stays."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)

    def keep(match: re.Match[str]) -> str:
        if CODE_INFO.search(match["info"].strip()):
            return "\n"
        return f"\n{{{match['info']}}}\n" + FENCE.sub(keep, match["body"])

    return FENCE.sub(keep, text)


def mathematics(text: str) -> list[str]:
    """Every formula of a page: inline, display and in math directives."""
    math_blocks = [
        re.sub(r"^:\w+:.*$", "", m["body"], flags=re.M)
        for m in FENCE.finditer(text)
        if "{math}" in m["info"]
    ]
    text = without_code(re.sub(r"^(`{3,})\{math\}.*?^\1[ ]*$", "", text, flags=re.M | re.S))
    text = re.sub(r"(?<![\\`])(`+)[^`].*?\1", "", text)
    displays = re.findall(r"\$\$(.+?)\$\$", text, flags=re.S)
    text = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
    inline = re.findall(r"(?<![\\$])\$([^$\n]+?(?:\n[^$\n]+?)?)(?<!\\)\$", text)
    return math_blocks + displays + inline


def roles(text: str, *names: str) -> list[str]:
    """The targets of the roles of these names, e.g. {term}`text <target>` gives 'target'."""
    found = re.findall(rf"\{{(?:{'|'.join(names)})\}}`([^`]+)`", without_code(text))
    return [re.sub(r"^.*<(.+)>$", r"\1", one, flags=re.S).strip() for one in found]


# ---------------------------------------------------------------- references


def bibliography() -> dict[str, dict[str, str]]:
    """Each entry's fields by its key; pybtex refuses a key that stands twice."""
    entries = parse_string((BOOK / "references.bib").read_text(), "bibtex").entries
    return {
        key: {name.lower(): value for name, value in entry.fields.items()}
        | {"author": " and ".join(str(person) for person in entry.persons.get("author", []))}
        for key, entry in entries.items()
    }


BIBLIOGRAPHY = bibliography()


def cited(text: str) -> set[str]:
    targets = roles(text, "cite", "cite:[a-z]+")
    return {key.strip() for target in targets for key in target.split(",")}


def test_the_bibliography_is_read_whole():
    raw = (BOOK / "references.bib").read_text()
    assert len(BIBLIOGRAPHY) == len(re.findall(r"^@", raw, flags=re.M)) > 20
    assert "% check" not in raw
    assert "UNCONFIRMED" not in raw


@pytest.mark.parametrize("key", sorted(BIBLIOGRAPHY))
def test_each_reference_is_complete(key):
    entry = BIBLIOGRAPHY[key]
    assert entry["author"], "who wrote it?"
    assert entry.get("title"), "what is it called?"
    assert not re.search(r"\bothers\b", entry["author"]), "name all authors"
    assert re.fullmatch(r"(19|20)\d\d", entry.get("year", "")), "when?"
    venues = ("booktitle", "journal", "publisher", "institution", "howpublished")
    assert any(entry.get(v) for v in venues) or "archiveprefix" in entry, "where?"
    assert any(entry.get(v) for v in ("eprint", "doi", "isbn", "url")), (
        "arXiv, DOI, ISBN or address?"
    )
    if "eprint" in entry:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry["eprint"]), "arXiv numbers look like 1406.2661"
        assert entry.get("archiveprefix") == "arXiv"


@by_page
def test_each_cited_work_is_in_the_bibliography(page):
    assert cited(page.read_text()) <= set(BIBLIOGRAPHY)


def test_each_work_in_the_bibliography_is_cited():
    used = set().union(*(cited(page.read_text()) for page in PAGES))
    assert not set(BIBLIOGRAPHY) - used, "cite it, name it under further reading, or take it out"


# ---------------------------------------------------------------- glossary


def glossary() -> dict[str, str]:
    """Each term, in lower case, with its definition."""
    body = re.search(
        r"```\{glossary\}\n(?::sorted:\n)?(.*?)```", (BOOK / "glossary.md").read_text(), re.S
    )
    assert body
    terms: dict[str, str] = {}
    for block in body[1].strip().split("\n\n"):
        *names, definition = block.split("\n")
        for name in names:
            assert not name.startswith(" "), f"a definition has one line: {name!r}"
            assert name.lower() not in terms, f"{name} is defined twice"
            terms[name.lower()] = definition.strip()
    return terms


GLOSSARY = glossary()


def test_each_term_has_a_chinese_name_and_a_definition():
    for name, definition in GLOSSARY.items():
        chinese, _, sentence = definition.partition("。")
        assert re.search(r"[\u4e00-\u9fff]", chinese), f"{name}: the Chinese term is missing"
        assert re.fullmatch(r".{20,}\.", sentence), f"{name}: the definition is missing"


def test_the_articles_terms_are_in_the_glossary():
    article = ["LLM", "image generation", "CNN", "GAN", "natural language processing",
               "data augmentation", "model compression", "NLP", "GPU"]  # fmt: skip
    assert not [term for term in article if term.lower() not in GLOSSARY]


@by_page
def test_each_linked_term_is_in_the_glossary(page):
    missing = [term for term in roles(page.read_text(), "term") if term.lower() not in GLOSSARY]
    assert not missing


# ---------------------------------------------------------------- links


def labels() -> Counter[str]:
    """Every target on every page: (label)=, equation labels, names and labels of directives."""
    found: Counter[str] = Counter()
    for page in PAGES:
        text = page.read_text()
        found.update(re.findall(r"^\(([^()\s]+)\)=\s*$", text, flags=re.M))
        found.update(re.findall(r"^\$\$\s*\(([^()\s]+)\)\s*$", text, flags=re.M))
        found.update(re.findall(r"^:(?:label|name):\s*(\S+)\s*$", text, flags=re.M))
        found.update(re.findall(r"^\s+name:\s*(\S+)\s*$", text, flags=re.M))
        found.update(re.findall(r"\\label\{([^}]+)\}", text))
    return found


LABELS = labels()
IMPLICIT = {"genindex", "search", "modindex"}


def test_no_label_stands_twice():
    assert not [label for label, count in LABELS.items() if count > 1 and label != "python3"]


@by_page
def test_each_internal_link_has_a_target(page):
    text = page.read_text()
    missing = [
        r for r in roles(text, "ref", "numref", "eq") if r not in LABELS and r not in IMPLICIT
    ]
    missing += [d for d in roles(text, "doc") if not (page.parent / f"{d}.md").exists()]
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, label = target.partition("#")
        if path and not (page.parent / path).exists():
            missing.append(target)
        if label and label not in LABELS and not path:
            missing.append(target)
    assert not missing


# ---------------------------------------------------------------- speeds

SPEED = re.compile(
    r"\d[\d.,]*\s?(?:×|x|times)\s+(?:as\s+fast|faster|slower|quicker)"
    r"|\d[\d.,]*-fold\b"
    r"|\d[\d.,]*\s?(?:ms|µs|μs|milliseconds?|(?:images|samples|tokens|frames|steps)\s?(?:/\s?s\b|per\s+second))",
    re.I,
)


def typed_speeds(text: str) -> list[str]:
    """Speeds that a hand typed: not in code, not beside a citation, not after a '% given:' line."""
    found = []
    given = False
    for block in re.split(
        r"\n\s*\n", re.sub(r"`[^`\n]+`", "`…`", without_code(text).replace("{cite", "§"))
    ):
        excused = given or "§" in block or "% given:" in block
        given = block.strip().startswith("% given:") and "\n" not in block.strip()
        if not excused:
            found += [match[0] for match in SPEED.finditer(block)]
    return found


@by_page
def test_no_speed_is_typed_by_hand(page):
    assert not typed_speeds(page.read_text()), "glue it from a record"


@pytest.mark.parametrize(
    "text", ["It is 3.5× faster.", "It takes 12 ms.", "We reach 140 images/s.", "a 10-fold gain"]
)
def test_the_speed_check_sees_a_typed_speed(text):
    assert typed_speeds(text)


@pytest.mark.parametrize(
    "text",
    [
        "They report 3× faster training {cite:p}`someone`.",
        "It takes {glue:text}`step_ms` ms.",
        "```python\nprint('12 ms')\n```\n",
        "% given: a frame at 60 Hz\nA frame lasts 16.7 ms.",
    ],
)
def test_the_speed_check_lets_measured_and_cited_speeds_pass(text):
    assert not typed_speeds(text)


# ---------------------------------------------------------------- symbols

GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|pi"
    "|rho|sigma|tau|upsilon|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon"
    "|Phi|Psi|Omega|ell"
)
NO_SYMBOL = re.compile(r"\\(?:text|mathrm|operatorname\*?|label|tag|begin|end|texttt)\s*\{[^{}]*\}")
SYMBOL = re.compile(
    rf"\\math(?:cal|bb|bf|frak)\s*\{{?[A-Za-z]\}}?|\\(?:{GREEK})(?![A-Za-z])|\\[A-Za-z]+|[A-Za-z]"
)
SUBSCRIPT = r"\\(?:text|mathrm)\{[^{}]*\}|\{(?:[^{}]|\{[^{}]*\})*\}|\\[A-Za-z]+|\w"
# A subscript of these letters changes what they are (p_data, p_g), so the table lists each.
FAMILY = re.compile(rf"(?<![\\A-Za-z])(p|q|L|\\theta)_({SUBSCRIPT})")
INDEX = re.compile(r"[\d\s,ijkntlm+\-=]+|\\ell")


def normal(formula: str) -> str:
    return re.sub(r"[{}\s]", "", re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\\text\1", formula))


def symbols_of(formula: str) -> set[str]:
    """The symbols of a formula: letters, Greek and script letters, and named subscripts."""
    found = {
        normal(f"{base}_{subscript}")
        for base, subscript in FAMILY.findall(formula)
        if not INDEX.fullmatch(subscript.strip("{}"))
    }
    formula = FAMILY.sub(r"\1 ", NO_SYMBOL.sub(" ", formula))
    for token in SYMBOL.findall(formula):
        if token.startswith(r"\math") or re.fullmatch(rf"\\(?:{GREEK})|.", token):
            found.add(normal(token))
    return found


def symbol_table() -> list[str]:
    rows = re.findall(r"^\| \$([^$]+)\$ \|", (BOOK / "symbols.md").read_text(), flags=re.M)
    return [normal(row) for row in rows]


TABLE = symbol_table()
LISTED = set(TABLE) | {re.split("[_^]", row)[0] for row in TABLE}


def test_no_symbol_has_two_meanings():
    assert not [symbol for symbol, count in Counter(TABLE).items() if count > 1]


@by_page
def test_each_symbol_of_the_mathematics_is_in_the_index(page):
    used = {symbol for f in mathematics(page.read_text()) for symbol in symbols_of(f)}
    unknown = used - LISTED
    assert not unknown, "list it in symbols.md, or use the book's symbol"


def test_each_symbol_is_used_on_the_page_that_the_index_names():
    rows = re.findall(
        r"^\| \$([^$]+)\$ \|.*\| \{doc\}`([^`]+)` \|$",
        (BOOK / "symbols.md").read_text(),
        flags=re.M,
    )
    assert len(rows) == len(TABLE)
    for symbol, page in rows:
        text = (BOOK / f"{page}.md").read_text()
        used = {one for formula in mathematics(text) for one in symbols_of(formula)}
        assert {normal(symbol), re.split("[_^']", normal(symbol))[0]} & used, f"{symbol}: {page}"


@by_page
def test_no_symbol_is_used_in_a_second_meaning(page):
    for formula in mathematics(page.read_text()):
        assert not re.search(r"\\sigma\s*(\\left)?\(\s*-?\s*(a|w|\\ell|D|\d)\b", formula), (
            f"sigma is a standard deviation; write \\operatorname{{sigmoid}}: {formula}"
        )
        assert not re.search(r"\\(?:text|mathrm)\s*\{N\}|\\frac\s*\{1\}\s*\{N\}", formula), (
            f"a count is n, the Gaussian is \\mathcal{{N}}: {formula}"
        )


def test_the_symbol_reader_finds_what_a_formula_uses():
    formula = (
        r"\mathbb{E}_{q_\phi(z|x)}\left[\log p_\theta(x)\right] + \mathrm{KL}(q \| p_{\text{data}})"
    )
    assert symbols_of(formula) == {
        r"\mathbbE", "q", r"q_\phi", "z", "x", "p", r"p_\theta", r"p_\textdata",
    }  # fmt: skip


# ---------------------------------------------------------------- errata


ERRATA = (BOOK / "errata.md").read_text()
ERRATUM = re.findall(r"^\((erratum-[a-z0-9-]+)\)=\n### (\d+)\. .+$", ERRATA, flags=re.M)


def test_the_errata_are_numbered_and_each_has_its_parts():
    rows = re.findall(r"^\| \{ref\}`(\d+) <(erratum-[a-z0-9-]+)>` \|", ERRATA, flags=re.M)
    assert [(label, number) for number, label in rows] == ERRATUM
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for part in re.split(r"^\(erratum-[a-z0-9-]+\)=\n", ERRATA, flags=re.M)[1:]:
        assert re.search(r"\*\*Says\*\*.*\*\*Right\*\*", part, re.S), part.splitlines()[0]


@by_page
def test_a_link_by_the_number_of_an_erratum_leads_to_that_one(page):
    linked = re.findall(r"\{ref\}`(\d+) <(erratum-[a-z0-9-]+)>`", page.read_text())
    assert not {(label, number) for number, label in linked}.difference(ERRATUM)
