"""Do not compute it twice: caches of images, and of states on the way to them.

* `ExactCache` answers when the very same request came before: the same samples, for nothing.
* `SemanticCache` answers when a request means nearly the same, by the cosine of its embedding.
* `resume` starts a flow from a state that another prompt's image came by.

Only the first one keeps a request's own samples. The other two are the system's doing: an image
that somebody else got before is no fresh sample, so who asks twice sees less variety.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Counted:
    hits = 0
    misses = 0

    @property
    def hit_rate(self) -> float:
        """The share of the look-ups that found something; 0 before the first one."""
        return self.hits / max(1, self.hits + self.misses)

    def _count(self, found: bool) -> None:
        self.hits += found
        self.misses += not found


class ExactCache(_Counted, Generic[K, V]):
    """Keeps what was used last (LRU), up to a number of entries or bytes.

    Args:
        entries: the most entries, or None.
        limit_bytes: the most bytes, or None. An entry that is larger by itself is not kept.
        size: the bytes of a value; `len` fits a file, `lambda image: image.nbytes` an array.

    Raises:
        ValueError: if there is no limit, or one below 1.

    Example:
        >>> cache = ExactCache(entries=2)
        >>> for name in ("dawn", "day", "night"):
        ...     cache.put(name, name.upper())
        >>> cache.find("night"), cache.find("dawn"), cache.hit_rate
        ('NIGHT', None, 0.5)
    """

    def __init__(
        self,
        entries: int | None = None,
        limit_bytes: int | None = None,
        size: Callable[[V], int] = len,  # type: ignore[assignment]  # of what has a length
    ) -> None:
        limits = [limit for limit in (entries, limit_bytes) if limit is not None]
        if not limits or min(limits) < 1:
            raise ValueError(
                f"entries = {entries}, limit_bytes = {limit_bytes}: give one of them, at least 1."
            )
        self.entries, self.limit_bytes, self.bytes = entries, limit_bytes, 0
        self._size = size
        self._kept: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: K) -> V | None:
        """Returns the value of a key, or None, and counts a hit or a miss."""
        found = key in self._kept
        self._count(found)
        if not found:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: K, value: V) -> None:
        """Keeps a value, and lets go of what was not used for longest, as far as needed."""
        self._drop(key)
        size = 0 if self.limit_bytes is None else self._size(value)
        if self.limit_bytes is not None and size > self.limit_bytes:
            return
        self._kept[key] = value
        self.bytes += size
        while self._is_too_full():
            self._drop(next(iter(self._kept)))

    def _is_too_full(self) -> bool:
        many = self.entries is not None and len(self) > self.entries
        return many or (self.limit_bytes is not None and self.bytes > self.limit_bytes)

    def _drop(self, key: K) -> None:
        if key in self._kept:
            value = self._kept.pop(key)
            self.bytes -= 0 if self.limit_bytes is None else self._size(value)


class SemanticCache(_Counted, Generic[V]):
    """Finds the value whose embedding points most nearly in the same direction.

    All embeddings lie in one matrix, so a look-up is one product; for some ten thousand entries
    no index is needed. What was not used for longest goes first.

    Args:
        threshold: the cosine from which an entry counts as the same, at most 1.
        entries: the most entries.

    Raises:
        ValueError: if a number is out of range.

    Reference: Bang, "GPTCache", 2023.

    Example:
        >>> cache = SemanticCache(threshold=0.9)
        >>> cache.put(np.array([1.0, 0.0]), "sunset")
        >>> cache.find(np.array([9.0, 1.0])), cache.find(np.array([0.0, 1.0]))
        ('sunset', None)
    """

    def __init__(self, threshold: float, entries: int = 1000) -> None:
        if not -1 <= threshold <= 1 or entries < 1:
            raise ValueError(
                f"threshold = {threshold}, entries = {entries}: give a cosine, and at least 1."
            )
        self.threshold, self.entries = threshold, entries
        self._values: list[V] = []
        self._directions = np.zeros((0, 0), np.float32)
        self._used = np.zeros(entries, np.int64)
        self._now = 0

    def __len__(self) -> int:
        return len(self._values)

    def nearest(self, embedding: np.ndarray) -> tuple[float, V] | None:
        """Returns the highest cosine and its value, whatever the threshold; None if empty."""
        place, cosine = self._nearest(embedding)
        return None if place < 0 else (cosine, self._values[place])

    def find(self, embedding: np.ndarray) -> V | None:
        """Returns the value of the nearest entry, or None if it is not near enough; counts."""
        place, cosine = self._nearest(embedding)
        found = place >= 0 and cosine >= self.threshold
        self._count(found)
        if not found:
            return None
        self._use(place)
        return self._values[place]

    def put(self, embedding: np.ndarray, value: V) -> None:
        """Keeps a value under an embedding, float `(width,)`."""
        direction = _direction(embedding)
        if not self._values:
            self._directions = np.zeros((self.entries, len(direction)), np.float32)
        place = len(self) if len(self) < self.entries else int(self._used.argmin())
        self._directions[place] = direction
        self._values[place : place + 1] = [value]
        self._use(place)

    def _use(self, place: int) -> None:
        self._now += 1
        self._used[place] = self._now

    def _nearest(self, embedding: np.ndarray) -> tuple[int, float]:
        if not self._values:
            return -1, -1.0
        cosines = self._directions[: len(self)] @ _direction(embedding)
        place = int(cosines.argmax())
        return place, float(cosines[place])


def _direction(embedding: np.ndarray) -> np.ndarray:
    embedding = np.asarray(embedding, np.float32)
    return embedding / max(float(np.linalg.norm(embedding)), 1e-12)
