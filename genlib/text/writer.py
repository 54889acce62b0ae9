"""The language model writes: a short prompt becomes full descriptions that an image can follow.

SmolLM2 is small and rambles, so it does not write freely: the grammar of the captions leaves it
single choices, and its logits are the likelihoods. It explains the words that the student does not
know, each as one of the values that an image can have ("schooner => boat"), and it prefers some
values for what the prompt leaves open. What the prompt names is kept; what it leaves open is drawn,
so that each description is another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from scipy.special import log_softmax

from genlib import ranges
from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.models import sampling
from genlib.models.sampling import WORDS
from genlib.text import lexicon
from genlib.text.llm import LLM, State, load_llm
from genlib.text.reader import Understood, knows, shorten, understand
from genlib.text.student import CHARACTERS, words

Method = Literal["student", "grammar", "free"]
Writer = Callable[[str], str]  # any language model: prompt → text

NAMES = tuple(ATTRIBUTES)
ANSWERS = (*(value for values in ATTRIBUTES.values() for value in values), "other")
SURE = 0.5  # how likely an explanation must be to count
QUERIES = 12  # words and phrases of a prompt that are explained
_CUT = re.compile(r"[,;.:!?]|\b(?:with|and|in|at|under|by|over|on|too)\b")  # between phrases
_STARTS = np.cumsum([0, *map(len, ATTRIBUTES.values())])
_OTHERS = ("a dog", "happy people", "a blue guitar")  # examples of what cannot be drawn
_TASTE = ("Time of day", "Place", "The sun or moon is on the", "The weather is", "One sees a")
# How often a value is drawn where the prompt leaves it open. People name what is out of the
# ordinary (Grice, 1975, the maxim of quantity): a sunset without a word on rain is a dry one.
_USUAL: Mapping[str, tuple[float, ...]] = {
    "light": (0.3, 0.3, 0.3, 0.1),  # seldom hidden
    "weather": (0.7, 0.2, 0.04, 0.03, 0.03),  # mostly clear, or a few clouds
    "object": (0.4, 0.15, 0.15, 0.15, 0.15),
}
_SHOWN = 3.0  # nats by which the low sun of dawn and sunset is hidden more seldom than that
_RULED_OUT = -50.0  # nats of a value that the prompt rules out
_NOTHING = 3.0  # nats more for nothing, where the prompt rules out an object


@dataclass(frozen=True)
class Description:
    """A full description of an image.

    Attributes:
        text: what the image is asked to show.
        attributes: the five values, in the order of `genlib.data.scenes.NAMES`.
        named: those attributes that the prompt itself names; the others were drawn.
        log_probability: of the five values, as the reader of the prompt sees it, in nats.
        understood: for people: what was understood of the prompt, and which words were not.
    """

    text: str
    attributes: tuple[str, ...]
    named: frozenset[str]
    log_probability: float
    understood: str


def describe(
    prompt: str,
    n: int = 1,
    seed: int = 0,
    method: Method = "student",
    *,
    writer: Writer | None = None,
    temperature: float = 1.0,
) -> list[Description]:
    """Turns a prompt into full descriptions.

    Any other language model can write, here one of transformers:

        pipe = transformers.pipeline("text-generation", model="…", return_full_text=False)
        describe(prompt, method="free", writer=lambda prompt: pipe(prompt)[0]["generated_text"])

    Args:
        prompt: English, Chinese, or both; 2,000 characters are read. What it rules out ("no boat")
            is not drawn.
        n: how many descriptions.
        seed: of what is drawn. Description `i` depends on the prompt, the seed and `i`.
        method: who reads the prompt and fills in what it leaves open. `"student"`: the small
            encoder reads, and what is open is drawn from what is usual: clear weather more often
            than rain. `"grammar"`: SmolLM2 explains the words that the student does not know, if
            they are English, and prefers some values.
            `"free"`: a language model writes a sentence as it likes, and the student reads that.
        writer: prompt to text, for `"free"`; SmolLM2 unless given.
        temperature: of the draws by `"grammar"`; 0 takes the likeliest.

    Raises:
        TypeError: if the prompt is no text.
        ValueError: if the prompt is empty, or an argument is out of range or unknown.
        ImportError: if SmolLM2 lacks a package; the message has the command that installs it.

    Example:
        >>> describe("a boat at dusk", seed=1)[0].named == {"time", "object"}
        True
    """
    if not isinstance(prompt, str):
        raise TypeError(f"A prompt is a text, got {type(prompt).__name__}.")
    if not prompt.strip():
        raise ValueError('The prompt is empty. Say what to show, such as "a sunset over the sea".')
    ranges.check_all(n=n, seed=seed, temperature=temperature)
    if method not in get_args(Method):
        raise ValueError(f"Unknown method {method!r}. Choose one of {get_args(Method)}.")
    if writer is not None and method != "free":
        raise ValueError(f'A writer needs method="free", not {method!r}.')
    found = understand(prompt)
    prompt = shorten(prompt.strip())
    reading = _reading(found)
    if method == "free":
        written = (writer or _smollm)(request(prompt))
        if not isinstance(written, str):
            raise TypeError(f"The writer returned {type(written).__name__}; return a text.")
        reading = _join(reading, read(written))
    elif method == "grammar":
        reading = explain(prompt, load_reader())
    if method == "grammar":
        taste = load_reader().taste(captions.plain(*_plainly(reading)))
    else:
        taste, temperature = [np.zeros(len(values)) for values in ATTRIBUTES.values()], 1.0
    taste = [_usual(name, found) + part for name, part in zip(NAMES, taste, strict=True)]
    return _complete(found, reading, taste, n, seed, temperature)


def read(prompt: str, *, aside: bool = True) -> list[np.ndarray]:
    """Returns what is understood, for each attribute as log-probabilities of "open" and values.

    Args:
        prompt: a text.
        aside: as in `understand`.
    """
    return _reading(understand(prompt, aside=aside))


def _reading(found: Understood) -> list[np.ndarray]:
    parts = []
    for name, values in ATTRIBUTES.items():
        part = np.full(1 + len(values), np.log(1e-3))
        part[1 + values.index(found.named[name]) if name in found.named else 0] = 0.0
        part[[1 + values.index(v) for v in found.excluded.get(name, ())]] = _RULED_OUT
        parts.append(log_softmax(part))
    return parts


def request(prompt: str) -> str:
    """Returns what a language model is asked that writes freely."""
    return (
        f'Describe an image for the prompt "{prompt}" in one short sentence. Keep all that the '
        "prompt says. Name the time of day, the place, where the sun or the moon stands, the "
        "weather, and one object."
    )


def _smollm(asked: str) -> str:
    llm = _llm()
    return llm.generate([llm.chat(asked)], 60, stop=["\n"])[0]


@cache
def _llm() -> LLM:
    return load_llm()


# ---------------------------------------------------------------- the language model's reading


class Reader:
    """Explains words with a language model, and tells what it would like to see.

    A prompt of examples ("twilight => sunset") is read once. A phrase continues it, and the logits
    of the answers' first tokens tell which answer is how likely.

    Args:
        llm: the language model; no two of `ANSWERS` may begin with the same token.
        examples: of each value in the prompt.

    Reference: Zhao et al., 2021, arXiv:2102.09690, section 4 (contextual calibration, of `taste`;
    it makes explanations worse).

    Example:
        >>> ANSWERS[load_reader()("a schooner").argmax()]
        'boat'
    """

    def __init__(self, llm: LLM, examples: int = 2) -> None:
        self.llm = llm
        self.first = [llm.tokenize(f" {answer}")[0] for answer in ANSWERS]
        if len(set(self.first)) < len(ANSWERS):
            raise ValueError(f"Two answers begin with the same token: {self.first}.")
        self.state: State = llm.prefill(few_shot(examples), room=48)
        self._indifferent = self._likely("a scene")

    def __call__(self, phrase: str) -> np.ndarray:
        """Returns the log-probabilities of `ANSWERS` for what a phrase means, float64 `(25,)`."""
        ids = self.llm.tokenize(f"{phrase[:80].replace('<|', '< |')} =>")
        logits = self.llm.step(self.state, [ids]).logits[0]
        return log_softmax(logits[self.first].astype(np.float64))

    def taste(self, plain: str) -> list[np.ndarray]:
        """Returns for each attribute how likely each value is, given a plain caption, in nats.

        What the model likes whatever the caption is subtracted.
        """
        likely = self._likely(plain or "a scene")
        return [a - b for a, b in zip(likely, self._indifferent, strict=True)]

    def _likely(self, plain: str) -> list[np.ndarray]:
        logits = self.llm.prefill([f"An image of {plain}. {ask}:" for ask in _TASTE]).logits
        return [
            log_softmax(row[self.first[start:end]].astype(np.float64))
            for row, start, end in zip(logits, _STARTS, _STARTS[1:], strict=False)
        ]


def explain(
    prompt: str, reader: Callable[[str], np.ndarray], *, aside: bool = True
) -> list[np.ndarray]:
    """Returns what is understood, and for what is left open, what the unknown words mean.

    Args:
        prompt: a text; its unknown English words are explained, alone and within their phrases.
        reader: phrase to the log-probabilities of `ANSWERS`.
        aside: as in `understand`.

    Returns:
        As `read` does.
    """
    reading = read(prompt, aside=aside)
    unknown = {w for w in words(prompt) if not lexicon.is_chinese(w) and not knows(w, aside)}
    asked: list[str] = []
    for part in _CUT.split(prompt.lower()):
        inside = words(part)
        if unknown & set(inside):
            asked += [w for w in inside if w in unknown]
            asked += [" ".join(inside)] if 1 < len(inside) < 7 else []
    best: dict[int, np.ndarray] = {}
    for phrase in [*dict.fromkeys(asked)][:QUERIES]:
        answer = reader(phrase)
        index = int(answer.argmax())
        if index == len(ANSWERS) - 1 or answer[index] < np.log(SURE):
            continue
        which = int(np.searchsorted(_STARTS, index, side="right")) - 1
        if which not in best or answer[index] > best[which].max():
            best[which] = answer[[-1, *range(_STARTS[which], _STARTS[which + 1])]]
    return [
        log_softmax(best[i]) if i in best and not told else part
        for i, (part, told) in enumerate(zip(reading, _named(reading), strict=True))
    ]


def few_shot(examples: int) -> str:
    """Returns the prompt: words for each value, and words for none."""
    rng = np.random.default_rng(0)
    lines = [f"{phrase} => other\n" for phrase in _OTHERS]
    for name, values in ATTRIBUTES.items():
        for index, value in enumerate(values):
            row = [min(index, len(v) - 1) for v in ATTRIBUTES.values()]
            known = lexicon.phrases(name, row, "en")
            chosen = rng.choice(known, min(examples, len(known)), replace=False)
            lines += [f"{phrase} => {value}\n" for phrase in chosen]
    rng.shuffle(lines)
    return "Words for landscapes, and their kind.\n\n" + "".join(lines)


@cache
def load_reader() -> Reader:
    """Returns SmolLM2 with the prompt read.

    Raises:
        ImportError: if a package is missing; the message has the command that installs it.
    """
    return Reader(_llm())


# ---------------------------------------------------------------- from a reading to descriptions


def _named(reading: Sequence[np.ndarray]) -> list[bool]:
    return [bool(part.argmax()) for part in reading]


def _join(prompt: Sequence[np.ndarray], more: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the prompt's reading, and where it is open, that of what was written for it."""
    return [a if told else b for a, b, told in zip(prompt, more, _named(prompt), strict=True)]


