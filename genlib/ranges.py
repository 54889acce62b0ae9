"""Which numbers are taken: one table, for the Python API, the command line and the server.

A number that is not finite, or absurd, would give garbage and success. Here each has its range, and
whoever takes one calls `check` before any work.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Range:
    """What a number may be.

    Attributes:
        least: the smallest.
        most: the largest.
        whole: whether it is a whole number.
        or_zero: 0 is taken too, though it is below the smallest.
    """

    least: float
    most: float
    whole: bool = True
    or_zero: bool = False

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, Integral if self.whole else Real) or isinstance(value, bool):
            return False
        # NaN is in no range.
        number: Any = value
        return bool(self.least <= number <= self.most or (self.or_zero and number == 0))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{'0, or ' * self.or_zero}{kind} from {_short(self.least)} to {_short(self.most)}"


def _short(number: float) -> str:
    if isinstance(number, float):
        return f"{number:g}"
    return f"{number:,}" if number < 2**30 else f"2**{number.bit_length()} - 1"


RANGES = {
    # of a prompt's images
    "n": Range(1, 1024),  # more would fill the memory of a small machine
    "seed": Range(0, 2**64 - 1),
    "best_of": Range(1, 64),
    # of the ways to draw them
    "steps": Range(1, 1000),
    "guidance": Range(0, 30, whole=False),
    "temperature": Range(1e-6, 100, whole=False, or_zero=True),  # float32 divides by it
    "top_k": Range(1, 2**31 - 1),
    "top_p": Range(1e-6, 1, whole=False),
    "min_p": Range(0, 1, whole=False),
    # of many prompts at once
    "workers": Range(1, 1024),
    "shard": Range(1, 100_000),
    # of training, and of images of Fashion-MNIST
    "epochs": Range(1, 1_000_000),
    "processes": Range(1, 4096),
    "training seed": Range(0, 2**31 - 1),  # Keras takes no larger one
    "images": Range(1, 1_000_000),
    # of a measurement
    "images of a rung": Range(0, 100_000),
    "pairs": Range(9, 10_000),
    # of the server
    "port": Range(0, 65_535),
    "max_batch": Range(1, 1024),
    "max_wait": Range(0, 60, whole=False),
    "max_queue": Range(1, 100_000),
    "max_connections": Range(1, 100_000),
    "timeout": Range(1e-3, 3600, whole=False),
    "cache_bytes": Range(0, 2**40 - 1),
}


def check(name: str, value: Any, of: str = "") -> None:
    """Makes sure that a number is in its range.

    Args:
        name: of the argument, for the message.
        value: what was given.
        of: the row of `RANGES`, where it is not called as the argument is.

    Raises:
        ValueError: if it is no number, not finite, or out of the range.

    Example:
        >>> check("guidance", float("nan"))
        Traceback (most recent call last):
        ValueError: guidance = nan; give a number from 0 to 30.
    """
    if value not in RANGES[of or name]:
        huge = isinstance(value, int) and value.bit_length() > 128  # Python may not print it
        shown = f"about 2**{value.bit_length()}" if huge else reprlib.repr(value)
        raise ValueError(f"{name} = {shown}; give {RANGES[of or name]}.")


def check_all(**given: Any) -> None:
    """Checks numbers by name; those that bar codes from being chosen may be `None`.

    Raises:
        ValueError: as `check`.
    """
    for name, value in given.items():
        if value is not None or name not in ("top_k", "top_p", "min_p"):
            check(name, value)


def check_interval(interval: Any) -> None:
    """Makes sure that an interval is two times with 0 ≤ first ≤ last ≤ 1.

    Raises:
        ValueError: if it is not.
    """
    share = Range(0, 1, whole=False)
    pair = isinstance(interval, (tuple, list)) and len(interval) == 2
    if not pair or not all(time in share for time in interval) or interval[0] > interval[1]:
        raise ValueError(f"interval = {interval}; give two times, 0 ≤ first ≤ last ≤ 1.")
