"""Do words that a language model knows help to read wordings that nobody wrote down?

The student's training texts are augmented. SmolLM2 is asked of each English word of its vocabulary
what the word means for a landscape ("downtown => city"); words of which it is sure take the place
of the phrases that people wrote. Four students train equally long, on one wording and on all, each
without and with the mined words, and are asked about wordings that were set aside.

    python benchmarks/augment.py    # 25 minutes on one core; writes genlib/records/augment.json
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
import typer
from scipy.special import log_softmax

from genlib import records, train
from genlib.data import captions
from genlib.data.captions import ATTRIBUTES, Caption
from genlib.ladder import quality
from genlib.text import reader, writer
from genlib.train import text_student
from genlib.train.tasks import Recipe

NAMES = tuple(ATTRIBUTES)
SURE = 0.8  # how likely a meaning must be
MINED = 0.3  # share of phrases in whose place a mined word stands
BATCH = 32  # words at once
Say = Callable[[Sequence[int], np.random.Generator], Caption]


def vocabulary() -> list[str]:
    """Returns the whole English words among SmolLM2's tokens."""
    llm = writer._llm()
    tokens = (llm.detokenize([i]) for i in range(int(llm.embedding.shape[0])))
    return sorted({t.strip() for t in tokens if re.fullmatch(r" [a-z]{3,}", t)})


def meanings(words: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns for each word the log-probabilities of `writer.ANSWERS`, as `Reader` does."""
    llm, explainer = writer._llm(), writer.load_reader()
    groups: dict[int, list[tuple[str, list[int]]]] = {}
    for word in words:
        ids = llm.tokenize(f"{word} =>")
        groups.setdefault(len(ids), []).append((word, ids))
    shared, found = explainer.state.select([0] * BATCH), {}
    for same_length in groups.values():
        for first in range(0, len(same_length), BATCH):
            part = same_length[first : first + BATCH]
            ids = [i for _, i in part] + [part[0][1]] * (BATCH - len(part))
            logits = llm.step(shared, np.array(ids)).logits[:, explainer.first]
            for (word, _), row in zip(
                part, log_softmax(logits.astype(float), axis=1), strict=False
            ):
                found[word] = row
    return found


def mine(found: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns for each value the new words of which the model is sure."""
    mined: dict[str, list[str]] = {value: [] for value in writer.ANSWERS}
    for word, row in found.items():
        if not reader.knows(word) and row.max() > np.log(SURE):
            mined[writer.ANSWERS[row.argmax()]].append(word)
    return mined


def one_wording(row: Sequence[int], rng: np.random.Generator) -> Caption:
    """Says some of the attributes, always in the same words."""
    named = rng.permutation(NAMES)[: rng.integers(1, len(NAMES) + 1)]
    return Caption(captions.plain(row, set(named)), "en", frozenset(map(str, named)))


def with_mined(say: Say, mined: Mapping[str, list[str]]) -> Say:
    """Returns a way to speak that adds mined words, for attributes that were not named."""

    def augmented(row: Sequence[int], rng: np.random.Generator) -> Caption:
        said = say(row, rng)
        text, named = said.text, set(said.named)
        for name, value in zip(NAMES, row, strict=True):
            words = mined[ATTRIBUTES[name][value]]
            if name not in named and words and rng.random() < MINED:
                word = words[rng.integers(len(words))]
                text = f"{word} {text}" if rng.random() < 0.5 else f"{text} {word}"
                named.add(name)
        return Caption(text, said.language, frozenset(named))

    return augmented


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Of each student.")] = 40,
    words: Annotated[int, typer.Option(min=1, help="Of the vocabulary, the first ones.")] = 10**6,
) -> None:
    """Mines words, trains four students, asks them, and writes the record."""
    mined = mine(meanings(vocabulary()[:words]))
    counts = {value: len(found) for value, found in mined.items()}
    print(counts, flush=True)
    ways = {
        "one wording": one_wording,
        "one wording, mined words": with_mined(one_wording, mined),
        "all wordings": text_student.wording,
        "all wordings, mined words": with_mined(text_student.wording, mined),
    }
    recipe = Recipe(epochs=epochs, batch_size=256, learning_rate=3e-3, weight_decay=0.01)
    rows = {}
    for name, say in ways.items():
        task = text_student.TextStudentTask(recipe, say=say)
        train.run(task, epochs, progress=False)
        with task.trained() as model:
            rows[name] = dict(quality.student_quality(model))
        rows[name]["each, en unseen"] = rows[name]["en unseen"]["mean"]
        print(name, rows[name]["en unseen"], rows[name]["each, en unseen"], flush=True)
    examples = {value: found[:: max(len(found) // 8, 1)][:8] for value, found in mined.items()}
    records.save("augment", {"epochs": epochs, "mined": counts, "examples": examples, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
