"""What a prompt says: values that it names, values that it rules out, words that are unknown.

    prompt ──clean──> tokens ──look up──> what the lexicon knows ──the student──> the rest

A prompt is cleaned: emoji become words, traditional characters simplified ones. Then phrases are
looked up from left to right, the longest first. "No" and its like open a span in which values are
ruled out. What the lexicon does not know, such as a misspelt word, the student reads, and must be
sure of.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from genlib.data.captions import ATTRIBUTES
from genlib.text import lexicon
from genlib.text.lexicon import CHINESE, OF
from genlib.text.student import CHARACTERS, load_student

SURE = 0.99  # probability from which a reading of the student counts
NEAR = 5  # tokens between "sun" and "left", at most
GUESSES = 32  # pieces of a prompt that the student reads
LONGEST = 10  # tokens of a phrase
_TOKENS = re.compile(rf"[{CHINESE}]|[^\W_{CHINESE}]+|[,.;:!?、。…()|/\n]")
_PAUSE = re.compile(r"[^\w\s]|\n")
_NO = {"not", "without", "un"}
BODIES = ("sun", "moon", "太阳", "月亮")
LIGHT = set(ATTRIBUTES["light"])


@dataclass
class Understood:
    """What a prompt says.

    Attributes:
        named: attribute to the value that the prompt names.
        excluded: attribute to the values that it rules out.
        unknown: words that were not understood.
        cut: whether the prompt's end was not read, because it was longer than 2,000 characters.
    """

    named: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, set[str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Piece:
    """Some tokens of a prompt, and what they mean.

    Attributes:
        text: the tokens.
        start: number of the first one.
        end: number of the one after the last.
        marks: values, and headings of `phrases.txt` that steer the reading; none for a word that
            says nothing here, `None` for one that the lexicon does not know.
    """

    text: str
    start: int
    end: int
    marks: frozenset[str] | None

    @property
    def values(self) -> list[str]:
        """Returns the values that it says, in the order of the attributes."""
        return [value for value in OF if value in (self.marks or ())]


def understand(prompt: str) -> Understood:
    """Reads a prompt in English, Chinese, both, or emoji.

    Example:
        >>> understand("a misty lake without boats").excluded
        {'object': {'boat'}}
    """
    kept = shorten(prompt.strip())
    found, unknown = look_up(pieces(clean(kept)))
    guesses = iter(_guess([text for text, is_open in unknown if is_open]))
    lost = []
    for text, is_open in unknown:
        new = next(guesses, {}) if is_open else {}
        new = {n: v for n, v in new.items() if v not in found.excluded.get(n, ())}
        found.named = new | found.named
        lost += [] if new else text.split()
    found.unknown, found.cut = tuple(dict.fromkeys(lost)), len(kept) < len(prompt.strip())
    return found


def shorten(prompt: str) -> str:
    """Returns the first 2,000 characters of a prompt, less a word that would be split."""
    if len(prompt) <= CHARACTERS:
        return prompt
    kept = prompt[:CHARACTERS]
    if re.match(r"[^\W_]", prompt[CHARACTERS]) and not lexicon.is_chinese(kept[-1]):
        kept = re.sub(r"[^\W_]+$", "", kept) or kept
    return kept.rstrip()


# ---------------------------------------------------------------- from a prompt to pieces


def clean(text: str) -> str:
    """Returns a text in small letters, with words for emoji, and with simplified characters.

    Example:
        >>> clean("🎈 Treeless, don't!")
        ' balloon  without tree, , do not!'
    """
    text = unicodedata.normalize("NFKC", text).lower().translate(_letters())
    text = re.sub(r"n[’']t\b", " not", text).replace("cannot", "can not")
    return re.sub(r"\b([a-z]+)(?:-free|less)\b", _less, text)


def _less(found: re.Match[str]) -> str:
    whole, stem = found.group(), found.group(1)
    if _key(whole) in table() or not OF.keys() & table().get(_key(stem), set()):
        return whole
    return f"without {stem}, "


@cache
def _letters() -> dict[int, str]:
    emoji = [line.split(":") for line in lexicon.lines("emoji")]
    found = {ord(c): f" {word} " for word, row in emoji for c in row.split()}
    traditional, simplified = map(str.strip, lexicon.lines("characters"))
    return found | dict(zip(map(ord, traditional), simplified, strict=True))


def _key(text: str) -> tuple[str, ...]:
    """Returns the tokens of a text without articles and without the s of a plural."""
    said = _TOKENS.findall(text)
    return tuple(
        token[:-1] if len(token) > 3 and re.search("[^sui]s$", token) else token
        for token in said
        if token not in ("a", "an", "the")
    )


@cache
def table() -> dict[tuple[str, ...], frozenset[str]]:
    """Returns phrases, as tokens, to what they mean."""
    found: dict[tuple[str, ...], set[str]] = {}

    def add(phrase: str, marks: set[str]) -> None:
        for body in BODIES if "{body}" in phrase else ("",):
            said = phrase.replace("{body}", body)
            moon = {"moon"} if re.search("moon|月亮", said) and marks & LIGHT else set()
            found.setdefault(_key(said), set()).update(marks | moon)

    hand = dict(lexicon.sections())
    filler = hand.pop("filler")  # only its single words are known, so as not to hide "left"
    for head, part in hand.items():
        for phrase in part:
            add(phrase, {head} if head.startswith("beside") else set(head.split()))
    for value, phrase in lexicon.captions_say():
        add(phrase, {value})
    nothing = {_key(phrase) for phrase in hand[""]}
    common = " ".join(lexicon.lines("common") + filler)
    for word in common.split():
        found.setdefault(_key(word), set())
    for key, marks in found.items():
        if key in nothing:
            marks.clear()
        elif len(key) > 1 and "end" in found.get(key[:1], ()):  # "in the city" ends "no boat"
            marks.add("end")
    return {key: frozenset(marks) for key, marks in found.items()}


def pieces(text: str) -> list[Piece]:
    """Cuts a text into the longest phrases that the lexicon knows, and single unknown tokens."""
    said, known, found, start = tuple(map(spell, _key(text))), table(), [], 0
    while start < len(said):
        for end in range(min(start + LONGEST, len(said)), start, -1):
            marks = known.get(said[start:end])
            if marks is not None:
                break
        else:
            end, marks = start + 1, None
        found.append(Piece(_join(said[start:end]), start, end, marks))
        start = end
    return found


@lru_cache(1 << 12)
def spell(word: str) -> str:
    """Returns an unknown word of four letters or more as the one word that is a slip away.

    Slips, from the likeliest on: two letters that have changed places; a letter too many or too
    few; another letter. If several words are as near, and do not say the same, the word stays.

    Reference: Norvig, 2007, How to write a spelling corrector.

    Example:
        >>> spell("sunest"), spell("goat")
        ('sunset', 'goat')
    """
    known = vocabulary()
    if len(word) < 4 or word in known or not re.fullmatch("[a-z]+", word):
        return word
    for slips in _slips(word):
        near = sorted(w for w in slips if w in known and w[0] == word[0])
        if near:
            alike = len({known[w].intersection(OF) for w in near}) == 1
            return near[0] if alike and not known[near[0]] & _NO else word
    return word


def _slips(word: str) -> Iterator[set[str]]:
    cut = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    yield {a + b[1] + b[0] + b[2:] for a, b in cut if len(b) > 1}
    yield {a + b[1:] for a, b in cut if b} | {a + c + b for a, b in cut for c in letters}
    vowels = "aeiouy"  # in a short word, only a vowel for a vowel
    yield {
        a + c + b[1:]
        for a, b in cut[:-1]
        for c in (letters if len(word) > 5 else vowels)
        if len(word) > 5 or b[0] in vowels
    }


@cache
def vocabulary() -> dict[str, frozenset[str]]:
    """Returns the words of all phrases, each with what it says alone."""
    return {word: table().get((word,), frozenset()) for key in table() for word in key}


def knows(word: str) -> bool:
    """Returns whether the lexicon has a word, be it among those that say nothing."""
    return _key(clean(word)) in table()


def _join(tokens: Sequence[str]) -> str:
    return ("" if lexicon.is_chinese("".join(tokens)) else " ").join(tokens)


# ---------------------------------------------------------------- from pieces to values


def look_up(said: Sequence[Piece]) -> tuple[Understood, list[tuple[str, bool]]]:
    """Reads pieces from left to right.

    Of two values of one attribute the first counts ("a lake in the mountains"), but the second of
    two neighbours ("a mountain lake") and what follows 的 (山中的湖).

    Returns:
        What they say, and what is unknown, each with whether the student may read it.
    """
    named: dict[str, tuple[str, int]] = {}  # attribute to value and the end of its piece
    excluded: dict[str, set[str]] = {}
    bodies: list[tuple[int, int]] = []  # clause and place of the sun and the moon
    sides: list[tuple[int, int, str]] = []
    unknown: list[tuple[Piece, bool]] = []
    clause, scope, fresh, before, moon = 0, "", True, "", False
    for piece in said:
        marks = piece.marks or frozenset()
        body = marks & {"sun", "moon"}
        moon = moon or "moon" in marks
        pause = _PAUSE.match(piece.text) is not None
        if not marks and not pause:
            unknown.append((piece, piece.marks is None and not scope))
        if "end" in marks and not fresh and (scope, piece.text) != ("without", "and"):
            scope = ""
        if pause or "but" in marks:
            clause, scope = clause + 1, ""
        elif marks & _NO:
            scope, fresh = min(marks & _NO), True
        elif scope:
            times = [value for value in piece.values if value != "night" or not body]
            if body and not times:
                named["light"] = "hidden", piece.end
            for value in times:
                excluded.setdefault(OF[value], set()).add(value)
            fresh = fresh and "stop" in marks
            scope = "" if scope == "un" else scope
        else:
            for value in piece.values:
                if body and value == "night":  # the moon may be seen by day, too
                    continue
                old, end = named.get(OF[value], ("day", 0))
                if old == "day" or before == "的" or end == piece.start:
                    named[OF[value]] = value, piece.end
            bodies += [(clause, piece.start)] if body else []
            sides += [(clause, piece.start, m.split()[1]) for m in marks if m.startswith("beside")]
        before = piece.text
    values = {name: value for name, (value, _) in named.items()}
    excluded = {name: found - {values.get(name)} for name, found in excluded.items()}
    excluded = {name: found for name, found in excluded.items() if found}
    if moon:
        values.setdefault("time", "night")
    near = [(abs(at - p), side) for c, at, side in sides for k, p in bodies if c == k]
    if near and min(near)[0] <= NEAR:
        values.setdefault("light", min(near)[1])
    return Understood(values, excluded), _runs(unknown)


def _runs(unknown: Sequence[tuple[Piece, bool]]) -> list[tuple[str, bool]]:
    """Joins Chinese characters that are neighbours: two or three of them may be one word."""
    found: list[tuple[str, bool]] = []
    end, joinable = -1, False
    for piece, is_open in unknown:
        chinese = lexicon.is_chinese(piece.text)
        if found and piece.start == end and found[-1][1] == is_open and chinese and joinable:
            found[-1] = (found[-1][0] + piece.text, is_open)
        else:
            found.append((piece.text, is_open))
        end, joinable = piece.end, chinese
    return [(text, is_open and _is_word(text)) for text, is_open in found]


def _is_word(text: str) -> bool:
    return 1 < len(text) < 4 if lexicon.is_chinese(text) else 3 < len(text) < 20


def _guess(texts: Sequence[str]) -> list[dict[str, str]]:
    """Returns for each text the values of which the student is sure."""
    if not texts:
        return []
    parts = load_student().read(texts[:GUESSES])
    return [
        {
            name: ATTRIBUTES[name][int(part[i].argmax()) - 1]
            for name, part in zip(ATTRIBUTES, parts, strict=True)
            if part[i].argmax() and part[i].max() >= SURE
        }
        for i in range(len(parts[0]))
    ]
