"""A load for a server: requests that come at random times, whether or not it keeps up.

The load is *open*: people do not wait for each other's answers before they ask. A closed loop,
which sends the next request when the last one is answered, slows down with the server and so hides
that it is too slow. For the same reason a latency counts from the moment at which a request was
due, not from the one at which the client found time to send it.

Reference: Schroeder, Wierman and Harchol-Balter, "Open versus closed", NSDI 2006.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeVar

import httpx
import numpy as np
import psutil

from genlib.data import captions, scenes

T = TypeVar("T")

MOST = 10_000  # requests of one load
PROMPT = "a beautiful sunset over a calm sea"
LOST = 0  # the status of a request that got no answer


@dataclass(frozen=True)
class Load:
    """What became of a load.

    Attributes:
        rate: requests per second that were offered, on average.
        seconds: for which they were offered.
        due: s after the start at which each request was due, `(n,)`.
        latency: from then to its answer, s, `(n,)`.
        status: of HTTP, `(n,)`: 200, 503 for refused, 504 for timed out, 0 for lost.
    """

    rate: float
    seconds: float
    due: np.ndarray
    latency: np.ndarray
    status: np.ndarray

    @property
    def counts(self) -> dict[int, int]:
        """How many requests ended with each status."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    @property
    def lost(self) -> int:
        """How many requests got no answer at all."""
        return int((self.status == LOST).sum())

    @property
    def throughput(self) -> float:
        """Images per second, from the first request that was due to the last answer."""
        served = self.status == 200
        end = (self.due + self.latency)[served].max(initial=self.seconds)
        return float(served.sum() / end)

    def goodput(self, within: float) -> float:
        """Images per second that came within so many seconds: a later one helps nobody."""
        return float(((self.status == 200) & (self.latency <= within)).sum() / self.seconds)

    def percentile(self, q: float) -> float:
        """The latency that `q` percent of the images do not exceed, s; NaN if there are none."""
        served = self.latency[self.status == 200]
        return float(np.percentile(served, q)) if len(served) else float("nan")


def offer(
    url: str,
    rate: float,
    seconds: float,
    prompts: Sequence[str] = ("a beautiful sunset over a calm sea",),
    *,
    seed: int = 0,
    timeout: float = 60.0,
) -> Load:
    """Sends requests as a Poisson process does, and waits for all the answers.

    The number of requests is `rate * seconds`, rounded, and at least one.

    Args:
        url: of the server, on this machine.
        rate: requests per second, on average.
        seconds: for how long.
        prompts: are drawn at random, each with another seed.
        seed: of the arrivals and the prompts.
        timeout: after which a request counts as lost, s.

    Raises:
        ValueError: if a number is out of range, the load is too large, or the server elsewhere.
    """
    if not (rate > 0 and seconds > 0 and rate * seconds <= MOST):
        raise ValueError(f"rate = {rate}, seconds = {seconds}: give at most {MOST} requests.")
    if httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"{url} is another machine. A load is for your own server, on loopback.")
    rng = np.random.default_rng(seed)
    # Random arrivals whose number is known lie anywhere, each by itself.
    due = np.sort(rng.uniform(0, seconds, max(1, round(rate * seconds))))
    bodies = [
        {"prompt": prompts[int(rng.integers(len(prompts)))], "seed": int(rng.integers(2**31))}
        for _ in due
    ]
    with ThreadPoolExecutor(1) as pool:  # a loop of its own: a notebook's is already running
        results = pool.submit(asyncio.run, _send(url, due, bodies, timeout)).result()
    latency, status = (np.array(column) for column in zip(*results, strict=True))
    return Load(rate, seconds, due, latency, status)


async def _send(
    url: str, due: np.ndarray, bodies: Sequence[dict[str, object]], timeout: float
) -> list[tuple[float, int]]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=2.0)
    async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as client:
        start = time.perf_counter()

        async def one(at: float, body: dict[str, object]) -> tuple[float, int]:
            await asyncio.sleep(start + at - time.perf_counter())
            try:
                status = (await client.post(f"{url}/generate", json=body)).status_code
            except httpx.HTTPError:
                status = LOST
            return time.perf_counter() - start - at, status

        return await asyncio.gather(*(one(*pair) for pair in zip(due, bodies, strict=True)))


