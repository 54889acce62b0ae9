"""Which frequent words say nothing of the five attributes?

Writes `genlib/text/common.txt`: frequent English words by the counts of WordNet 3.0 (Debian's
package `wordnet-base`), frequent Chinese ones by jieba's dictionary (`pip download jieba`), less
those of the lexicon; and Chinese names that have one of its characters.

    python scripts/common_words.py /usr/share/wordnet jieba/dict.txt
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from genlib.data import captions
from genlib.data.captions import ATTRIBUTES
from genlib.text import lexicon

COMMON = 8000  # words of each language
NOTICE = """\
# Frequent words that say nothing of the five attributes: English ones, Chinese ones, Chinese names.
# Written by scripts/common_words.py, from jieba's dictionary (MIT licence) and from WordNet:
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS SOFTWARE AND
# DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES,
# EXPRESS OR IMPLIED. Permission to use, copy, modify and distribute it for any purpose and without
# fee or royalty is granted, provided that this notice appears on all copies, modifications
# included. The name of Princeton University may not be used in advertising pertaining to it.
"""


def names(rows: list[list[str]], says: set[str], ours: set[str]) -> list[str]:
    """Returns names that have a character of ours, but say nothing: 山东 is no mountain.

    Names of places that end in the character are left out: 黄山 is one.
    """
    found = []
    for row in rows:
        word, count, kind, *_ = *row, ""
        if 2 <= len(word) <= 4 and int(count) >= 100 and word not in ours and says & set(word):
            person = kind in ("nr", "nrt", "nt", "nz", "nrfg")
            place = kind == "ns" and word[-1] not in says
            found += [word] if person or place else []
    return found


def said() -> set[str]:
    """Returns the single words of all phrases by hand and of all captions."""
    own = [p for head, part in lexicon.sections().items() if head for p in part]
    rows = [[min(i, len(v) - 1) for v in ATTRIBUTES.values()] for i in range(6)]
    for row in rows:
        for name, language in product(ATTRIBUTES, ("en", "zh")):
            for wording in ("seen", "unseen"):  # the words set aside are not taught as nothing
                own += captions.phrases(name, row, language, wording)
    return {word for phrase in own for word in [phrase, *re.findall("[a-z]+", phrase.lower())]}


def main(
    wordnet: Annotated[str, typer.Argument(help="The folder of WordNet 3.0.")],
    jieba: Annotated[str, typer.Argument(help="The file dict.txt of jieba.")],
) -> None:
    """Writes the list."""
    ours = said()
    head = lexicon.sections()
    says = {p for name, part in head.items() if name in lexicon.OF for p in part if len(p) == 1}
    steers = {p for name, part in head.items() if name for p in part if len(p) == 1}
    count: dict[str, int] = {}
    for line in (Path(wordnet) / "cntlist.rev").read_text("utf-8").splitlines():
        key, _, times = line.split()
        word = key.split("%")[0]
        count[word] = count.get(word, 0) + int(times)
    english = [w for w in sorted(count, key=lambda w: -count[w]) if re.fullmatch("[a-z]{3,}", w)]
    rows = [line.split() for line in Path(jieba).read_text("utf-8").splitlines()]
    chinese = [row[0] for row in sorted(rows, key=lambda row: -int(row[1]))]
    chinese = [w for w in chinese if 2 <= len(w) <= 3 and not steers & set(w)]
    lines = [[w for w in words if w not in ours][:COMMON] for words in (english, chinese)]
    lines.append(names(rows, says, ours))
    content = NOTICE + "".join(" ".join(line) + "\n" for line in lines)
    (Path(lexicon.__file__).parent / "common.txt").write_text(content, "utf-8")


if __name__ == "__main__":
    typer.run(main)
