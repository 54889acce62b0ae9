"""Quantization: weights and activations as small integers with a scale.

A number `w` becomes the integer `q = round(w / s)` and comes back as `s q`. The scale `s` is the
largest magnitude over 127, so that nothing is clipped (symmetric, eight bits); with one scale for
each output channel, a channel of small weights keeps its digits. What is lost is at most `s / 2`.

Two uses, which are two different gains. Weights alone as int8: files and memory are a quarter, the
arithmetic stays in floats. Weights and activations as int8: the products are of integers, which a
processor with the instructions for it does up to four at a time in the place of one float.

Reference: Jacob et al., 2018, arXiv:1712.05877; Nagel et al., 2021, arXiv:2106.08295.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from genlib import weights

LEAST = 1024  # weights of an array; smaller ones stay float16, as their scales would not pay
INT8, INT4, SCALE, SHAPE = ".int8", ".int4", ".scale", ".shape"


def scale(w: np.ndarray, axis: int | None = None, bits: int = 8) -> np.ndarray:
    """Returns the smallest scale that clips nothing.

    Args:
        w: float, any shape.
        axis: None for one scale in all (per tensor), or the axis whose entries each have their
            own (per channel).
        bits: of the integers, 2 to 8.

    Returns:
        float32, of the rank of `w`, so that it broadcasts against it. Where all is zero it is 1.

    Raises:
        ValueError: if `bits` is out of range, or `w` is empty or not finite.

    Example:
        >>> scale(np.array([[0.5, -127.0], [1.27, 2.0]]), axis=1).round(3)
        array([[0.01, 1.  ]], dtype=float32)
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits = {bits}; give 2 to 8.")
    w = np.asarray(w, np.float32)
    if w.size == 0 or not np.isfinite(w).all():
        raise ValueError(f"An array of shape {w.shape} is empty or not finite. Check the weights.")
    others = None if axis is None else tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    largest = np.abs(w).max(axis=others, keepdims=True)
    s = largest / np.float32(2 ** (bits - 1) - 1)
    return np.where(s > np.finfo(np.float32).tiny, s, np.float32(1))


def quantize(w: np.ndarray, s: np.ndarray, bits: int = 8) -> np.ndarray:
    """Rounds to integers: int8 of the shape of `w`, within ±(2^(bits - 1) - 1).

    Example:
        >>> quantize(np.array([0.26, -1.0]), np.float32(0.1))
        array([  3, -10], dtype=int8)
    """
    most = 2 ** (bits - 1) - 1
    return np.clip(np.rint(np.asarray(w, np.float32) / s), -most, most).astype(np.int8)


