"""Which words of WordNet stand below the values of the five attributes?

Writes `genlib/text/wordnet.txt` from the files of WordNet 3.0, which Debian's package
`wordnet-base` has, and `genlib/text/common.txt`: frequent words of WordNet and of jieba's
dictionary (`pip download jieba`) that are none of ours. Words are kept that the package
`wamerican` knows.

    python benchmarks/wordnet.py /usr/share/wordnet jieba/dict.txt /usr/share/dict/american-english
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from genlib.data import captions
from genlib.data.captions import ATTRIBUTES
from genlib.text import lexicon

# Values, and the synsets (word, sense) whose synonyms and kinds say them.
ROOTS = {
    "dawn": [("dawn", 1), ("sunrise", 3)],
    "day": [("noon", 1), ("afternoon", 1), ("daylight", 1)],
    "sunset": [("evening", 1), ("twilight", 1), ("sunset", 1)],
    "night": [("night", 1), ("midnight", 1), ("moonlight", 1), ("starlight", 1)],
    "sea": [
        *(("ocean", 1), ("sea", 1), ("bay", 1), ("gulf", 1), ("beach", 1), ("seashore", 1)),
        *(("island", 1), ("shore", 1), ("seaside", 1), ("archipelago", 1)),
    ],
    "lake": [("lake", 1)],
    "mountains": [
        *(("mountain", 1), ("mountain_range", 1), ("cliff", 1), ("mountain_peak", 1)),
        *(("mountain_pass", 1), ("volcano", 2), ("highland", 1)),
    ],
    "hills": [("hill", 1), ("grassland", 1), ("hillside", 1), ("farmland", 1), ("plain", 1)],
    "desert": [("desert", 1), ("dune", 1), ("oasis", 1)],
    "city": [("city", 1), ("skyscraper", 1), ("street", 1), ("town", 1)],
    "cloudy": [("cloud", 2)],
    "foggy": [("fog", 1), ("mist", 1), ("haze", 1)],
    "rainy": [("rain", 1), ("storm", 1)],
    "snowy": [("snow", 1), ("snow", 2), ("sleet", 1), ("hail", 1)],
    "boat": [("boat", 1), ("sailing_vessel", 1), ("ship", 1)],
    "house": [("house", 1), ("dwelling", 1), ("village", 2), ("farm", 1), ("barn", 1)],
    "tree": [("tree", 1), ("forest", 1), ("forest", 2)],
    "balloon": [("balloon", 1), ("lighter-than-air_craft", 1)],
}
NOTICE = """\
# Synonyms, kinds and examples of the values in WordNet 3.0 (written by benchmarks/wordnet.py).
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS SOFTWARE AND
# DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES,
# EXPRESS OR IMPLIED. Permission to use, copy, modify and distribute it for any purpose and without
# fee or royalty is granted, provided that this notice appears on all copies, modifications
# included. The name of Princeton University may not be used in advertising pertaining to it.
"""
COMMON = 8000  # words of each language that mean nothing here
Synset = tuple[list[str], list[str]]  # words, and the synsets below


def read(folder: Path) -> tuple[dict[str, Synset], dict[str, list[str]], set[str]]:
    """Returns the noun synsets, the senses of each noun, and the words that are no noun only."""
    synsets: dict[str, Synset] = {}
    for line in _lines(folder / "data.noun"):
        offset, _, _, count, *rest = line.split(" | ")[0].split()
        n = 2 * int(count, 16)
        pointers = rest[n + 1 :]
        below = [t for s, t in zip(pointers[::4], pointers[1::4], strict=False) if s in ("~", "~i")]
        synsets[offset] = rest[:n:2], below
    senses = {}
    for line in _lines(folder / "index.noun"):
        word, _, _, pointers, *rest = line.split()
        senses[word] = rest[int(pointers) + 2 :]
    parts = ("adj", "verb", "adv")
    others = {line.split()[0] for part in parts for line in _lines(folder / f"index.{part}")}
    return synsets, senses, others


def _lines(path: Path) -> Iterable[str]:
    return (line for line in path.read_text("utf-8").splitlines() if not line.startswith("  "))


def below(synsets: dict[str, Synset], offset: str) -> list[str]:
    """Returns a synset and all its kinds and examples."""
    found, todo = [], [offset]
    while todo:
        found.append(todo.pop())
        todo += [o for o in synsets[found[-1]][1] if o not in found]
    return found


def mine(folder: Path, usual: set[str]) -> dict[str, list[str]]:
    """Returns words for each value: those whose first sense says it, and that are nouns only.

    Args:
        folder: of WordNet.
        usual: words of a usual dictionary; a phrase with another one, such as the Latin name of a
            tree, is left out.
    """
    synsets, senses, others = read(folder)
    known = {p for part in lexicon.sections("phrases").values() for p in part}
    means: dict[str, set[str]] = {}
    for value, roots in ROOTS.items():
        for word, sense in roots:
            for offset in below(synsets, senses[word][sense - 1]):
                for said in synsets[offset][0]:
                    low = said.lower()
                    if senses[low][0] == offset and low not in others:
                        means.setdefault(low.replace("_", " "), set()).add(value)
    found: dict[str, list[str]] = {value: [] for value in ROOTS}
    for word, values in sorted(means.items()):
        fits = len(word) > 3 and len(word.split()) < 3 and usual.issuperset(word.split())
        if len(values) == 1 and fits and word not in known and not lexicon.aside(word):
            found[values.pop()].append(word)
    return found


def names(jieba: Path, alone: set[str], ours: set[str]) -> list[str]:
    """Returns names that have a character of ours, but say nothing: 山东 is no mountain.

    Names of places that end in the character are left out: 黄山 is one.
    """
    found = []
    for line in jieba.read_text("utf-8").splitlines():
        word, count, kind, *_ = *line.split(), ""
        if 2 <= len(word) <= 4 and int(count) >= 100 and word not in ours and alone & set(word):
            person = kind in ("nr", "nrt", "nt", "nz", "nrfg")
            place = kind == "ns" and not alone & {word[-1]}
            found += [word] if person or place else []
    return found


def _said() -> set[str]:
    """Returns the single words of all phrases by hand and of all captions."""
    own = [p for head, part in lexicon.sections("phrases").items() if head for p in part]
    rows = [[min(i, len(v) - 1) for v in ATTRIBUTES.values()] for i in range(6)]
    for row in rows:
        for name, language in product(ATTRIBUTES, ("en", "zh")):
            for wording in ("seen", "unseen"):  # the words set aside are not taught as nothing
                own += captions.phrases(name, row, language, wording)
    return {word for phrase in own for word in [phrase, *re.findall("[a-z]+", phrase.lower())]}


def main(wordnet: str, jieba: str, dictionary: str) -> None:
    """Writes both lists."""
    here = Path(lexicon.__file__).parent
    mined = mine(Path(wordnet), set(Path(dictionary).read_text("utf-8").lower().split()))
    lines = [f"\n[{value}]\n{', '.join(words)}\n" for value, words in mined.items() if words]
    (here / "wordnet.txt").write_text(NOTICE + "".join(lines), "utf-8")
    print({value: len(words) for value, words in mined.items()})
    ours = {w for words in mined.values() for w in words} | _said()
    alone = {w for w in ours if len(w) == 1 and lexicon.is_chinese(w)}
    count: dict[str, int] = {}
    for line in (Path(wordnet) / "cntlist.rev").read_text("utf-8").splitlines():
        key, _, times = line.split()
        word = key.split("%")[0]
        count[word] = count.get(word, 0) + int(times)
    english = [w for w in sorted(count, key=lambda w: -count[w]) if re.fullmatch("[a-z]{3,}", w)]
    chinese = [line.split()[:2] for line in Path(jieba).read_text("utf-8").splitlines()]
    chinese = [w for w, n in sorted(chinese, key=lambda p: -int(p[1])) if 2 <= len(w) <= 3]
    rows = []
    for words in (english, chinese):
        kept = [w for w in words if w not in ours and not alone & set(w)]
        rows.append(" ".join(kept[:COMMON]))
    says = {
        p for head, part in lexicon.sections("phrases").items() if head in lexicon.OF for p in part
    }
    rows.append(" ".join(names(Path(jieba), alone & says, ours)))
    head = (
        "# Frequent words that say nothing of the five attributes, of WordNet 3.0 (notice in\n"
        "# wordnet.txt) and of jieba's dictionary (MIT licence): benchmarks/wordnet.py.\n"
    )
    (here / "common.txt").write_text(head + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
