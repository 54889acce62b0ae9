"""The language model writes: a short wish becomes full descriptions that an image can follow.

SmolLM2 is small and rambles, so it does not write freely. The grammar of the captions leaves it
one choice for each of the five attributes: which value does the wish name, or none? Each choice is
one token after a few examples, and the model's logits are its likelihood. What the wish names is
kept; what it leaves open is drawn, so that each description is another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from scipy.special import log_softmax

from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.models.llm import LLM, State, load_llm
from genlib.text import lexicon
from genlib.text.student import CHARACTERS, load_student, words

Method = Literal["student", "grammar", "free"]
Writer = Callable[[str], str]  # any language model: prompt → text

NAMES = tuple(ATTRIBUTES)
OPEN = "any"  # what the model answers where the wish names no value
EXAMPLES = 3  # of each answer in a prompt
_ASK = {
    "time": "the time of day",
    "land": "the place",
    "light": "where the sun or the moon stands",
    "weather": "the weather",
    "object": "the thing in it",
}
_EMPTY = ("N/A", "an image", "a beautiful picture")  # wishes that name nothing, to calibrate with
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True)
class Description:
    """A full description of an image.

    Attributes:
        text: what the image is asked to show.
        attributes: the five values, in the order of `genlib.data.scenes.NAMES`.
        named: those attributes that the wish itself names; the others were drawn.
        log_probability: of the five values, as the reader of the wish sees it, in nats.
        understood: for people: what was understood of the wish, and which words were not.
    """

    text: str
    attributes: tuple[str, ...]
    named: frozenset[str]
    log_probability: float
    understood: str


def describe(
    wish: str,
    n: int = 1,
    seed: int = 0,
    method: Method = "student",
    *,
    writer: Writer | None = None,
    temperature: float = 1.0,
) -> list[Description]:
    """Turns a wish into full descriptions.

    Any other language model can write, here one of transformers:

        pipe = transformers.pipeline("text-generation", model="…", return_full_text=False)
        describe(wish, method="free", writer=lambda prompt: pipe(prompt)[0]["generated_text"])

    Args:
        wish: English or Chinese; 2,000 characters are read.
        n: how many descriptions.
        seed: of what is drawn. Description `i` depends on the wish, the seed and `i`.
        method: who reads the wish and fills in what it leaves open. `"student"`: the small
            encoder reads, and what is open is drawn evenly. `"grammar"`: SmolLM2 reads and
            prefers (a Chinese wish is read by the student, since SmolLM2 reads English).
            `"free"`: a language model writes a sentence as it likes, and the student reads that.
        writer: prompt to text, for `"free"`; SmolLM2 unless given.
        temperature: of the draws by `"grammar"`; 0 takes the likeliest.

    Raises:
        TypeError: if the wish is no text.
        ValueError: if the wish is empty, or an argument is out of range or unknown.
        ImportError: if SmolLM2 lacks a package; the message has the command that installs it.

    Example:
        >>> describe("a boat at dusk", seed=1)[0].named == {"time", "object"}
        True
    """
    if not isinstance(wish, str):
        raise TypeError(f"A wish is a text, got {type(wish).__name__}.")
    wish = wish.strip()[:CHARACTERS]
    if not wish:
        raise ValueError('The wish is empty. Say what to show, such as "a sunset over the sea".')
    if n < 1 or seed < 0 or not 0 <= temperature < np.inf:
        raise ValueError(
            f"n = {n}, seed = {seed}, temperature = {temperature}: give n of at least 1, the "
            "others from 0."
        )
    if method not in get_args(Method):
        raise ValueError(f"Unknown method {method!r}. Choose one of {get_args(Method)}.")
    if writer is not None and method != "free":
        raise ValueError(f'A writer needs method="free", not {method!r}.')
    if method == "free":
        written = (writer or _smollm)(prompt(wish))
        if not isinstance(written, str):
            raise TypeError(f"The writer returned {type(written).__name__}; return a text.")
        reading = _join(read(wish), read(written[:CHARACTERS]))
    elif method == "grammar" and not _CHINESE.search(wish):
        reading = load_reader()(wish)
    else:
        reading = read(wish)
    taste = reading
    if method == "grammar" and _CHINESE.search(wish):
        taste = load_reader()(captions.plain(*_plainly(reading)) or "an image")
    elif method != "grammar":
        taste, temperature = [np.zeros(len(part)) for part in reading], 1.0
    return _complete(wish, reading, taste, n, seed, temperature)


def read(wish: str) -> list[np.ndarray]:
    """Returns what the student reads: for each attribute, log-probabilities of "open" and values.

    A wish of which it knows no word names nothing, whatever its words look like.
    """
    known = [w for w in words(wish) if w not in _STOP and not _strange(w)]
    if not known:
        return [log_softmax(np.r_[20.0, np.zeros(len(v))]) for v in ATTRIBUTES.values()]
    return [np.log(np.maximum(part[0], 1e-9)) for part in load_student().read([wish])]


def prompt(wish: str) -> str:
    """Returns what a language model is asked that writes freely."""
    return (
        f'Describe an image for the wish "{wish}" in one short sentence. Keep all that the wish '
        "says. Name the time of day, the place, where the sun or the moon stands, the weather, "
        "and one object."
    )


def _smollm(asked: str) -> str:
    llm = _llm()
    return llm.generate([llm.chat(asked)], 60, stop=["\n"])[0]


@cache
def _llm() -> LLM:
    return load_llm()


_STOP = frozenset(
    words(
        "a an the of in on at by over to with and or is it its i we me my you us as for from this "
        "that there please make paint draw show create generate imagine image picture photo scene "
        "painting landscape view want would like see look looks dream could some one very so no "
        "beautiful quiet peaceful lovely serene wonderful magnificent calm dreamy romantic nice "
        "breathtaking shows too 的 一 张 幅 图 像 画 生 成 我 想 请 要 看 有 在 和 着 了 是 很 个 "
        "给 来 里 上 中 下 边 美 丽 图像 一张 生成"
    )
)


# ---------------------------------------------------------------- the language model's reading


class Reader:
    """Reads with a language model which value of each attribute a wish names.

    Five prompts, one for each attribute, hold the same question about other captions with its
    answers. They are read once; a wish continues all five at once, and the logits of the answers'
    first tokens tell how likely each answer is. The model likes some answers better than others
    whatever the wish, so what it says of empty wishes is subtracted.

    Args:
        llm: the language model; no two answers to one question may begin with the same token.
        examples: of each answer in a prompt.
        calibrate: subtract what the model says of wishes that name nothing.

    Reference: Zhao et al., 2021, arXiv:2102.09690, section 4 (contextual calibration).

    Example:
        >>> load_reader()("a small boat at dusk")[0].argmax()  # 0 is open, then the times of day
        3
    """

    def __init__(self, llm: LLM, examples: int = EXAMPLES, calibrate: bool = True) -> None:
        self.llm = llm
        self.answers = [
            [llm.tokenize(f" {answer}")[0] for answer in (OPEN, *values)]
            for values in ATTRIBUTES.values()
        ]
        for name, first in zip(NAMES, self.answers, strict=True):
            if len(set(first)) < len(first):
                raise ValueError(f"Two values of {name} begin with the same token: {first}.")
        self.state: State = llm.prefill([few_shot(name, examples) for name in NAMES], room=128)
        self.bias: list[np.ndarray] = [np.zeros(len(a)) for a in self.answers]
        if calibrate:
            empty = [self(wish) for wish in _EMPTY]
            self.bias = [np.mean(part, axis=0) for part in zip(*empty, strict=True)]

    def __call__(self, wish: str) -> list[np.ndarray]:
        """Returns for each attribute the log-probabilities of "open" and of its values."""
        said = " ".join(wish.replace("<|", "< |").split())[:400]
        ids = self.llm.tokenize(f"{said} =>")
        logits = self.llm.step(self.state, np.tile(ids, (len(NAMES), 1))).logits
        return [
            log_softmax(log_softmax(row[first].astype(np.float64)) - bias)
            for row, first, bias in zip(logits, self.answers, self.bias, strict=True)
        ]


def few_shot(name: str, examples: int = EXAMPLES) -> str:
    """Returns a question about one attribute, and captions with the answers."""
    rng = np.random.default_rng(list(NAMES).index(name))
    values = ATTRIBUTES[name]
    wanted = dict.fromkeys((OPEN, *values), examples)
    lines = []
    while any(wanted.values()):
        row = scenes.combinations()[rng.integers(len(scenes.combinations()))]
        said = captions.caption(row, rng, language="en")
        answer = values[row[NAMES.index(name)]] if name in said.named else OPEN
        if wanted[answer] and len(said.text) < 70:
            wanted[answer] -= 1
            lines.append(f"{said.text} => {answer}\n")
    rng.shuffle(lines)
    choices = ", ".join(values)
    return f"Which is {_ASK[name]}: {choices}? If it is not said: {OPEN}.\n\n" + "".join(lines)


@cache
def load_reader() -> Reader:
    """Returns SmolLM2 with the prompts read.

    Raises:
        ImportError: if a package is missing; the message has the command that installs it.
    """
    return Reader(_llm())


# ---------------------------------------------------------------- from a reading to descriptions


def _named(reading: Sequence[np.ndarray]) -> list[bool]:
    return [bool(part.argmax()) for part in reading]


def _join(wish: Sequence[np.ndarray], more: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the wish's reading, and where it is open, that of what was written for it."""
    return [a if told else b for a, b, told in zip(wish, more, _named(wish), strict=True)]


