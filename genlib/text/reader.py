"""What a prompt says: values that it names, values that it rules out, words that are unknown.

    prompt ──clean──> tokens ──look up──> what the lexicon knows ──the student──> the rest

A prompt is cleaned: emoji become words, traditional characters simplified ones. Then phrases are
looked up from left to right, the longest first. "No" and its like open a span in which values are
ruled out. What the lexicon does not know, such as a misspelt word, the student reads, and at last
the whole prompt for what is still open; it must be sure.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from genlib.data.captions import ATTRIBUTES
from genlib.text import lexicon
from genlib.text.lexicon import CHINESE, OF
from genlib.text.student import CHARACTERS, load_student

SURE = 0.998  # probability from which a reading of the student counts
NEAR = 6  # pieces from "sun" to "left", at most
GUESSES = 32  # pieces of a prompt that the student reads
LONGEST = 10  # tokens of a phrase
REACH = 24  # pieces in which a list ends, and from "boats" to "are not allowed", at most
_TOKENS = re.compile(rf"[{CHINESE}]|[^\W_{CHINESE}]+|[,.;:!?、。…()|/\n]")
_PAUSE = re.compile(r"[^\w\s]|\n")
_NO = {"not", "without", "un"}
_ARTICLES = ("a", "an", "the")
_OR = ("or", "nor", "或", "或者", "还是")  # before the last of a list
_LAST = ("and", "和", "与", "及", "以及")
_WISHES = (  # "no boats and draw a house" has a house
    *("draw", "paint", "show", "make", "create", "add", "put", "keep", "include", "give", "use"),
    *("let", "want", "i", "we", "it", "there", "please", "画"),
)
_ALL = ("都", "也", "皆", "均")
_BE = ("is", "are", "was", "were", "be")
_PLACE = ("on", "in", "at", "by", "near", "over", "under", "behind", "of", "across")
_MEASURES = "个只条艘座棵株片朵丝点颗轮张栋间幢叶扇匹位名滴抹缕"  # "a boat" is 一艘船
BODIES = ("sun", "moon", "太阳", "月亮")
# Words that have the sun or the moon in them, wherever it stands.
_SUN = re.compile(
    "(?<![a-z])sun(rise|set|down|up)?(?![a-z])"
    "|太阳|[夕朝残斜骄初艳]阳(?!光)|[红旭落烈朝]日|日头|日[落出]"
)
_MOON = re.compile("(?<![a-z])moon(rise|set)?(?![a-z])|月")
_KEEP = ("downs", "fells")  # "down" and "fell" say nothing of hills
_ON = ("on", "at", "in", "to", "在", "偏", "靠", "于")  # "the sun (is) on the left"
_AND = ("and", "with", "和", "与")
_OF = (*_ON, "from", "of", "far", "top", "bottom", "upper", "lower")
_PLACES = (
    *("in", "on", "at", "over", "above", "under", "below", "behind", "by", "near", "next"),
    *("before", "after", "across", "through", "into", "now", "here", "there", "down", "up"),
)
# "Not a single boat" has its object first in Chinese: 一艘船也没有.
_FIRST = re.compile(
    f"(?:连?[一半][{_MEASURES}]?|连|什么|任何|别的|其他|其它)"
    "([^。、,.;也都 \n]{1,6}?)[也都](?:没有?|不要|看?不见|看不到)"
    f"(?=$|[的了]|[^{CHINESE}])"
)
_STREET = re.compile(r"\b[A-Z][a-z]+(?= (?:Street|Road|Drive|Lane|Avenue|Boulevard|Square)\b)")
_NOT = (
    (r"\bcan(?:no|[’']?)t\b", "can not"),
    (r"\bwon[’']t\b", "will not"),
    (r"n[’']t\b", " not"),
    (r"\bw/(?:o|out)\b", "without"),
    (r"\b(?:hardly|scarcely|barely)(?= (?:an?|any)\b)", "no"),
    (rf"(?<![0-9a-z.,:/-])0(?= ?(?:[a-z]{{3}}|[{CHINESE}]))", "没有"),  # "0 boats"
    (r"\b(?:(?:rain|snow|hail|sleet|wind|fog),? )+or shine\b", "rain or shine"),
)
# "Besides a boat", and "nothing but a boat": 除了船，还有…, 除了船，什么都没有.
_BESIDES = re.compile(r"除了?(?=[^。;!?\n]*(?:[还也][有要想]|什么[都也][没不]|别无|空无))")
_EXCEPT = re.compile("除(?=[^了。,;]{1,8}[以之]外)")
_DASH = re.compile("[—―]+|--+| [–-] ")
_SLASH = re.compile(" / ")  # "trees / sunset" are two wishes, "no trees/houses" is one
# "Leave the boat out" is "leave out the boat".
_OUT = re.compile(
    r"\b(?:leave|keep) ((?:the|an?|any|all) [a-z]+(?: [a-z]+)?"
    r"(?:(?:,|,? and) (?:the|any|all) [a-z]+(?: [a-z]+)?)*) (?:out|off)"
    r"(?= *(?:$|[,.;:!?)\n]|(?:of|and|please)\b))"
)
# 晴天雨天都可以: either will do.
_EITHER = re.compile(
    "(?:[晴阴雨雪雾风天下起刮是或者和与、]|还是|白天|黑夜|夜晚|晚上){2,12}"
    "(?=[都皆均](?:可以?|行|好|成|没关系|无所谓))"
)
# Negative prompts of other generators: "--no boats, trees".
_NEGATIVE = re.compile(r"(?:--no|\bnegative prompt)\b:?([^-.;\n]*)")
_LESS = re.compile(
    r"\b([a-z]+)(?:-free|-?less)\b|\b([a-z]+) free(?= ([a-z]+))|\b(?:no|non|un)-([a-z]+)\b"
)
LIGHT = set(ATTRIBUTES["light"])
_HIDDEN = ("hidden", "concealed", "veiled", "masked", "obscured")
_SIDES = ("left", "middle", "right")


@dataclass
class Understood:
    """What a prompt says.

    Attributes:
        named: attribute to the value that the prompt names.
        excluded: attribute to the values that it rules out.
        unknown: words that were not understood.
        places: sides on which something other than the sun or the moon is to stand; they are not
            drawn.
        cut: whether the prompt's end was not read, because it was longer than 2,000 characters.
    """

    named: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, set[str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
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
        article: "a" or "the", if one stands before it.
    """

    text: str
    start: int
    end: int
    marks: frozenset[str] | None
    article: str = ""

    @property
    def known(self) -> frozenset[str]:
        """Returns its marks; none for a word that the lexicon does not know, either."""
        return self.marks or frozenset()

    @property
    def before(self) -> list[str]:
        """Returns what it says before a time or a sky, and only there."""
        return [mark.split()[1] for mark in self.known if mark.startswith("before")]

    @property
    def values(self) -> list[str]:
        """Returns the values that it says, in the order of the attributes."""
        return [value for value in OF if value in self.known]


