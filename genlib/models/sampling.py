"""Random numbers, and the choices that are made with them.

Randomness comes from outside: each image has a stream of its own, and each choice among logits
takes one number of it. So all ways to compute the same logits draw the same image, whatever else is
in the batch. Temperature, top-k, top-p and min-p change what is chosen from, guidance the logits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from genlib import ranges

FORBIDDEN = -1e9  # the logit of what must not be chosen
WORDS = 2**31  # a turn of its own for the draws of words, apart from those of images
Seed = int | tuple[int, ...]  # (seed, turn): the streams of a turn, apart from those of the seed


def stream(seed: Seed, i: int) -> np.random.Generator:
    """Returns the stream of random numbers of image `i`.

    Each image has its own, so it is the same image in a batch of one and of a hundred. The spawn
    key keeps the streams of all seeds, turns and images apart. A tuple of numbers would not: NumPy
    takes `default_rng((2**32, 1))` for `default_rng((0, 1, 1))`.

    Raises:
        ValueError: if a number is negative, or the seed has more than 64 bits.
    """
    first, *turns = seed if isinstance(seed, tuple) else (seed,)
    ranges.check("seed", first)
    if min([*turns, i]) < 0:
        raise ValueError(f"seed = {seed}, image {i}: a turn or an image is a whole number from 0.")
    return np.random.default_rng(np.random.SeedSequence(first, spawn_key=(*turns, i)))


def uniforms(n: int, length: int, seed: Seed) -> np.ndarray:
    """Draws the random numbers of `n` images, float32 `(n, length)` in [0, 1), a stream for each.

    Raises:
        ValueError: if `n` is below 1 or the seed out of range.
    """
    _check_count(n)
    return np.stack([stream(seed, i).random(length, dtype=np.float32) for i in range(n)])


def normals(n: int, shape: tuple[int, ...], seed: Seed) -> np.ndarray:
    """Draws the noise of `n` images, float32 `(n, *shape)`, standard normal, a stream for each.

    Raises:
        ValueError: if `n` is below 1 or the seed out of range.
    """
    _check_count(n)
    return np.stack([stream(seed, i).standard_normal(shape, np.float32) for i in range(n)])


def pick(
    logits: Any,
    uniform: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Any:
    """Chooses one code per row by inverting the cumulative distribution.

    Args:
        logits: float `(..., codes)`.
        uniform: float `(...)` in [0, 1): the random number of each choice.
        temperature: divides the logits; 0 takes the likeliest code.
        top_k: keep only the `top_k` likeliest codes.
        top_p: keep only the likeliest codes that hold this share of the probability together
            (Holtzman et al., 2020, arXiv:1904.09751); needs a sort.
        min_p: keep only codes at least this share as likely as the likeliest (Nguyen et al.,
            2024, arXiv:2407.01082); needs only a maximum.

    Returns:
        int32 `(...)`.

    Raises:
        ValueError: if a number is outside of its range in `genlib.ranges`.

    Example:
        >>> int(pick(np.log([[0.2, 0.5, 0.3]]), np.array([0.75]))[0])
        2
    """
    ranges.check_all(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    if temperature == 0:
        return ops.cast(ops.argmax(ops.convert_to_tensor(logits), -1), "int32")
    kept = restrict(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    return invert(ops.softmax(kept), uniform)


def restrict(
    logits: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Any:
    """Returns the logits that `pick` draws from: divided by the temperature, the unlikely barred.

    The arguments are those of `pick`. At temperature 0 only the likeliest code is left; of several
    that are alike, the first.

    Returns:
        float `(..., codes)`; their softmax is the distribution.

    Raises:
        ValueError: as `pick`.
    """
    ranges.check_all(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = ops.convert_to_tensor(logits)
    if temperature == 0:
        likeliest = ops.one_hot(ops.argmax(logits, -1), logits.shape[-1], dtype=logits.dtype)
        return (1 - likeliest) * FORBIDDEN
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = ops.top_k(logits, top_k, sorted=True)[0][..., -1:]
        logits = ops.where(logits < least, FORBIDDEN, logits)
    if min_p:
        least = ops.max(logits, axis=-1, keepdims=True) + math.log(min_p)
        logits = ops.where(logits < least, FORBIDDEN, logits)
    if top_p is not None and top_p < 1:
        falling = -ops.sort(-ops.softmax(logits), axis=-1)
        before = ops.cumsum(falling, axis=-1) - falling  # the share of the likelier ones
        kept = ops.sum(ops.cast(before < top_p, "int32"), axis=-1, keepdims=True)
        least = ops.take_along_axis(falling, kept - 1, axis=-1)
        logits = ops.where(ops.softmax(logits) < least, FORBIDDEN, logits)
    return logits


def invert(probabilities: Any, uniform: Any) -> Any:
    """Chooses one code per row: the first whose cumulative share exceeds a random number.

    Args:
        probabilities: float `(..., codes)`, not negative; they need not add up to 1.
        uniform: float `(...)` in [0, 1).

    Returns:
        int32 `(...)`.
    """
    shares = ops.cumsum(probabilities, axis=-1)
    # Rounding may leave the last share below 1: measured against it, no code is out of range.
    reached = shares > ops.cast(uniform, shares.dtype)[..., None] * shares[..., -1:]
    return ops.cast(ops.argmax(reached, -1), "int32")


def guided(logits: Any, guidance: float) -> Any:
    """Moves what a network says of a text further away from what it says without one.

    Args:
        logits: or velocities, float `(2b, ...)`: the first half of the batch with the texts, the
            second half without. At guidance 1 nobody is asked without: `(b, ...)`.
        guidance: 1 changes nothing; the more above 1, the more strictly the text is followed.

    Returns:
        float `(b, ...)`.

    Reference: Ho and Salimans, 2022, arXiv:2207.12598, equation 6, whose `w` is `guidance - 1`.
    """
    if guidance == 1.0:
        return logits
    with_text, without = ops.split(logits, 2, axis=0)
    return without + guidance * (with_text - without)


def check_text(text: np.ndarray, width: int) -> np.ndarray:
    """Returns text embeddings as float32 `(n, width)`.

    Raises:
        ValueError: if they have another shape, are not finite, or there are none.
    """
    text = np.asarray(text, np.float32)
    if text.ndim != 2 or text.shape[1] != width or len(text) == 0:
        raise ValueError(
            f"Text embeddings are float (n, {width}), n at least 1, got {text.shape}. "
            "genlib.text.encode makes them."
        )
    if not np.isfinite(text).all():
        raise ValueError("Text embeddings hold NaN or infinity. genlib.text.encode makes them.")
    return text


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"n = {n}; draw for at least 1 image.")
