"""Between pixels (uint8) and numbers that a network likes (float32 in [-1, 1])."""

from __future__ import annotations

import hashlib

import numpy as np


def fingerprint(images: np.ndarray) -> str:
    """Returns 16 hexadecimal digits that tell one set of images, in its order, from another.

    Args:
        images: of any shape and type, which count too.

    Example:
        >>> fingerprint(np.zeros(2, np.uint8)) == fingerprint(np.zeros(3, np.uint8))
        False
    """
    images = np.ascontiguousarray(images)
    head = f"{images.dtype.str}{images.shape}".encode()
    return hashlib.sha256(head + images.tobytes()).hexdigest()[:16]


def to_float(images: np.ndarray) -> np.ndarray:
    """Scales pixels to the range of a tanh.

    Args:
        images: uint8 of any shape, values 0..255.

    Returns:
        float32 of the same shape in [-1, 1]; 0 becomes -1, 255 becomes 1.

    Raises:
        TypeError: if `images` is not uint8 (scaling twice is a common silent mistake).

    Example:
        >>> to_float(np.array([0, 255], np.uint8))
        array([-1.,  1.], dtype=float32)
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"to_float takes uint8 pixels 0..255, got {images.dtype}. Are they scaled already?"
        )
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Turns network outputs into pixels, the inverse of `to_float`.

    Args:
        x: floats of any shape in [-1, 1]; values outside are clipped to it.

    Returns:
        uint8 of the same shape, rounded to the nearest pixel value.

    Raises:
        TypeError: if `x` is not floating point.
        ValueError: if `x` holds NaN or infinity, which have no pixel value.

    Example:
        >>> to_uint8(np.array([-1.0, 0.0, 1.0]))
        array([  0, 128, 255], dtype=uint8)
    """
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"to_uint8 takes floats in [-1, 1], got {x.dtype}. Use pixels as they are.")
    if not np.isfinite(x).all():
        raise ValueError("to_uint8 got NaN or infinity. Look for a diverged training run.")
    pixels = (np.clip(x.astype(np.float32), -1, 1) + np.float32(1)) * np.float32(127.5)
    return np.rint(pixels).astype(np.uint8)