def understand(prompt: str, *, aside: bool = True) -> Understood:
    """Reads a prompt in English, Chinese, both, or emoji.

    Args:
        prompt: 2,000 characters are read.
        aside: whether to know the phrases that captions set aside. A measurement of wordings that
            were never seen says no.

    Example:
        >>> understand("a misty lake without boats").excluded
        {'object': {'boat'}}
    """
    kept = shorten(prompt.strip())
    plain = clean(kept, aside)
    said = pieces(plain, aside)
    found, unknown = look_up(said)
    asked = [text for text, is_open in unknown if is_open][:GUESSES]
    *guesses, whole = _guess([*asked, plain])
    rest = iter(guesses)
    lost = []
    for text, is_open in unknown:
        new = _open(next(rest, {}), found) if is_open else {}
        found.named = new | found.named
        lost += [] if new else text.split()
    if any(piece.known & {"any", "open"} for piece in said):
        whole = {}  # it does not know what is left open, either
    if any(_has_side(piece) or _is_no(piece) for piece in said):
        whole.pop("light", None)  # the student does not know what stands there, or does not
    found.named = _open(whole, found) | found.named
    found.unknown, found.cut = tuple(dict.fromkeys(lost)), len(kept) < len(prompt.strip())
    return found


def _has_side(piece: Piece) -> bool:
    said = piece.text.split(" ")
    beside = any(mark.startswith("beside") for mark in piece.known)
    return beside or "left" in said or "right" in said