def alone(url: str, n: int = 40, warmup: int = 3) -> np.ndarray:
    """Returns the seconds that requests take one after another, float `(n,)`.

    Args:
        url: of the server.
        n: how many.
        warmup: requests before them that are not counted.

    Raises:
        httpx.HTTPError: if a request fails.
    """
    spent = []
    with httpx.Client(timeout=60, trust_env=False) as client:  # one connection, as in `offer`
        for seed in range(warmup + n):
            start = time.perf_counter()
            body = {"prompt": PROMPT, "seed": seed}
            client.post(f"{url}/generate", json=body).raise_for_status()
            spent.append(time.perf_counter() - start)
    return np.array(spent[warmup:])


@dataclass(frozen=True)
class Server:
    """A server in a process of its own, while it runs."""

    url: str
    process: subprocess.Popen[str]
    log: IO[str]

    @property
    def memory(self) -> int:
        """What it holds of the machine's memory, bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def log_bytes(self) -> int:
        """How much it has written into its log."""
        return os.fstat(self.log.fileno()).st_size


@contextlib.contextmanager
def started(*arguments: str, patience: float = 300.0) -> Iterator[Server]:
    """Runs a server in a process of its own, and stops it at the end, whatever happens.

    Args:
        *arguments: of `genlib serve`; it takes a free port unless told otherwise.
        patience: how long it may take to get ready, s.

    Raises:
        RuntimeError: if it ends, or is not ready in time.
    """
    command = [sys.executable, "-m", "genlib.cli", "serve", "--port", "0", *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        watchdog = threading.Timer(patience, process.kill)  # else a silent server would hold us
        watchdog.start()
        try:
            url = _ready(process)
            watchdog.cancel()
            if url is None:
                log.seek(0)
                raise RuntimeError(
                    f"{' '.join(command)} was not ready within {patience:g} s, or ended: "
                    f"{log.read()[-500:]}"
                )
            yield Server(url, process, log)
        finally:
            watchdog.cancel()
            _stop(process)


@contextlib.contextmanager
def serving(*arguments: str, patience: float = 300.0) -> Iterator[str]:
    """Runs a server as `started` does, for those who need its address alone.

    with serving("--max-batch", "1") as url:
        load = offer(url, rate=5, seconds=10)
    """
    with started(*arguments, patience=patience) as server:
        yield server.url


def _ready(process: subprocess.Popen[str]) -> str | None:
    """Waits until a server is warm, and returns its address; None if it ends before."""
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    while url and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return url
        time.sleep(0.1)
    return None


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


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
    intents: int, wordings: int, seed: int = 0, wording: captions.Wording = "seen"
) -> list[list[Asked]]:
    """Returns intents, no two the same, each in up to so many wordings, English and Chinese.

    Args:
        intents: how many; each one names other attributes, or other values of them.
        wordings: of each intent, at most; a short one has few.
        seed: of all that is drawn.
        wording: `"seen"` by the encoder in training, or `"unseen"`.

    Raises:
        ValueError: if a number is below 1, or there are not so many intents.
    """
    if intents < 1 or wordings < 1:
        raise ValueError(f"intents = {intents}, wordings = {wordings}: give at least 1 of each.")
    rng, rows = np.random.default_rng(seed), scenes.combinations()
    found: dict[Any, list[Asked]] = {}
    for _ in range(100 * intents):
        row = tuple(int(value) for value in rows[rng.integers(len(rows))])
        said = [captions.caption(row, rng, wording=wording) for _ in range(40 * wordings)]
        same = {c.text: Asked(c.text, row, c.named) for c in said if c.named == said[0].named}
        told = tuple(v for n, v in zip(captions.ATTRIBUTES, row, strict=True) if n in said[0].named)
        found.setdefault((said[0].named, told), list(same.values())[:wordings])
        if len(found) == intents:
            return list(found.values())
    raise ValueError(f"There are only {len(found)} such intents, not {intents}. Ask for fewer.")


def zipf_stream(
    n: int, prompts: Sequence[Sequence[T]], exponent: float = 1.0, seed: int = 0
) -> list[T]:
    """Draws requests as people make them: a few intents often, many seldom.

    Args:
        n: how many requests.
        prompts: for each intent its wordings; intent `k`, from 1, is drawn in proportion to
            `k ** -exponent`, and each of its wordings alike.
        exponent: 0 draws all intents alike; traces of web requests had 0.64 to 0.83.
        seed: of the draws.

    Raises:
        ValueError: if there is nothing to draw from.

    Reference: Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999.

    Example:
        >>> zipf_stream(5, [["sunset", "sundown"], ["rain"]], exponent=1.0)
        ['sundown', 'sundown', 'sundown', 'sundown', 'rain']
    """
    if not prompts or not all(prompts):
        raise ValueError("Each intent needs at least one wording, and there must be an intent.")
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
