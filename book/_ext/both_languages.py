"""The site's search finds Chinese terms too.

Sphinx splits text where words end, and Chinese does not mark that: a whole clause would count as
one word. Here Chinese text is indexed, and asked for, by its characters and by its pairs of
neighbours, which needs no dictionary. English words are as they were.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

HAN = re.compile(r"[\u3400-\u9fff]+")


class EnglishAndChinese(SearchEnglish):
    """Splits English into words, Chinese into characters and pairs."""

    # The same for what a reader types: pairs, or the one character.
    js_splitter_code = r"""
var splitQuery = (query) => query
  .split(/[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu)
  .flatMap((word) => word.split(/([\u3400-\u9fff]+)/u))
  .flatMap((part) => /^[\u3400-\u9fff]{2,}$/u.test(part)
    ? [...part].slice(1).map((letter, i) => [...part][i] + letter) : [part])
  .filter((term) => term);
"""

    def split(self, input: str) -> list[str]:
        """Returns the words of a text, and the characters and pairs of its Chinese parts."""
        found = super().split(HAN.sub(" ", input))
        for run in HAN.findall(input):
            found += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx, in place of its English."""
    languages["en"] = EnglishAndChinese
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