def _is_no(piece: Piece) -> bool:
    return bool(piece.known & {*_NO, "gone", "except"})


def _open(guess: dict[str, tuple[str, float]], found: Understood) -> dict[str, str]:
    """Returns what the student is sure of and what is not ruled out."""
    return {
        name: value
        for name, (value, share) in guess.items()
        if share >= SURE and value not in found.excluded.get(name, ())
    }


def shorten(prompt: str) -> str:
    """Returns the first 2,000 characters of a prompt, less a word that would be split."""
    if len(prompt) <= CHARACTERS:
        return prompt
    kept = prompt[:CHARACTERS]
    if re.match(r"[^\W_]", prompt[CHARACTERS]) and not lexicon.is_chinese(kept[-1]):
        kept = re.sub(r"[^\W_]+$", "", kept) or kept
    return kept.rstrip()


# ---------------------------------------------------------------- from a prompt to pieces


def clean(text: str, aside: bool = True) -> str:
    """Returns a text in small letters, with words for emoji, and with simplified characters.

    Example:
        >>> clean("🎈 Treeless, don't!")
        ' balloon  without tree; , do not!'
    """
    text = unicodedata.normalize("NFKC", text)
    known = table(aside)

    def says(word: str) -> bool:
        return bool(OF.keys() & known.get(_key(word), set()))

    def street(found: re.Match[str]) -> str:  # "Lake Street" is no lake
        return "" if says(found.group().lower()) else found.group()

    def less(found: re.Match[str]) -> str:  # "boatless", "a fog free forest", "a no-boat lake"
        whole, following = found.group(), found.group(3)
        stem = found.group(1) or found.group(2) or found.group(4)
        if _key(whole) in known or not says(stem) or (following and not says(following)):
            return whole
        return f"without {stem}; "

    def negative(found: re.Match[str]) -> str:
        return f", no {found.group(1).replace(',', '、')}"

    if re.search(r"\b[a-z]{3}", text):  # else capitals tell no name
        text = _STREET.sub(street, text)
    text = _plain(text.lower().translate(_letters()))
    text = _DASH.sub(", ", _NEGATIVE.sub(negative, _SLASH.sub(" | ", text)))
    text = _EITHER.sub(r"无论\g<0>,", _OUT.sub(r"leave out \1", text))
    return _LESS.sub(less, _FIRST.sub(r"没有\1，", _BESIDES.sub("有", _EXCEPT.sub("除了", text))))


def _plain(text: str) -> str:
    for short, long in _NOT:
        text = re.sub(short, long, text)
    return text


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
        token[:-1]
        if len(token) > 3 and re.search("[^sui]s$", token) and token not in _KEEP
        else token
        for token in said
        if token not in _ARTICLES
    )


def _articles(text: str) -> dict[int, str]:
    """Returns before which of its tokens an article stands, "a" or "the"."""
    found: dict[int, str] = {}
    at = 0
    for token in _TOKENS.findall(text):
        if token in _ARTICLES:
            found[at] = "the" if token == "the" else "a"
        else:
            at += 1
    return found


Table = dict[tuple[str, ...], frozenset[str]]


@cache
def table(aside: bool = True) -> Table:
    """Returns phrases, as tokens, to what they mean; with or without those set aside."""
    own, more = tables(aside)
    return more | own


