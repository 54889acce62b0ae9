"""Words that people use for the attributes of Scenes, beside those of the captions.

The student learns them, so that "a ship at twilight" is a boat at sunset, and `reader` looks them
up. They stand in text files beside this one, a heading and its phrases:

    [boat]
    boat, ship, canoe, 船, 小舟

`phrases.txt` was written by hand; none of it is among the phrases that `genlib.data.captions` sets
aside to measure wordings that were never seen; those that are stand in `aside.txt`. `wordnet.txt`
(`scripts/wordnet.py`) has WordNet's words for the same values. `common.txt`
(`scripts/common_words.py`) has words that say nothing here, so that the student learns not to mind
such words. The student learns from `phrases.txt` and `common.txt` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np

from genlib.data import captions
from genlib.data.captions import ATTRIBUTES, Language, Wording

OF = {value: name for name, values in ATTRIBUTES.items() for value in values}
CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
FILLERS = 0.4  # share of loose texts with words that say nothing
_HERE = Path(__file__).parent
_ASKS = {
    "en": (
        *("a picture of", "an image of", "please draw", "show me", "make", "create", "paint"),
        *("generate an image of", "I want", "I would like to see", "a photo of", "we see"),
        *("a scene with", "a landscape with", "there is", "could you draw", "imagine"),
    ),
    "zh": ("画", "画一张", "生成一张", "请画", "我想要", "一幅", "一张图", "给我看", "来一张"),
}
_MOODS = {
    "en": ("beautiful", "calm", "quiet", "peaceful", "dreamy", "romantic", "nice", "vast", "old"),
    "zh": ("美丽的", "宁静的", "平静的", "迷人的", "梦幻的", "浪漫的", "古老的", "很美"),
}
_JOINS = {
    "en": (" ", ", ", " and ", " with ", " in ", " over ", " by the "),
    "zh": ("", "，", "的", "、", "和", "里"),
}


def lines(name: str) -> list[str]:
    """Returns the lines of one of the text files, without comments and empty ones."""
    text = (_HERE / f"{name}.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def sections(name: str = "phrases") -> dict[str, list[str]]:
    """Returns the phrases under each heading of a file, such as `"boat"` or `"night hidden"`."""
    found: dict[str, list[str]] = {}
    for line in lines(name):
        if line.startswith("["):
            part = found.setdefault(line.strip("[]"), [])
        else:
            part += [phrase.strip() for phrase in line.split(",") if phrase.strip()]
    return found


def is_chinese(text: str) -> bool:
    """Returns whether a text has a Chinese character."""
    return re.search(f"[{CHINESE}]", text) is not None


@cache
def told(value: str, language: Language) -> tuple[str, ...]:
    """Returns the phrases of one value; `{body}` is the sun or the moon."""
    return tuple(p for p in sections()[value] if is_chinese(p) == (language == "zh"))


def phrases(name: str, attributes: Sequence[int], language: Language) -> list[str]:
    """Returns what people say of one attribute of a scene, the captions' phrases among it.

    Example:
        >>> phrases("object", (2, 0, 1, 0, 1), "en")[:3]
        ['a sailing boat', 'a sailboat', 'a small boat']
    """
    return list(_phrases(name, tuple(map(int, attributes)), language))


@cache
def _phrases(name: str, attributes: tuple[int, ...], language: Language) -> tuple[str, ...]:
    value = ATTRIBUTES[name][attributes[list(ATTRIBUTES).index(name)]]
    more = [captions.body(p, attributes, language) for p in told(value, language)]
    return (*captions.phrases(name, attributes, language), *more)


def loose(attributes: Sequence[int], rng: np.random.Generator) -> captions.Caption:
    """Says some attributes of a scene in any order, as one who is in a hurry to have an image.

    Args:
        attributes: five indices into `ATTRIBUTES`.
        rng: draws the language, the attributes that are named, and the words.

    Example:
        >>> loose((2, 0, 1, 0, 1), np.random.default_rng(3)).language
        'en'
    """
    language: Language = "zh" if rng.random() < 0.5 else "en"
    named = rng.permutation(list(ATTRIBUTES))[: rng.integers(len(ATTRIBUTES) + 1)]

    def one(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    row = tuple(map(int, attributes))
    said = [one(_phrases(str(name), row, language)) for name in named]
    for at, words in ((0, _MOODS), (0, _ASKS), (len(said), _MOODS)):
        if rng.random() < 0.3:
            said.insert(at, one(words[language]))
    if not said or rng.random() < FILLERS:
        for _ in range(rng.integers(1, 6)):
            said.insert(int(rng.integers(len(said) + 1)), one(common(language)))
    text = said[0]
    for word in said[1:]:
        text += one(_JOINS[language]) + word
    return captions.Caption(text, language, frozenset(map(str, named)))


@cache
def common(language: Language) -> tuple[str, ...]:
    """Returns words that say nothing here: frequent ones, and those that seem to say something."""
    own = sections()
    nothing = [p for p in own[""] + own["filler"] if is_chinese(p) == (language == "zh")]
    return (*lines("common")[get_args(Language).index(language)].split(), *(nothing * 3))


def captions_say(wording: Wording = "seen") -> list[tuple[str, str]]:
    """Returns values and what captions say of them, by the sun and by the moon."""
    found: dict[tuple[str, str], None] = {}
    for row in _rows():
        for (name, values), index in zip(ATTRIBUTES.items(), row, strict=True):
            for language in get_args(Language):
                said = captions.phrases(name, row, language, wording)
                found |= dict.fromkeys((values[index], phrase) for phrase in said)
    return list(found)


def _rows() -> list[list[int]]:
    """Returns scenes that have each value, and each place of the light by day and by night."""
    most = range(max(map(len, ATTRIBUTES.values())))
    last = [len(values) - 1 for values in ATTRIBUTES.values()]
    return [[min(i, last[0]), *(min(j, k) for k in last[1:])] for i in most for j in most]


@cache
def _set_aside() -> tuple[str, ...]:
    return tuple(phrase for _, phrase in captions_say("unseen"))


def aside(phrase: str) -> bool:
    """Returns whether a phrase holds one that was set aside, or is more than a word of one."""
    long = len(phrase) > 2 if is_chinese(phrase) else " " in phrase
    return any(a in phrase or (long and phrase in a) for a in _set_aside())