def _plainly(reading: Sequence[np.ndarray]) -> tuple[list[int], set[str]]:
    values = [int(part[1:].argmax()) for part in reading]
    return values, {name for name, told in zip(NAMES, _named(reading), strict=True) if told}


def _complete(
    wish: str,
    reading: Sequence[np.ndarray],
    taste: Sequence[np.ndarray],
    n: int,
    seed: int,
    temperature: float,
) -> list[Description]:
    """Draws combinations that can be drawn and keep what is named."""
    rows = scenes.combinations()
    told = _named(reading)
    fit = np.zeros(len(rows))
    for i, part in enumerate(reading):
        if told[i]:  # a boat on sand cannot be: then the surer of the two is kept
            fit += part[1:][rows[:, i]]
    rows = rows[fit >= fit.max() - 1e-9]
    likely = np.zeros(len(rows))
    for i, part in enumerate(taste):
        if not told[i]:
            likely += part[1:][rows[:, i]]
    found = []
    for index in range(n):
        rng = np.random.default_rng((seed, index))
        noise = rng.gumbel(size=len(rows))  # the largest sum is a draw from the softmax
        row = rows[(likely + temperature * noise).argmax()]
        kept = [t and reading[i][1:].argmax() == row[i] for i, t in enumerate(told)]
        named = frozenset(name for name, k in zip(NAMES, kept, strict=True) if k)
        values = tuple(ATTRIBUTES[name][v] for name, v in zip(NAMES, row, strict=True))
        sure = float(sum(log_softmax(p[1:])[v] for p, v in zip(reading, row, strict=True)))
        lost = [ATTRIBUTES[m][reading[i][1:].argmax()] for i, m in enumerate(NAMES) if told[i]]
        note = _note(wish, values, named, [v for v in lost if v not in values])
        found.append(Description(captions.full(row), values, named, sure, note))
    return found