@cache
def tables(aside: bool = True) -> tuple[Table, Table]:
    """Returns the table in two parts: what was written by hand, and what WordNet adds."""
    found: dict[tuple[str, ...], set[str]] = {}

    def add(phrase: str, marks: set[str]) -> None:
        for body in BODIES if "{body}" in phrase else ("",):
            said = _plain(phrase.replace("{body}", body))
            sun = {"sun"} if _SUN.search(said) and marks & OF.keys() else set()
            night = marks & (LIGHT | {"night"})
            moon = {"moon"} if _MOON.search(said) and night else set()
            found.setdefault(_key(said), set()).update(marks | sun | moon)

    def add_all(parts: Iterable[tuple[str, Sequence[str]]]) -> None:
        for head, part in parts:
            steers = head.startswith(("beside", "before"))
            for phrase in part:
                add(phrase, {head} if steers else set(head.split()))

    hand = dict(lexicon.sections())
    filler = hand.pop("filler")  # only its single words are known, so as not to hide "left"
    own = [*hand.items(), *(lexicon.sections("aside").items() if aside else ())]
    add_all(own)
    for wording in ("seen", "unseen") if aside else ("seen",):
        for value, phrase in lexicon.captions_say(wording):
            add(phrase, {value})
    for phrase in (phrase for head, part in own if not head for phrase in part):
        found[_key(phrase)].clear()
    common = " ".join(lexicon.lines("common") + filler)
    for word in common.split():
        found.setdefault(_key(word), set())
    for key, marks in found.items():
        if len(key) > 1 and marks and "end" in found.get(key[:1], ()):
            marks.add("end")  # "in the city" ends "no boat"
    written, found = found, {}
    add_all((h, part) for h, part in lexicon.sections("wordnet").items() if h != "english")
    more = {key: marks for key, marks in found.items() if not written.get(key)}
    return _frozen({k: v for k, v in written.items() if v or k not in more}), _frozen(more)


def _frozen(found: dict[tuple[str, ...], set[str]]) -> Table:
    return {key: frozenset(marks) for key, marks in found.items()}


def pieces(text: str, aside: bool = True) -> list[Piece]:
    """Cuts a text into the longest phrases that the lexicon knows, and single unknown tokens."""
    said = tuple(spell(word, aside) for word in _key(text))
    known, articles, found, start = table(aside), _articles(text), [], 0
    while start < len(said):
        for end in range(min(start + LONGEST, len(said)), start, -1):
            marks = known.get(said[start:end])
            if marks is not None:
                break
        else:
            end, marks = start + 1, None
        found.append(Piece(_join(said[start:end]), start, end, marks, articles.get(start, "")))
        start = end
    return found


@lru_cache(1 << 12)
def spell(word: str, aside: bool = True) -> str:
    """Returns an unknown word of four letters or more as the one word that is a slip away.

    Slips, from the likeliest on: two letters that have changed places; a letter too many or too
    few; another letter. If several words are as near, and do not say the same, the word stays.
    A word of English stays, too: WordNet has it.

    Reference: Norvig, 2007, How to write a spelling corrector.

    Example:
        >>> spell("sunest"), spell("goat"), spell("dessert")
        ('sunset', 'goat', 'dessert')
    """
    if len(word) < 4 or not re.fullmatch("[a-z]+", word) or word in _english():
        return word
    return word if (word,) in tables(aside)[1] else corrected(word, aside)


@cache
def _english() -> frozenset[str]:
    return frozenset(lexicon.sections("wordnet").get("english", ()))


def corrected(word: str, aside: bool = True) -> str:
    """Returns the word that is a slip away from an unknown one, or the word itself."""
    known = vocabulary(aside)
    if word in known:
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
def vocabulary(aside: bool = True) -> dict[str, frozenset[str]]:
    """Returns the words of all phrases written by hand, each with what it says alone."""
    known = tables(aside)[0]
    return {word: known.get((word,), frozenset()) for key in known for word in key}


