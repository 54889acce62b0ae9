"""Do not compute it twice: caches of images, and of states on the way to them.

* `ExactCache` answers when the very same request came before: the same samples, for nothing.
* `SemanticCache` answers when a request means nearly the same, by the cosine of its embedding.
* `resume` starts a flow from a state that another prompt's image came by.

Only the first one keeps a request's own samples. The other two are the system's doing: an image
that somebody else got before is no fresh sample, so who asks twice sees less variety.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from genlib import backend
from genlib.data import captions, scenes
from genlib.models.flow import Flow
from genlib.models.speller import check_text

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


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


def resume(
    flow: Flow,
    states: np.ndarray,
    text: np.ndarray,
    *,
    begin: int,
    steps: int = 16,
    guidance: float = 3.0,
    xla: bool = False,
) -> np.ndarray:
    """Takes the last steps to the images of `text`, from states of other images.

    `Flow.path` gives the states. Early ones hold the layout only, which a new prompt can still
    change; late ones hold an image that it can hardly change any more.

    Args:
        flow: a model.
        states: at time `begin / steps`, float `(n, 16, 16, channels)`, in units of the spread.
        text: embeddings of what is wished for now, float32 `(n, text_width)`.
        begin: the step to begin with, from 0 (`states` are noise) to `steps`.
        steps: of the whole way.
        guidance: see `Flow.sample`.
        xla: compile with XLA.

    Returns:
        Latents, float32 `(n, 16, 16, channels)`, as `Flow.sample` returns them.

    Raises:
        ValueError: if a shape is another, or `begin` out of range.

    Reference: Agarwal et al., 2024, arXiv:2312.04429, section 3.
    """
    text = check_text(text, flow.config.text_width)
    states = np.asarray(states, np.float32)
    if states.ndim != 4 or len(states) != len(text):
        raise ValueError(
            f"states have shape {states.shape}; give one state of a path for each of {len(text)} "
            "texts."
        )
    if not 0 <= begin <= steps:
        raise ValueError(f"begin = {begin}; give a step from 0 to {steps}.")
    part = flow._compiled(("part", guidance, "euler", xla), flow._part)
    ended = part(states, text, np.array((begin, steps, steps), np.int32))
    return backend.to_numpy(ended) * flow.config.spread


# ---------------------------------------------------------------- a stream of requests


@dataclass(frozen=True)
class Asked:
    """A prompt, and what it asks for.

    Attributes:
        text: English or Chinese.
        attributes: five indices into `captions.ATTRIBUTES`.
        named: those attributes that the text tells; it leaves the others open.
    """

    text: str
    attributes: tuple[int, ...]
    named: frozenset[str]


def paraphrases(
    wishes: int, wordings: int, seed: int = 0, wording: captions.Wording = "seen"
) -> list[list[Asked]]:
    """Returns wishes, no two the same, each in up to so many wordings, English and Chinese.

    Args:
        wishes: how many; each one names other attributes, or other values of them.
        wordings: of each wish, at most; a short one has few.
        seed: of all that is drawn.
        wording: `"seen"` by the encoder in training, or `"unseen"`.

    Raises:
        ValueError: if a number is below 1, or there are not so many wishes.
    """
    if wishes < 1 or wordings < 1:
        raise ValueError(f"wishes = {wishes}, wordings = {wordings}: give at least 1 of each.")
    rng, rows = np.random.default_rng(seed), scenes.combinations()
    found: dict[Any, list[Asked]] = {}
    for _ in range(100 * wishes):
        row = tuple(int(value) for value in rows[rng.integers(len(rows))])
        said = [captions.caption(row, rng, wording=wording) for _ in range(40 * wordings)]
        same = {c.text: Asked(c.text, row, c.named) for c in said if c.named == said[0].named}
        told = tuple(v for n, v in zip(captions.ATTRIBUTES, row, strict=True) if n in said[0].named)
        found.setdefault((said[0].named, told), list(same.values())[:wordings])
        if len(found) == wishes:
            return list(found.values())
    raise ValueError(f"There are only {len(found)} such wishes, not {wishes}. Ask for fewer.")


def zipf_stream(
    n: int, prompts: Sequence[Sequence[T]], exponent: float = 1.0, seed: int = 0
) -> list[T]:
    """Draws requests as people make them: a few wishes often, many seldom.

    Args:
        n: how many requests.
        prompts: for each wish its wordings; wish `k`, from 1, is drawn in proportion to
            `k ** -exponent`, and each of its wordings alike.
        exponent: 0 draws all wishes alike; traces of web requests had 0.64 to 0.83.
        seed: of the draws.

    Raises:
        ValueError: if there is nothing to draw from.

    Reference: Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999.

    Example:
        >>> zipf_stream(5, [["sunset", "sundown"], ["rain"]], exponent=1.0)
        ['sundown', 'sundown', 'sundown', 'sundown', 'rain']
    """
    if not prompts or not all(prompts):
        raise ValueError("Each wish needs at least one wording, and there must be a wish.")
    rng = np.random.default_rng(seed)
    weights = np.arange(1, len(prompts) + 1) ** -float(exponent)
    chosen = rng.choice(len(prompts), n, p=weights / weights.sum())
    return [prompts[i][int(rng.integers(len(prompts[i])))] for i in chosen]


class _Cache(Protocol):
    def find(self, key: Any) -> Any: ...

    def put(self, key: Any, value: Any) -> None: ...


def replay(cache: _Cache, keys: Sequence[Any]) -> np.ndarray:
    """Sends a stream through a cache.

    Args:
        cache: exact or semantic, empty.
        keys: of the requests, in order: texts, or embeddings.

    Returns:
        int `(n,)`: for each request the one whose image answers it. Its own number is a miss.

    Example:
        >>> replay(ExactCache(entries=9), ["sea", "hills", "sea"])
        array([0, 1, 0])
    """
    answered = np.arange(len(keys))
    for i, key in enumerate(keys):
        found = cache.find(key)
        if found is None:
            cache.put(key, i)
        else:
            answered[i] = found
    return answered


def is_wrong(read: np.ndarray, asked: Sequence[Asked]) -> np.ndarray:
    """Returns for which images the judge reads another value than the one asked for.

    Args:
        read: the judge's reading of the image that each request got, int `(n, 5)`.
        asked: the requests; what they leave open cannot be wrong.
    """
    names = tuple(captions.ATTRIBUTES)
    named = np.array([[name in a.named for name in names] for a in asked])
    wanted = np.array([a.attributes for a in asked])
    return ((np.asarray(read) != wanted) & named).any(1)
