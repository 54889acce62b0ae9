"""A ring of Gaussians: data in the plane whose modes can be counted.

Eight narrow Gaussians on a circle. With images nobody knows how many kinds a generator has
forgotten; here it is a count.

Reference: Metz et al., "Unrolled Generative Adversarial Networks" (arXiv 1611.02163), section 3.1;
the two measures follow Srivastava et al., "VEEGAN" (arXiv 1705.07761), with a
stricter bar for a covered mode.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MODES = 8
RADIUS = 2.0
STD = 0.1  # of each Gaussian, in each direction
NEAR = 3 * STD  # a sample farther than this from every mode is not like the data

_ANGLES = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = RADIUS * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # (8, 2)


class Coverage(NamedTuple):
    """What a set of samples holds of the ring."""

    modes: int  # covered modes, 0..8
    quality: float  # share of samples near a mode, 0..1


def ring_of_gaussians(n: int, seed: int) -> np.ndarray:
    """Draws from the ring, each mode with probability 1/8.

    Args:
        n: number of samples, at least 1.
        seed: the same seed gives the same samples.

    Returns:
        float32 `(n, 2)`.

    Raises:
        ValueError: if `n` is below 1.

    Example:
        >>> ring_of_gaussians(1000, seed=0).shape
        (1000, 2)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}. Ask for one sample or more.")
    rng = np.random.default_rng(seed)
    modes = rng.integers(MODES, size=n)
    return (CENTRES[modes] + STD * rng.standard_normal((n, 2))).astype(np.float32)


def modes_covered(samples: np.ndarray) -> Coverage:
    """Counts the modes that samples cover, and the share of samples near any mode.

    A sample is near a mode if it lies within three standard deviations of its centre. A mode is
    covered if a quarter of its fair share is near it: 1/32 of all samples. The ring itself reaches
    all 8 modes and a share of 1 - exp(-9/2) = 0.989.

    Args:
        samples: `(n, 2)`, at least 32 finite points.

    Raises:
        ValueError: if the shape is another, if there are fewer than 32 points, or if one is not
            finite.

    Example:
        >>> modes_covered(ring_of_gaussians(1000, seed=0)).modes
        8
    """
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != 2 or len(samples) < 4 * MODES:
        raise ValueError(
            f"samples must have the shape (n, 2) with n at least {4 * MODES}, got {samples.shape}."
        )
    if not np.isfinite(samples).all():
        raise ValueError("samples hold NaN or Inf; the generator diverged. Train it anew.")
    distances = np.linalg.norm(samples[:, None] - CENTRES, axis=-1)  # (n, 8)
    near = distances.min(axis=1) <= NEAR
    counts = np.bincount(distances.argmin(axis=1)[near], minlength=MODES)
    covered = counts * 4 * MODES >= len(samples)
    return Coverage(int(covered.sum()), float(near.mean()))
