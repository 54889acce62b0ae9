"""Words: the language model writes (`describe`) and reads, and its student reads faster (`encode`).

* `teacher`: SmolLM2's hidden states as an embedding;
* `student`: the small encoder distilled from it, English and Chinese, the default;
* `lexicon`: words for what an image can show, from text files;
* `reader`: what a prompt names, and what it rules out (`understand`);
* `writer`: a prompt becomes full descriptions (`describe`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from genlib import backend as backend  # first: it keeps TensorFlow's start-up log away
from genlib.text.reader import Understood, shorten, understand
from genlib.text.student import load_student, unread
from genlib.text.teacher import WIDTH, load_teacher
from genlib.text.writer import Description, describe

__all__ = [
    "WIDTH",
    "Description",
    "Encoder",
    "Understood",
    "describe",
    "encode",
    "understand",
    "unread",
]

Encoder = Literal["student", "smollm"] | Callable[[Sequence[str]], np.ndarray]


def encode(texts: Sequence[str], encoder: Encoder = "student") -> np.ndarray:
    """Turns texts into the numbers that generators are conditioned on.

    Args:
        texts: English or Chinese. An empty text, or one without any word, such as an emoji, asks
            for nothing: the student gives it zeros. Of a text, 2,000 characters are read.
        encoder: `"student"`, in well under a millisecond a text; `"smollm"`, the language model
            that it learned from (English; kept on disk); or any function from texts to
            `(n, 128)`.

    Returns:
        float32 `(n, 128)`.

    Raises:
        TypeError: if `texts` is a single text, or holds what is no text.
        ValueError: if the encoder is unknown, or returns another shape or what is not finite.
        ImportError: if `"smollm"` lacks a package; the message has the command that installs it.

    Example:
        >>> encode(["a quiet evening by the sea", "海边的傍晚", ""]).shape
        (3, 128)
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is a list of texts. Write [{texts[:20]!r}].")
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"A text is a str, got {type(text).__name__}.")
    texts = [shorten(text) for text in texts]
    if not texts:
        return np.zeros((0, WIDTH), np.float32)
    if encoder == "student":
        return load_student().encode(texts)
    if encoder == "smollm":
        return load_teacher()(texts)
    if not callable(encoder):
        raise ValueError(
            f"No encoder {encoder!r}. Choose 'student', 'smollm', or give a function from texts "
            f"to (n, {WIDTH})."
        )
    made = np.asarray(encoder(texts), np.float32)
    if made.shape != (len(texts), WIDTH) or not np.isfinite(made).all():
        raise ValueError(
            f"The encoder returned {made.shape}. Return finite numbers ({len(texts)}, {WIDTH})."
        )
    return made