def knows(word: str, aside: bool = True) -> bool:
    """Returns whether the lexicon has a word, be it among those that say nothing."""
    return _key(clean(word, aside)) in table(aside)


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
    clauses: list[list[str]] = [[]]  # of each piece, what it is to the sun or the moon
    unknown: list[tuple[Piece, bool]] = []
    scope, since, fresh, before, moon = "", 0, True, "", False
    for index, piece in enumerate(said):
        marks = piece.known
        values = piece.values
        if piece.before and index + 1 < len(said) and _is_sky(said[index + 1]):
            values = piece.before
        if "last" in marks and not _is_last(said, index):  # "it is a dark house"
            values = []
        if "water" in marks and any("lake" in one.known for one in said):
            values = []  # the open water of a lake
        body = marks & {"sun", "moon"}
        moon = moon or ("moon" in marks and scope != "any")
        pause = _PAUSE.match(piece.text) is not None
        if not marks and not pause:
            unknown.append((piece, piece.marks is None and not scope))
        if scope and not fresh and _ends(said, since, index, scope):
            scope = ""
        inside = scope != "" or (bool(values) and _is_gone(said, index))
        if "except" in marks:
            bare = _is_bare(said[:index])
            marks |= {"but"} if bare else {"not"}
            if bare and named.get("object", ("", 0))[0] == "nothing":
                del named["object"]
        if _rules_out_before(said, index):
            marks -= _NO
        if pause or "but" in marks:
            clauses.append([])
            if not (scope and _goes_on(said, since, index, scope)):
                scope = ""
        elif scope == "any":
            fresh = fresh and "stop" in marks
        elif "any" in marks:
            scope, since, fresh = "any", index, True
        elif marks & _NO:
            # Two of them cancel out: "not without a boat". "Can't see no boat" only insists.
            double = scope and since == index - 1 and piece.text not in ("no", "not", "never")
            scope, since, fresh = "" if double else min(marks & _NO), index, True
        elif inside:
            side = _kind(said, index)
            if side in _SIDES and "body" in clauses[-1]:  # "the sun is not on the left"
                excluded.setdefault("light", set()).add(side)
            times = [value for value in values if value != "night" or not body]
            if body and not times:
                named["light"] = "hidden", piece.end
            for value in times:
                excluded.setdefault(OF[value], set()).add(value)
            fresh = fresh and "stop" in marks
            if scope == "un" and not set(piece.text) <= {"一", "再", *_MEASURES}:
                scope = ""
        else:
            for value in values:
                if body and value == "night":  # the moon may be seen by day, too
                    continue
                old, end = named.get(OF[value], ("day", 0))
                follows = end == piece.start and value != "nothing"
                if old == "day" or before == "的" or follows:
                    named[OF[value]] = value, piece.end
        if not scope and _opens(said, index):
            scope, since, fresh = "not", index - 1, False
        if not pause:
            kind = _kind(said, index)
            if inside:  # of "no boat on the left" the sun says nothing
                kind = "and" if kind == "object" else ""
            if kind or not lexicon.is_chinese(piece.text) or clauses[-1][-1:] != [""]:
                clauses[-1].append(kind)  # unknown characters in a row are one word
        before = piece.text
    told = {name: value for name, (value, _) in named.items()}
    excluded = {name: found - {told.get(name)} for name, found in excluded.items()}
    excluded = {name: found for name, found in excluded.items() if found}
    if moon:
        told.setdefault("time", "night")
    for last, clause in itertools.pairwise(clauses):
        if "object" in last and "body" not in last and set(clause) <= {*_SIDES, "on", "of", "stop"}:
            last += clause  # "a house, on the left"
    near: list[tuple[int, str]] = []
    places: list[str] = []
    for clause in clauses:
        found = _placed(clause)
        near += [(distance, clause[at]) for distance, at in found]
        used = {at for _, at in found}
        if "object" in clause:
            places += [k for i, k in enumerate(clause) if k in _SIDES and i not in used]
    if near:
        told.setdefault("light", min(near)[1])
    return Understood(told, excluded, places=tuple(dict.fromkeys(places))), _runs(unknown)


def _ends(said: Sequence[Piece], since: int, index: int, scope: str) -> bool:
    """Returns whether a word such as "in" ends what is ruled out from the piece `since` on."""
    if scope == "any" and said[index].text in _ALL:  # 无论晴雨都有船
        return True
    if "end" not in said[index].known:
        return False
    if said[index].text == "as":  # "no boat as night falls", but "no such thing as a boat"
        return bool(said[index - 1].values)
    if scope == "any" and said[index - 1].text in _OR:  # "whether in rain or in sunshine"
        return False
    if said[index].text == "and":
        return not _has_more(said, since, index, scope)
    return True


def _is_new(said: Sequence[Piece], since: int, index: int) -> bool:
    """Returns whether an article or a wish begins something new: "no boats, a house" has a house.

    It does not in a list in which each has it: "without a boat, a tree or a house".
    """
    if index + 1 >= len(said):
        return False
    following, alike = said[index + 1], {piece.article for piece in said[since + 1 : index]}
    return following.text in _WISHES or following.article not in {"", *alike}


