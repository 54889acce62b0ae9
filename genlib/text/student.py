"""The student: a small encoder that reads English and Chinese as the teacher reads English.

A text is a bag of features: its words, pairs of neighbours, and pieces of words; of Chinese, one
to three characters. Each feature has a number (a hash), each number a vector; their sum, and two
small networks, give 128 numbers. They are trained to be those that the teacher gives for the plain
English caption of what the text names. A second head tells which values the text names.

Reference: Reimers and Gurevych, 2020, arXiv:2004.09813, section 3; Weinberger et al., 2009,
arXiv:0902.2206 (hashed features).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from scipy import special

from genlib import backend, weights
from genlib.data.captions import ATTRIBUTES

SHIPPED = "text-student"
MOST = 256  # features of a text; what comes after them is not read
CHARACTERS = 2000  # of a text that are looked at
# One logit for "not named", then one for each value.
READINGS = tuple(1 + len(values) for values in ATTRIBUTES.values())
_ENDS = tuple(np.cumsum(READINGS)[:-1].tolist())
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PARTS = re.compile(rf"[{_CHINESE}]+|[^\W_{_CHINESE}]+")


@dataclass(frozen=True)
class StudentConfig:
    """What defines the student."""

    features: int = 8192  # different hashes, 0 being none
    width: int = 128
    hidden: int = 512


def words(text: str) -> list[str]:
    """Returns the words of a text, in small letters; a run of Chinese characters is one word.

    Example:
        >>> words("A calm Sea, 夕阳!")
        ['a', 'calm', 'sea', '夕阳']
    """
    return _PARTS.findall(unicodedata.normalize("NFKC", text[:CHARACTERS]).lower())


def unread(text: str) -> str:
    """Returns a sentence that says which end of a text the student does not read, or nothing."""
    if len(text) > CHARACTERS:
        return f"Only the first {CHARACTERS:,} characters were read."
    single = sum(len(w) if re.match(f"[{_CHINESE}]", w) else 1 for w in words(text))
    if single > MOST:
        return f"Only the first {MOST} words or Chinese characters were read."
    return ""


def features(text: str, size: int = 8192) -> list[int]:
    """Returns the numbers, from 1 to `size - 1`, of at most 256 features of a text.

    Words and Chinese characters come first, pieces last, so that a long text loses pieces first.

    Example:
        >>> len(features("sea")), features("sea") == features("SEA!")
        (1, True)
    """
    single: list[str] = []
    pairs: list[str] = []
    pieces: list[str] = []
    latin: list[str] = []
    for word in words(text):
        if re.match(f"[{_CHINESE}]", word):
            single += word
            pairs += map("".join, pairwise(word))
            pieces += map("".join, zip(word, word[1:], word[2:], strict=False))
            continue
        latin.append(word)
        single.append(f"_{word}_")
        pieces += _pieces(word)
    pairs += [f"{a} {b}" for a, b in pairwise(latin)]
    found = (single + pairs + pieces)[:MOST]
    return [1 + zlib.crc32(f.encode("utf-8", "replace")) % (size - 1) for f in found]


@lru_cache(1 << 16)
def _pieces(word: str) -> list[str]:
    """Returns three and four neighbouring letters of a word, `_` being its ends."""
    inside = f"_{word[:24]}_" if len(word) > 3 else ""
    return [inside[i : i + n] for n in (3, 4) for i in range(len(inside) - n + 1)]


def table(rows: Sequence[Any]) -> np.ndarray:
    """Returns features as one array, int32 `(n, 256)`, filled up with zeros."""
    filled = np.zeros((len(rows), MOST), np.int32)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return filled


class Student(keras.Model):
    """Features to an embedding and to readings.

    Args:
        config: sizes.
        seed: of the initial weights.

    Example:
        >>> load_student().encode(["a quiet evening by the sea", "海边的傍晚"]).shape
        (2, 128)
    """

    def __init__(self, config: StudentConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="student")
        c = self.config = config or StudentConfig()
        seeds = iter(np.random.default_rng(seed).integers(2**31, size=16).tolist())

        def dense(size: int, **options: Any) -> Any:
            start = keras.initializers.GlorotUniform(seed=next(seeds))
            return layers.Dense(size, kernel_initializer=start, **options)

        start = keras.initializers.RandomNormal(stddev=0.02, seed=next(seeds))
        ids = keras.Input((MOST,), dtype="int32")
        vectors = layers.Embedding(c.features, c.width, embeddings_initializer=start)(ids)
        x = _Bag()([ids, vectors])
        for _ in range(2):
            x = x + dense(c.width)(dense(c.hidden, activation="silu")(layers.RMSNormalization()(x)))
        readings = dense(sum(READINGS))(x)
        x = _Silent()([ids, dense(c.width, use_bias=False)(x)])
        self.network = keras.Model(ids, layers.Concatenate()([x, readings]))
        self._run = backend.compile_call(self.network, self.network.variables)

    def call(self, ids: Any) -> Any:
        """Returns `(b, 128 + 29)` for features `(b, 256)`: the embedding, then the readings."""
        return self.network(ids)

    def outputs(self, texts: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns the embeddings of texts, and for each attribute the logits of its readings."""
        rows = table([features(text, self.config.features) for text in texts])
        parts = []
        for first in range(0, len(rows), 256):
            part = rows[first : first + 256]
            size = 1 << (len(part) - 1).bit_length()  # few sizes: JAX compiles anew for each
            padded = np.pad(part, ((0, size - len(part)), (0, 0)))
            parts.append(backend.to_numpy(self._run(padded))[: len(part)])
        made = np.concatenate(parts) if parts else np.zeros((0, self.network.output_shape[-1]))
        width = self.config.width
        return made[:, :width].astype(np.float32), np.split(made[:, width:], _ENDS, axis=1)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of texts, float32 `(n, 128)`; of an empty text, zeros."""
        return self.outputs(texts)[0]

    def read(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns for each attribute the probabilities of "not named" and of its values."""
        return [special.softmax(part, axis=1) for part in self.outputs(texts)[1]]


@keras.saving.register_keras_serializable("genlib")
class _Bag(layers.Layer):
    """Adds up the vectors of the features, over the root of their number; the 0s do not count."""

    def call(self, inputs: Any) -> Any:
        ids, vectors = inputs
        count = ops.cast(ids != 0, vectors.dtype)
        total = ops.sum(vectors * count[..., None], axis=1)
        return total / ops.sqrt(ops.maximum(ops.sum(count, axis=1, keepdims=True), 1))


@keras.saving.register_keras_serializable("genlib")
class _Silent(layers.Layer):
    """Gives exactly zeros for a text without features: such a text asks for nothing."""

    def call(self, inputs: Any) -> Any:
        ids, x = inputs
        return x * ops.cast(ops.any(ids != 0, axis=1, keepdims=True), x.dtype)


@cache
def load_student(path: str | Path = SHIPPED) -> Student:
    """Returns the trained student, from the shipped weights unless told otherwise.

    Raises:
        FileNotFoundError: if there are no such weights.
        WeightsError: if they are damaged or those of another model.
    """
    return weights.load_model(path, ("text-student",), Student, StudentConfig)[0]