def dequantize(q: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns the floats that integers stand for, at most `s / 2` from those they came from."""
    return q.astype(np.float32) * s


def output_bound(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns how far rounding a layer's weights can move its outputs at most.

    Args:
        x: inputs, float `(n, in)`.
        s: scales of the weights `(in, out)`: of a shape that broadcasts to it.

    Returns:
        `Σ_i |x_i| s_ij / 2`, float32 `(n, out)` (or `(n, 1)` for one scale). It is reached if
        every weight lies midway between two levels, with the sign that hurts.
    """
    rows = np.abs(np.asarray(x, np.float32))
    return rows @ np.broadcast_to(s, (rows.shape[1], s.shape[1])) / 2


def integer_dense(x: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Multiplies by int8 weights in integers: activations are rounded as they come (dynamic).

    The sum of products is exact: int32 holds 127² × 133,000, and no layer is so wide. Floats
    come back only at the end, once for each output.

    Args:
        x: activations, float `(n, in)`; each row gets its own scale.
        q: weights, int8 `(in, out)`.
        s: their scales, `(1, out)` or `(1, 1)`. A scale must not differ along `in`: it would have
            to enter the sum.

    Returns:
        float32 `(n, out)`, about `x @ (q * s)`.

    Raises:
        ValueError: if the scales differ along the inputs.
    """
    if s.ndim != 2 or s.shape[0] != 1:
        raise ValueError(f"Scales of shape {s.shape}; a product of integers needs (1, out).")
    s_x = scale(x, axis=0)  # (n, 1)
    product = quantize(x, s_x).astype(np.int32) @ q.astype(np.int32)
    return product.astype(np.float32) * s_x * s


def pack(q: np.ndarray) -> np.ndarray:
    """Puts two integers of four bits into each byte, uint8; a last odd one gets a zero beside it.

    Example:
        >>> pack(np.array([1, -1, 7], np.int8))
        array([241,   7], dtype=uint8)
    """
    low_high = np.resize(np.append(q.ravel(), 0), (-(-q.size // 2), 2)).astype(np.uint8) & 15
    return low_high[:, 0] | low_high[:, 1] << 4


def unpack(packed: np.ndarray, size: int) -> np.ndarray:
    """Undoes `pack`: int8 `(size,)`."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:size].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def compress(arrays: Mapping[str, np.ndarray], bits: int = 8, group: int = 32) -> dict[str, Any]:
    """Turns a model's weights into integers with scales.

    With 8 bits there is one scale for each entry of the last axis: the output channel of a dense
    layer or a convolution. Fifteen levels are too few for that, so with 4 bits each `group` of
    weights that stand in memory order has its own scale.

    Args:
        arrays: name to array, as `weights.model_arrays` returns them.
        bits: 8 or 4.
        group: weights of one scale, for 4 bits.

    Returns:
        Name to array, under new names: `"….int8"` or `"….int4"` (packed), `"….scale"` (float16),
        `"….shape"`. Arrays of fewer than 1,024 weights are float16 under the old names.

    Raises:
        ValueError: if `bits` is neither 8 nor 4.
    """
    if bits not in (8, 4):
        raise ValueError(f"bits = {bits}; weights are stored with 8 or 4.")
    made: dict[str, Any] = {}
    for name, w in arrays.items():
        if w.size < LEAST or w.dtype.kind != "f":
            made[name] = w.astype(np.float16) if w.dtype.kind == "f" else w
        elif bits == 8:
            s = _half(scale(w, axis=-1))
            made |= {name + INT8: quantize(w, s), name + SCALE: s.astype(np.float16)}
        else:
            rows = np.pad(w.ravel(), (0, -w.size % group)).reshape(-1, group)
            s = _half(scale(rows, axis=0, bits=4))
            made |= {
                name + INT4: pack(quantize(rows, s, bits=4)),
                name + SCALE: s.astype(np.float16),
                name + SHAPE: np.array(w.shape, np.int32),
            }
    return made


def _half(s: np.ndarray) -> np.ndarray:
    """Rounds scales to what float16 can hold, before they are used: then nothing else is lost."""
    return np.maximum(s.astype(np.float16), np.finfo(np.float16).tiny).astype(np.float32)


def expand(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Undoes `compress`: the weights as float32, each at most half a scale from what it was.

    Raises:
        WeightsError: if a scale or a shape is missing.
    """
    made = {}
    try:
        for name, array in arrays.items():
            if name.endswith(INT8):
                name = name.removesuffix(INT8)
                made[name] = dequantize(array, arrays[name + SCALE].astype(np.float32))
            elif name.endswith(INT4):
                name = name.removesuffix(INT4)
                s, shape = arrays[name + SCALE].astype(np.float32), arrays[name + SHAPE]
                q = unpack(array, 2 * len(array)).reshape(len(s), -1)
                made[name] = dequantize(q, s).ravel()[: np.prod(shape)].reshape(shape)
            elif not name.endswith((SCALE, SHAPE)):
                made[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
    except KeyError as error:
        raise weights.WeightsError(
            f"The file has no {error} for one of its integer arrays. Write it again with save."
        ) from None
    return made


def save(
    model: keras.Model, path: str | Path, card: Mapping[str, Any] | None = None, bits: int = 8
) -> int:
    """Writes a model's weights as integers with scales, and their card (`genlib.weights`).

    Args:
        model: any built Keras model.
        path: where, with or without `.safetensors`.
        card: what is known of the weights.
        bits: 8 or 4.

    Returns:
        The size of the `.safetensors` file in bytes.

    Raises:
        ValueError: if `bits` is neither 8 nor 4.
        OSError: if the file cannot be written.

    Example:
        >>> generator, card = load_generator("gan-conv-fashion")
        >>> save(generator, "small", card)
        431946
        >>> load(generator, "small")["bits"]
        8
    """
    arrays = compress(weights.model_arrays(model), bits)
    return weights.save(path, arrays, {**(card or {}), "bits": bits}).stat().st_size


def load(model: keras.Model, path: str | Path) -> dict[str, Any]:
    """Fills a model with weights that `save` wrote, as floats, and returns their card.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it is damaged, or that of another model.
    """
    arrays, card = weights.load(path)
    weights.assign(model, expand(arrays))
    return card
