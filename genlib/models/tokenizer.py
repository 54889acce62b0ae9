"""The tokenizer: a 64×64 image becomes a 16×16 grid of codes, and comes back.

A convolutional autoencoder whose latent numbers are rounded to a few levels each. Rounding needs
no code book and no extra loss, and no code can die (finite scalar quantization, Mentzer et al.,
2023, arXiv:2309.15505). Every text-to-image model of genlib works on this grid: with the codes,
0 to 4095, or with the latents before rounding, 4 numbers in [-1, 1]. The models take 2×2 places of
the grid as one token, so an image is 8×8 tokens of four codes each.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from genlib import backend
from genlib.data.images import to_float, to_uint8

GRID = 16  # an image is GRID × GRID codes
IMAGE_SHAPE = (64, 64, 3)


@dataclass(frozen=True)
class TokenizerConfig:
    """What defines a tokenizer."""

    levels: tuple[int, ...] = (8, 8, 8, 8)  # of each latent channel
    width: int = 64  # channels at 16×16
    pixel_width: int = 16  # channels at 64×64
    encoder_blocks: int = 2
    decoder_blocks: int = 4

    @property
    def codes(self) -> int:
        """How many codes there are: the product of the levels."""
        return math.prod(self.levels)


def quantize(latents: Any, levels: tuple[int, ...]) -> Any:
    """Rounds each channel to the nearest of its levels, equally spaced from -1 to 1.

    The gradient passes as if nothing had been rounded (straight-through estimator).

    Args:
        latents: float `(..., channels)` in [-1, 1].
        levels: how many levels each channel has.

    Returns:
        float `(..., channels)`: as many different values in a channel as it has levels.

    Reference: Mentzer et al., 2023, arXiv:2309.15505, section 3.1, with levels that lie
    symmetrically around 0.
    """
    latents = ops.convert_to_tensor(latents)
    steps = ops.convert_to_tensor(np.array(levels, np.float32)) - 1
    rounded = ops.round((latents + 1) / 2 * steps) / steps * 2 - 1
    return latents + ops.stop_gradient(rounded - latents)


def latents_to_codes(latents: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Numbers the quantized latents as digits of one number, the first channel the lowest.

    Args:
        latents: float `(..., channels)`; values outside [-1, 1] go to the nearest level.
        levels: how many levels each channel has.

    Returns:
        int32 `(...)`, from 0 to the product of the levels less one.

    Example:
        >>> latents_to_codes(np.array([[-1.0, 1.0]]), (8, 5))
        array([32], dtype=int32)
    """
    steps = np.array(levels) - 1
    digits = np.rint((np.clip(latents, -1, 1) + 1) / 2 * steps).astype(np.int32)
    return (digits * np.cumprod((1, *levels[:-1]), dtype=np.int32)).sum(-1, dtype=np.int32)


