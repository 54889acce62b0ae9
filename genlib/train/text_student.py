"""Trains the small text encoder to read as the language model reads.

    genlib train text-student --out runs/text-student      # needs the language model

A scene is described in some wording, English or Chinese, that names some of its attributes. The
student sees this text; its target is what the teacher makes of the plain English caption that names
the same attributes, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import weights
from genlib.data import captions, scenes
from genlib.data.captions import ATTRIBUTES
from genlib.text import lexicon, student, teacher
from genlib.text.student import READINGS, Student, StudentConfig
from genlib.train.tasks import EPOCH, Arrays, FitTask, Recipe

NAMES = tuple(ATTRIBUTES)
PLAIN = 0.2  # share of texts that are full captions
LOOSE = 0.5  # share of the other texts that are no caption, but some words in any order
TYPOS, STRANGE = 0.2, 0.3  # shares of texts with a typo, and with noise
DROPPED = (0.0, 0.1, 0.3)  # shares of the features that are left out, one drawn for each text
READING = 0.1  # weight of the readings' cross-entropy, in nats, beside the squared error


def plain_captions() -> tuple[list[str], np.ndarray]:
    """Returns every plain caption, and what it names.

    Returns:
        The captions, and int64 `(captions, 5)`: 0 for "not named", else the value's index plus 1.
    """
    found: dict[str, tuple[int, ...]] = {"": (0,) * len(NAMES)}
    possible = scenes.combinations()
    for mask in product((False, True), repeat=len(NAMES)):
        named = {name for name, told in zip(NAMES, mask, strict=True) if told}
        for row in possible:
            said = captions.plain(row, named)
            found.setdefault(
                said, tuple(int(v) + 1 if told else 0 for v, told in zip(row, mask, strict=True))
            )
    return list(found), np.array(list(found.values()))


class Plain:
    """The teacher's embeddings of all plain captions, computed when first asked for."""

    def __init__(self, read: Any = None) -> None:
        self._read = read

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """Returns the embedding of each plain caption; the empty one has zeros."""
        said, _ = plain_captions()
        read = self._read or teacher.load_teacher()
        return dict(zip(said, read(said), strict=True))


def typo(text: str, rng: np.random.Generator) -> str:
    """Returns a text, not an empty one, with a letter lost, doubled or swapped with the next."""
    at = int(rng.integers(len(text)))
    here, after = text[at], text[at + 1 : at + 2]
    other = ("", here + here + after, after + here)[rng.integers(3)]
    return text[:at] + other + text[at + (1 if other == "" else 2) :]


def strange(rng: np.random.Generator) -> str:
    """Returns a word that means nothing, so that the student learns not to mind such words.

    A frequent word; or half of one and half of another; or a Chinese character or two.
    """
    kind = rng.random()
    if kind < 0.3:
        return "".join(chr(c) for c in rng.integers(0x4E00, 0x9FA5, rng.integers(1, 3)))
    if kind < 0.6:
        known = lexicon.common("en" if kind < 0.45 else "zh")
        return f" {known[rng.integers(len(known))]} "
    known = lexicon.common("en")
    first, last = (known[i] for i in rng.integers(len(known), size=2))
    return f" {first[: -(-len(first) // 2)]}{last[len(last) // 2 :]} "


def wording(row: Sequence[int], rng: np.random.Generator) -> captions.Caption:
    """Says what a scene shows: in a caption, in some words in any order, or in all five plainly.

    Args:
        row: the scene's attributes, as `genlib.data.scenes` numbers them.
        rng: chooses the words.
    """
    if rng.random() < PLAIN:  # what `describe` writes, so this must be read as exactly as can be
        return captions.Caption(captions.full(row), "en", frozenset(NAMES))
    return (lexicon.loose if rng.random() < LOOSE else captions.caption)(row, rng)