def _has_more(said: Sequence[Piece], since: int, index: int, scope: str) -> bool:
    """Returns whether what is ruled out goes on after "and": not in "no boats and a house".

    After "no", which is said of one thing or of several, it does if what follows is another thing
    of its kind, and the last one: not in "no rain and clear skies", "no boats and trees around".
    """
    if _is_new(said, since, index):
        return False
    following = said[index + 1] if index + 1 < len(said) else None
    if following and {"clear", "nothing"} & {*following.values}:
        return False
    if scope == "without":
        return True
    past = {OF[value] for piece in said[since + 1 : index] for value in piece.values}
    alike = past <= {"object", "weather"} and _is_alike(said, index + 1, past)
    return alike and _is_last(said, index + 1)


def _is_alike(said: Sequence[Piece], index: int, names: set[str]) -> bool:
    """Returns whether a piece says something of some attributes, and of no other."""
    return {OF[v] for piece in said[index : index + 1] for v in piece.values} == names != set()


def _is_last(said: Sequence[Piece], index: int) -> bool:
    """Returns whether a clause or a phrase ends after a piece."""
    following = said[index + 1 : index + 2]
    return not following or bool(
        _PAUSE.match(following[0].text) or following[0].known & {"end", "but"}
    )


def _goes_on(said: Sequence[Piece], since: int, index: int, scope: str) -> bool:
    """Returns whether what is ruled out goes on after a comma.

    It does in a list that ends in "or", as in "no boats, trees or houses", between Chinese commas
    of a list (没有树、船), and in one that ends in "and", of like things.
    """
    mark, past = said[index].text, said[since + 1 : index]
    if mark == ":":  # "exclude: boats"
        return not past and scope != "any"
    if not past or mark not in (",", "、", "/"):
        return False
    if mark != ",":
        return not _is_new(said, since, index)
    # "no boats or trees, a lake or a sea"
    over = any(piece.text in (*_OR, *_LAST) for piece in past)
    alike = {OF[value] for piece in past for value in piece.values}
    for at in range(index, min(len(said) - 1, index + REACH)):
        piece = said[at + 1]
        if piece.text in _OR:
            return not over or at == index
        if scope == "any":  # "whether it rains, snows or shines"
            return not over and _is_alike(said, at + 1, alike)
        if piece.text in _LAST:
            more = _has_more(said, since, at + 1, scope)
            return more and not over and _is_alike(said, at + 2, alike)
        marks = piece.known
        paused = _PAUSE.match(piece.text) and piece.text not in (",", "、", "/")
        if _is_new(said, since, at) or paused or marks & {"end", "but", *_NO}:
            return False
    return False


def _opens(said: Sequence[Piece], index: int) -> bool:
    """Returns whether a phrase such as "no people" begins a list: "no people or boats"."""
    following = said[index + 1 : index + 2]
    if not following or not re.match("(?:no|without) |没有.|不要.", said[index].text):
        return False
    if following[0].text in ("和", "与", *_OR):
        return True
    return following[0].text == "," and _goes_on(said, index - 1, index + 1, "not")


def _rules_out_before(said: Sequence[Piece], index: int) -> bool:
    """Returns whether a piece rules out what stands before it: not in "missing its boat"."""
    piece = said[index]
    marks = piece.known
    hidden = "beside hidden" in marks and piece.text.startswith(("no", "不"))
    if not hidden and "gone" not in marks:
        return False
    return _is_last(said, index) or said[index + 1].text in ("from", "了")


def _is_gone(said: Sequence[Piece], index: int) -> bool:
    """Returns whether what follows a thing rules it out: "boats are not allowed", 船除外."""
    piece, at = said[index], index + 1
    last = said[max(index - 1, 0)]
    if _is_place(piece) or (_is_place(last) and not last.values):
        return False  # the lake of "the boat on the lake is gone"
    if at < len(said) and _is_place(said[at]):
        place = at + (1 if said[at].values else 2)
        at = place if place < len(said) and said[place].text in _BE else at
    while at < min(len(said), index + REACH):
        last = said[at]
        marks = last.known
        if _rules_out_before(said, at):
            return True
        same = {OF[v] for v in last.values} == {OF[v] for v in piece.values}
        joined = last.text in ("and", "和", "与", "、", *_OR) or same
        idle = ("stop" in marks and "end" not in marks) or last.text.endswith("ly")
        if not idle and (piece.article or not joined):
            return False
        at += 1
    return False


