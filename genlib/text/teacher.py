"""The language model reads: a text becomes 128 numbers.

SmolLM2 turns each token into a hidden state, which knows the words before it. The mean of the
states after some of its blocks is a reading of the text. A fixed projection, fitted on captions,
turns it into 128 numbers of about unit variance. What was read once is kept on disk.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import platformdirs

from genlib import weights
from genlib.text.llm import LLM, SHA256, load_llm

SHIPPED = "text-teacher"  # mean and projection
LAYER = 6  # blocks that read; benchmarks/text_layers.py compares
WIDTH = 128
_BEGIN = "<|im_start|>"  # a first token gathers attention, whatever it is, so it is not a word


class Teacher:
    """Reads texts through a language model.

    Args:
        llm: the language model.
        mean: `(width,)`, of the pooled states of captions.
        projection: `(width, 128)`, onto their main axes.
        layer: after so many blocks.
        model: name of the model, such as its file's hash; part of the key in the cache.
        folder: of the cache; `None` keeps nothing.

    Example:
        >>> teacher = load_teacher()
        >>> teacher(["a beautiful sunset over a calm sea"]).shape
        (1, 128)
    """

    def __init__(
        self,
        llm: LLM,
        mean: np.ndarray,
        projection: np.ndarray,
        layer: int = LAYER,
        model: str = SHA256,
        folder: str | Path | None = None,
    ) -> None:
        self.llm, self.layer, self.model = llm, layer, model
        self.mean, self.projection = mean.astype(np.float32), projection.astype(np.float32)
        self.folder = None if folder is None else Path(folder)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 `(n, 128)`; an empty text gives zeros."""
        said = np.array([bool(text.strip()) for text in texts])
        embedded = np.zeros((len(texts), self.projection.shape[1]), np.float32)
        if said.any():
            states = self.states([t for t, s in zip(texts, said, strict=True) if s])
            embedded[said] = (states - self.mean) @ self.projection
        return embedded

    def states(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the mean hidden states of texts that are not empty, float32 `(n, width)`.

        Those that the cache knows are not computed again.
        """
        keys = [self._key(text) for text in texts]
        if self.folder is None:
            return pooled(self.llm, texts, self.layer)
        known = _read(self.folder, keys)
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if new:
            found = dict(zip(new, pooled(self.llm, list(new.values()), self.layer), strict=True))
            _write(self.folder, found)
            known |= found
        return np.stack([known[key] for key in keys])

    def _key(self, text: str) -> str:
        said = f"{self.model}/{self.layer}/mean/{text}"
        return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()


def pooled(llm: LLM, texts: Sequence[str], layer: int) -> np.ndarray:
    """Returns the mean hidden state of each text's tokens after `layer` blocks, float32."""
    opened = [_BEGIN + text.replace("<|", "< |") for text in texts]
    return np.stack([states[1:].mean(0) for states in llm.hidden_states(opened, layer)])


def fit_projection(states: np.ndarray, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Fits the projection onto the main axes of some states, half whitened.

    Of the states' variance, five sixths lie along the first axis, which is almost one number of the
    state: a massive activation, which says little, so it is left out. Dividing each other axis by
    its deviation (whitening) would lift noise to the height of what is said; dividing by the root
    of its deviation leaves the captions' five attributes alike in size, and noise below them.

    Args:
        states: `(n, d)`, `n` above `width`.
        width: axes to keep, those of the largest variance but the first.

    Returns:
        Mean `(d,)` and projection `(d, width)`: the numbers of `(states - mean) @ projection` have
        mean 0 and, all together, variance 1.

    Raises:
        ValueError: if there are too few states, or too little variance, for that many axes.

    Reference: Sun et al., 2024, arXiv:2402.17762 (massive activations).

    Example:
        >>> mean, projection = fit_projection(np.random.default_rng(0).normal(3, 2, (500, 8)), 4)
        >>> projection.shape
        (8, 4)
    """
    mean = states.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(states - mean, full_matrices=False)
    kept = slice(1, width + 1)
    if len(singular) <= width + 1 or singular[width] < 1e-6 * singular[0]:
        raise ValueError(f"{len(states)} states of too little variance for {width} axes.")
    deviation = singular[kept] / np.sqrt(len(states))
    projection = axes[kept].T / np.sqrt(deviation)
    return mean, projection / np.sqrt(deviation.mean())


@cache
def load_teacher() -> Teacher:
    """Returns SmolLM2 with the shipped projection and the cache of this machine.

    Raises:
        ImportError: if a package is missing; the message has the command that installs it.
        FileNotFoundError: if the projection is missing.
    """
    arrays, card = weights.load(SHIPPED)
    folder = platformdirs.user_cache_dir("genlib")
    return Teacher(load_llm(), arrays["mean"], arrays["projection"], card["layer"], folder=folder)


def _open(folder: Path) -> sqlite3.Connection:
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "text.sqlite", timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS states (key TEXT PRIMARY KEY, value BLOB)")
    return connection


def _read(folder: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    connection = _open(folder)
    try:
        find = "SELECT value FROM states WHERE key = ?"
        rows = {key: connection.execute(find, (key,)).fetchone() for key in keys}
    finally:
        connection.close()
    return {key: np.frombuffer(row[0], np.float32) for key, row in rows.items() if row}


def _write(folder: Path, states: dict[str, np.ndarray]) -> None:
    connection = _open(folder)
    try:
        with connection:  # one transaction: all or nothing
            rows = [(key, value.astype(np.float32).tobytes()) for key, value in states.items()]
            connection.executemany("INSERT OR REPLACE INTO states VALUES (?, ?)", rows)
    finally:
        connection.close()