class TextStudentTask(FitTask):
    """Trains the student to read as the teacher reads plain captions.

    Args:
        recipe: settings.
        config: sizes of the student.
        seed: of weights and texts.
        read: the teacher, texts to `(n, 128)`; SmolLM2 unless given.
        say: attributes and a generator to the text that describes them.
    """

    name, model_class, config_class = "text-student", Student, StudentConfig
    recipe = Recipe(epochs=80, batch_size=256, learning_rate=3e-3, weight_decay=0.01)

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: StudentConfig | None = None,
        seed: int | None = None,
        read: Any = None,
        say: Callable[[Sequence[int], np.random.Generator], captions.Caption] = wording,
    ) -> None:
        self._plain, self._say = Plain(read), say
        super().__init__(recipe, config, seed)

    def prepare(self, epoch: int) -> Arrays:
        """Returns features of texts, and what the teacher and the truth say of them."""
        rng = np.random.default_rng((self.seed, epoch))
        possible = scenes.combinations("train")
        ids, vectors, told = [], [], []
        for row in possible[rng.integers(len(possible), size=EPOCH)]:
            said = self._say(row, rng)
            text = said.text
            if rng.random() < TYPOS and len(text) > 3:
                text = typo(text, rng)
            if rng.random() < STRANGE:
                parts = [text, strange(rng)]
                text = "".join(parts if rng.random() < 0.5 else parts[::-1])
            found = np.array(student.features(text, self.model.config.features))
            ids.append(found[rng.random(len(found)) >= DROPPED[rng.integers(len(DROPPED))]])
            vectors.append(self._plain.vectors[captions.plain(row, said.named)])
            told.append([v + 1 if n in said.named else 0 for n, v in zip(NAMES, row, strict=True)])
        targets = np.concatenate([np.array(vectors), np.array(told)], 1).astype(np.float32)
        return student.table(ids), targets

    def loss(self, targets: Any, made: Any) -> Any:
        """Returns the error to the teacher, plus a little of the readings' cross-entropy."""
        return student_loss(targets, made)

    def sample(self) -> np.ndarray:
        """Returns 32 scenes, each beside one of what the student reads in its full caption."""
        drawn = scenes.scenes(32, seed=1, split="validation")
        with self.trained() as model:
            readings = model.read([captions.full(row) for row in drawn.attributes])
        read = np.stack([part[:, 1:].argmax(1) for part in readings], 1)
        again = [scenes.draw(_possible(row))[0] for row in read]
        return np.stack([drawn.images, np.stack(again)], 1).reshape(-1, *drawn.images.shape[1:])


def _possible(row: np.ndarray) -> list[str]:
    """Returns the values of the combination that exists and is nearest to what was read."""
    near = scenes.combinations()[(scenes.combinations() == row).sum(1).argmax()]
    return [ATTRIBUTES[name][value] for name, value in zip(NAMES, near, strict=True)]


def student_loss(targets: Any, made: Any) -> Any:
    """Returns the squared error to the teacher, plus a little of the readings' cross-entropy.

    Args:
        targets: float `(b, 128 + 5)`: the teacher's embedding, and for each attribute which value
            the text names, counted from 1; 0 for none.
        made: float `(b, 128 + sum(READINGS))`: the student's embedding, and its logits.
    """
    width = made.shape[-1] - sum(READINGS)
    loss = ops.mean((made[:, :width] - targets[:, :width]) ** 2)
    first = width
    for i, size in enumerate(READINGS):
        loss += READING * ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                targets[:, width + i], made[:, first : first + size], from_logits=True
            )
        )
        first += size
    return loss


def fit_teacher(
    path: str | Path, layer: int = teacher.LAYER, folder: Any = None
) -> teacher.Teacher:
    """Fits the teacher's projection to the plain captions, and writes it.

    Args:
        path: of the weights, without ending.
        layer: of the language model.
        folder: of the cache.

    Returns:
        The teacher, as the weights that were written make it.
    """
    llm = teacher.load_llm()
    said = [text for text in plain_captions()[0] if text]
    raw = teacher.Teacher(llm, np.zeros(1), np.ones((1, 1)), layer, folder=folder)
    mean, projection = teacher.fit_projection(raw.states(said))
    card = {
        "recipe": "text-teacher",
        "model": teacher.SHA256,
        "layer": layer,
        "pooling": "mean",
        "captions": len(said),
    }
    arrays = {"mean": mean.astype(np.float32), "projection": projection.astype(np.float32)}
    weights.save(path, arrays, card)
    return teacher.Teacher(llm, arrays["mean"], arrays["projection"], layer, folder=folder)