def codes_to_latents(codes: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Undoes `latents_to_codes`.

    Args:
        codes: int `(...)`.
        levels: how many levels each channel has.

    Returns:
        Quantized latents, float32 `(..., channels)` in [-1, 1].

    Raises:
        ValueError: if a code is negative or too large.
    """
    codes = np.asarray(codes)
    if codes.size and not (codes.min() >= 0 and codes.max() < math.prod(levels)):
        raise ValueError(
            f"Codes from {codes.min()} to {codes.max()}; this tokenizer has 0 to "
            f"{math.prod(levels) - 1}."
        )
    digits = codes[..., None] // np.cumprod((1, *levels[:-1])) % np.array(levels)
    return (digits / (np.array(levels) - 1) * 2 - 1).astype(np.float32)


class _Residual(layers.Layer):
    """Two 3×3 convolutions beside an identity; the second starts at zero, so no norm is needed."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        start = keras.initializers.HeNormal(seed=seed)
        self.first = layers.Conv2D(width, 3, padding="same", kernel_initializer=start)
        self.second = layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros")

    def call(self, x: Any) -> Any:
        return x + self.second(ops.silu(self.first(ops.silu(x))))


def to_depth(x: Any, block: int) -> Any:
    """Moves each block of places into channels: `(b, h, w, c)` → `(b, h/k, w/k, k·k·c)`."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // block, block, width // block, block, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height // block, width // block, block * block * channels))


def to_space(x: Any, block: int) -> Any:
    """Undoes `to_depth`: `(b, h, w, k·k·c)` → `(b, k·h, k·w, c)`."""
    _, height, width, channels = x.shape
    depth = channels // block**2
    x = ops.reshape(x, (-1, height, width, block, block, depth))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height * block, width * block, depth))


class Tokenizer(keras.Model):
    """Images to codes and back.

    Args:
        config: levels and widths.
        seed: of the initial weights.

    Example:
        >>> tokenizer = Tokenizer()
        >>> codes = tokenizer.encode(np.zeros((2, 64, 64, 3), np.uint8))
        >>> codes.shape, tokenizer.decode(codes).shape
        ((2, 16, 16), (2, 64, 64, 3))
    """

    def __init__(self, config: TokenizerConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="tokenizer")
        self.config = config = config or TokenizerConfig()
        seeds = iter(np.random.default_rng(seed).integers(2**31, size=64).tolist())

        def conv(width: int, kernel: int, **options: Any) -> layers.Conv2D:
            start = keras.initializers.GlorotUniform(seed=next(seeds))
            return layers.Conv2D(width, kernel, padding="same", kernel_initializer=start, **options)

        image = keras.Input(IMAGE_SHAPE)
        x = conv(config.width, 3)(to_depth(image, 4))  # at 16×16, convolutions are cheap
        for _ in range(config.encoder_blocks):
            x = _Residual(config.width, next(seeds))(x)
        x = conv(len(config.levels), 1, activation="tanh")(x)
        self.encoder = keras.Model(image, x, name="encoder")

        latents = keras.Input((GRID, GRID, len(config.levels)))
        x = conv(config.width, 3)(latents)
        for _ in range(config.decoder_blocks):
            x = _Residual(config.width, next(seeds))(x)
        x = to_space(conv(16 * config.pixel_width, 1)(x), 4)  # (b, 64, 64, pixel_width)
        x = conv(config.pixel_width, 3, activation="silu")(x)  # smooths the seams of the blocks
        self.decoder = keras.Model(latents, conv(3, 3)(x), name="decoder")

        self._encode = backend.compile_step(self.encoder, self.encoder.variables)
        self._decode = backend.compile_step(self.decoder, self.decoder.variables)

    def call(self, images: Any) -> Any:
        """Reconstructs images, float32 `(b, 64, 64, 3)` in [-1, 1]; the result may go beyond."""
        return self.decoder(quantize(self.encoder(images), self.config.levels))

    def latents(self, images: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Returns the latents before rounding.

        Args:
            images: uint8 `(n, 64, 64, 3)`.
            batch_size: images per call of the encoder.

        Returns:
            float32 `(n, 16, 16, channels)` in [-1, 1].

        Raises:
            ValueError: if `images` has another type or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
            raise ValueError(
                f"The tokenizer reads uint8 images (n, 64, 64, 3), got {images.dtype} "
                f"{images.shape}. genlib.data.folder crops and resizes your own."
            )
        return _in_batches(lambda part: self._encode(to_float(part)), images, batch_size)

    def encode(self, images: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Returns codes, int32 `(n, 16, 16)`, of uint8 images `(n, 64, 64, 3)`."""
        return latents_to_codes(self.latents(images, batch_size), self.config.levels)

    def decode(self, grid: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Returns images.

        Args:
            grid: codes, int `(n, 16, 16)`, or latents, float `(n, 16, 16, channels)`, which may
                lie between the levels; those outside [-1, 1] are moved to its ends.
            batch_size: images per call of the decoder.

        Returns:
            uint8 `(n, 64, 64, 3)`.

        Raises:
            ValueError: if the shape is another, or a code does not exist.
        """
        grid, levels = np.asarray(grid), self.config.levels
        if grid.shape[1:] == (GRID, GRID, len(levels)) and grid.dtype.kind == "f":
            latents = np.clip(grid, -1, 1).astype(np.float32)
        elif grid.shape[1:] == (GRID, GRID) and grid.dtype.kind in "iu":
            latents = codes_to_latents(grid, levels)
        else:
            raise ValueError(
                f"The tokenizer decodes int codes (n, {GRID}, {GRID}) or float latents "
                f"(n, {GRID}, {GRID}, {len(levels)}), got {grid.dtype} {grid.shape}."
            )
        return to_uint8(_in_batches(self._decode, latents, batch_size))

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that tell one encoder, and so one code, from another.

        A model that was trained on the codes of one tokenizer talks nonsense to another.
        """
        parts = [np.asarray(backend.to_numpy(v.value), "<f2") for v in self.encoder.variables]
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def reconstruction_loss(images: Any, reconstructions: Any) -> Any:
    """Returns the mean squared error of pixels, and half that of differences between neighbours.

    Absolute errors would let a few bright pixels go, such as stars; squares do not. The second
    term makes a blurred edge expensive.

    Args:
        images: float `(b, height, width, channels)`.
        reconstructions: of the same shape.

    Returns:
        A scalar.
    """
    error = images - reconstructions
    loss = ops.mean(ops.square(error))
    for axis in (1, 2):
        loss += 0.5 * ops.mean(ops.square(ops.diff(error, axis=axis)))
    return loss


def _in_batches(run: Any, inputs: np.ndarray, size: int) -> np.ndarray:
    """Runs a function on `size` inputs at a time, and joins its results on the host."""
    parts = [
        np.asarray(backend.to_numpy(run(inputs[i : i + size]))) for i in range(0, len(inputs), size)
    ]
    return np.concatenate(parts)