def _is_place(piece: Piece) -> bool:
    """Returns whether a piece begins with a preposition of place."""
    return piece.text.split(" ")[0] in _PLACE


def _is_bare(past: Sequence[Piece]) -> bool:
    """Returns whether there is nothing so far, so that "except a boat" has a boat."""
    for piece in reversed(past[-REACH:]):
        if piece.text in (".", ";", "!", "?", "。"):
            return False
        if piece.text in ("nothing", "nobody", "none", "bare") or "nothing" in piece.values:
            return True
        if piece.known & _NO:
            return True
    return False


def _is_sky(piece: Piece) -> bool:
    said = {OF[value] for value in piece.values}
    return "time" in said or piece.text in ("sky", "skie", "weather")


def _kind(said: Sequence[Piece], index: int) -> str:
    """Returns what a piece is to the sun or the moon: one of them, a side, or another thing."""
    piece = said[index]
    marks = piece.known
    for side in (mark.split()[1] for mark in sorted(marks) if mark.startswith("beside")):
        return side if _is_side(said, index) else ""
    if marks & {"sun", "moon"}:
        return "body"
    for value in piece.values:
        if OF[value] in ("object", "land"):
            return "place" if OF[value] == "land" and "end" in marks else OF[value]
    for kind, words in (("on", _ON), ("and", _AND), ("of", ("of",)), ("by", ("by", "被"))):
        if piece.text in words:
            return kind
    return "stop" if "stop" in marks else ""


def _is_side(said: Sequence[Piece], index: int) -> bool:
    """Returns whether a word tells a side: not in "right above", "left home", "a hidden lake"."""
    last = said[index - 1] if index else None
    following = said[index + 1] if index + 1 < len(said) else None
    if said[index].text in _HIDDEN:
        things = following.values if following and "end" not in following.known else []
        return not any(OF[value] in ("land", "object") for value in things)
    if said[index].text not in ("left", "right"):
        return True
    if last and last.text.split(" ")[-1] in _OF:
        return True
    after = following.text.split(" ")[0] if following else ","
    if _PAUSE.match(after) or after in ("of", *_AND):
        return True
    return after not in _PLACES and bool(last and last.known & {"sun", "moon"})


def _placed(clause: Sequence[str]) -> list[tuple[int, int]]:
    """Returns where the sides stand on which the sun or the moon may be, after their distances.

    A side tells of what is named next to it: not of the sun in "a boat on the right at sunset" or
    in "a sunset with a boat on the right".
    """
    found = []
    for at, side in enumerate(clause):
        after = [kind for kind in clause[at + 1 :] if kind != "stop"]
        of = after[:1] == ["of"]
        if side == "middle" and of and after[1:2] and after[1] in ("land", "object", "hidden"):
            continue  # "in the middle of the desert", "of nowhere"
        other = after[:1] == ["object"]
        for body in (i for i, kind in enumerate(clause) if kind == "body" and side in LIGHT):
            between = clause[min(at, body) + 1 : max(at, body)]
            if body < at and set(between) <= {"on"} and (between or not other):
                found.append((len(between), at))
                continue
            barred = other or bool({"object", "and"} & set(between))
            barred |= at < body and (of or "object" in clause[:at])
            if side == "hidden":
                barred |= bool({"land", "place"} & set(between)) and "by" not in between
                barred |= at < body and not set(between) <= {"stop"}
            if not barred and len(between) < NEAR:
                found.append((len(between), at))
    return found


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
    """Returns whether a text may be a word, rather than a lens ("35mm") or a camera ("d850")."""
    if lexicon.is_chinese(text):
        return 1 < len(text) < 4
    return 3 < len(text) < 20 and not re.search(r"\d", text)


def _guess(texts: Sequence[str]) -> list[dict[str, tuple[str, float]]]:
    """Returns for each text the values that the student reads, with their probabilities."""
    parts = load_student().read(texts)
    return [
        {
            name: (ATTRIBUTES[name][int(part[i].argmax()) - 1], float(part[i].max()))
            for name, part in zip(ATTRIBUTES, parts, strict=True)
            if part[i].argmax()
        }
        for i in range(len(texts))
    ]