def _plainly(reading: Sequence[np.ndarray]) -> tuple[list[int], set[str]]:
    values = [int(part[1:].argmax()) for part in reading]
    return values, {name for name, told in zip(NAMES, _named(reading), strict=True) if told}


def _usual(name: str, found: Understood) -> np.ndarray:
    """Returns how usual each value is where the prompt leaves it open, in nats."""
    likely = np.log(_USUAL.get(name, (1,) * len(ATTRIBUTES[name])))
    for value in found.excluded.get(name, ()):
        likely[ATTRIBUTES[name].index(value)] = _RULED_OUT
        likely[0] += _NOTHING * (name == "object" and value != "nothing")
    return likely


def _complete(
    found: Understood,
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
            likely += part[rows[:, i]]
    values = np.array([[ATTRIBUTES[m][v] for m, v in zip(NAMES, r, strict=True)] for r in rows])
    if not told[NAMES.index("light")]:
        low = np.isin(values[:, NAMES.index("time")], ("dawn", "sunset"))
        likely -= _SHOWN * (low & (values[:, NAMES.index("light")] == "hidden"))
    made = []
    for index in range(n):
        rng = sampling.stream((seed, WORDS), index)
        noise = rng.gumbel(size=len(rows))  # the largest sum is a draw from the softmax
        row = rows[(likely + temperature * noise).argmax()]
        kept = [t and reading[i][1:].argmax() == row[i] for i, t in enumerate(told)]
        named = frozenset(name for name, k in zip(NAMES, kept, strict=True) if k)
        drawn = tuple(ATTRIBUTES[name][v] for name, v in zip(NAMES, row, strict=True))
        sure = float(sum(log_softmax(p[1:])[v] for p, v in zip(reading, row, strict=True)))
        lost = [ATTRIBUTES[m][reading[i][1:].argmax()] for i, m in enumerate(NAMES) if told[i]]
        note = _note(found, drawn, named, [v for v in lost if v not in drawn])
        made.append(Description(captions.full(row), drawn, named, sure, note))
    return made


def _note(
    found: Understood, values: Sequence[str], named: frozenset[str], lost: Sequence[str]
) -> str:
    said = ", ".join(f"{n} {v}" for n, v in zip(NAMES, values, strict=True) if n in named)
    free = ", ".join(name for name in NAMES if name not in named)
    without = [value for name in NAMES for value in sorted(found.excluded.get(name, ()))]
    if lost:
        said += f" (not with it: {', '.join(lost)}; a boat needs water)"
    note = f"Understood: {said or 'nothing that can be drawn'}."
    if without:
        note += f" Ruled out: {', '.join(without)}."
    if free:
        note += f" Left open: {free}."
    if found.places:
        what = found.named.get("object", "object")
        note += f" Not drawn: the place of the {what} ({', '.join(found.places)})."
    if found.unknown:
        shown = ", ".join(w if len(w) < 25 else w[:24] + "…" for w in found.unknown[:8])
        more = len(found.unknown) - 8
        note += f" Unknown words: {shown}{f' and {more:,} more' * (more > 0)}."
    if found.cut:
        note += f" Only the first {CHARACTERS:,} characters were read."
    return note