def _note(wish: str, values: Sequence[str], named: frozenset[str], lost: Sequence[str]) -> str:
    said = ", ".join(f"{n} {v}" for n, v in zip(NAMES, values, strict=True) if n in named)
    free = ", ".join(name for name in NAMES if name not in named)
    if lost:
        said += f" (not with it: {', '.join(lost)}; a boat needs water)"
    note = f"Understood: {said or 'nothing that can be drawn'}."
    if free:
        note += f" Left open: {free}."
    strange = list(dict.fromkeys(w for w in words(wish) if w not in _STOP and _strange(w)))
    if strange:
        note += f" Unknown words: {', '.join(w[:24] for w in strange[:8])}."
    return note


def _strange(word: str) -> bool:
    """Returns whether no training text has a word; of a run of Chinese, all its characters."""
    if _CHINESE.match(word):
        return not any(character in _vocabulary() for character in word)
    return word not in _vocabulary()


@cache
def _vocabulary() -> frozenset[str]:
    found: set[str] = set()
    for index in range(max(map(len, ATTRIBUTES.values()))):
        row = [min(index, len(values) - 1) for values in ATTRIBUTES.values()]
        for name in NAMES:
            for phrase in lexicon.phrases(name, row, "en") + lexicon.phrases(name, row, "zh"):
                found.update(words(phrase))
    return frozenset(found | {c for word in found if _CHINESE.match(word) for c in word}) - _STOP
