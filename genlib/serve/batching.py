"""Dynamic batching: requests that come at about the same time are worked on together.

A request waits a few milliseconds for company, and while the worker is busy, the next batch
gathers by itself. The queue is bounded: when it is full, a request is refused at once, because a
late answer helps nobody and makes all that follow late too. Every request that is accepted is
answered exactly once: with its result, with an error, or with a time-out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from genlib import ranges

Item = TypeVar("Item")
Result = TypeVar("Result")
KEPT = 10_000  # latencies that the percentiles are of
QUANTILES = (50, 95, 99)
OUTCOMES = ("accepted", "answered", "failed", "timed out", "cancelled", "refused")


class Overloaded(RuntimeError):  # noqa: N818  # an answer, not a fault
    """A request was refused, because the queue is full or the batcher is closing.

    Attributes:
        retry_after: seconds after which another try may succeed, an estimate.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]


def round_up(n: int, most: int) -> int:
    """Returns the next power of two, or `most` if that is less.

    A compiled function may be compiled anew for each batch size, so only a few are used.

    Example:
        >>> [round_up(n, 12) for n in (1, 2, 3, 5, 9)]
        [1, 2, 4, 8, 12]
    """
    return min(most, 1 << (n - 1).bit_length())


class Batcher(Generic[Item, Result]):
    """Gathers items into batches, and runs them one batch after another in one thread.

        async with Batcher(run) as batcher:
            results = await batcher.submit([item])

    Args:
        run: items to as many results, in the same order. It gets 1, 2, 4, 8, … items, the last
            one repeated to fill up. A result that is an exception is raised for its item alone.
        max_batch: the most items that are run at once.
        max_wait: how long an item waits for company, s, while the worker is idle.
        max_queue: the most items that wait.
        timeout: after which a request is given up, s.

    Raises:
        ValueError: if a number is out of its range in `genlib.ranges`.

    Reference: Crankshaw et al., "Clipper", NSDI 2017, section 4.3.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_batch: int = 16,
        max_wait: float = 0.005,
        max_queue: int = 64,
        timeout: float = 30.0,
    ) -> None:
        numbers = {"max_batch": max_batch, "max_wait": max_wait, "max_queue": max_queue}
        ranges.check_all(**numbers, timeout=timeout)
        self.max_batch, self.max_queue, self.max_wait = max_batch, max_queue, max_wait
        self.timeout = timeout
        self.outcomes: Counter[str] = Counter()  # of requests
        self.batches: Counter[int] = Counter()  # size, without the filling → how many
        self.latencies: deque[float] = deque(maxlen=KEPT)  # s, of the requests answered
        self._run = run
        self._queue: list[_Waiting[Item, Result]] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._per_item = 0.0  # s, a running mean
        self._pool = ThreadPoolExecutor(1, "batcher")
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher[Item, Result]:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __len__(self) -> int:
        """Returns how many items wait."""
        return sum(not waiting.answer.done() for waiting in self._queue)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Waits for the results of a request: all of its items are accepted, or none.

        Args:
            items: at least one, at most `max_queue`.

        Raises:
            ValueError: if there are no items, or more than the queue ever holds.
            Overloaded: if the queue has no room, or the batcher is closing.
            TimeoutError: if the results do not come in time; the items are then left out.
            Exception: what `run` raised for one of the items.
        """
        if not 1 <= len(items) <= self.max_queue:
            raise ValueError(f"{len(items)} items; give 1 to {self.max_queue}.")
        if self._closing or self._worker is None or len(self) + len(items) > self.max_queue:
            self.outcomes["refused"] += 1
            why = "is closed" if self._closing or self._worker is None else "is full"
            wait = max(0.1, len(self) * self._per_item)
            raise Overloaded(f"The queue {why}. Try again in {wait:.1f} s.", wait)
        self.outcomes["accepted"] += 1
        start, loop = time.perf_counter(), asyncio.get_running_loop()
        entered = [_Waiting[Item, Result](item, loop.create_future()) for item in items]
        self._queue.extend(entered)
        self._arrived.set()
        outcome = "failed"
        try:
            async with asyncio.timeout(self.timeout):
                results = list(await asyncio.gather(*(waiting.answer for waiting in entered)))
            outcome = "answered"
            self.latencies.append(time.perf_counter() - start)
            return results
        except TimeoutError:
            outcome = "timed out"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.outcomes[outcome] += 1
            for waiting in entered:  # whoever waits no longer is not worked for
                waiting.answer.cancel()

    async def close(self, grace: float | None = None) -> None:
        """Accepts nothing more, finishes what waits, and stops.

        Args:
            grace: after so many seconds, what still waits is refused; never, if None. The batch
                that runs is finished in any case.
        """
        self._closing = True
        self._arrived.set()
        if self._worker is not None:
            done, _ = await asyncio.wait({self._worker}, timeout=grace)
            if not done:
                for waiting in self._queue:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(Overloaded("The queue is closed.", 1.0))
                await self._worker
        self._pool.shutdown()

    async def _work(self) -> None:
        while batch := await self._gather():
            size = len(batch)
            self.batches[size] += 1
            start = time.perf_counter()
            results = await self._results([waiting.item for waiting in batch])
            spent = (time.perf_counter() - start) / size
            self._per_item += 0.2 * (spent - self._per_item)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.answer.done():  # given up meanwhile
                    continue
                if isinstance(result, Exception):
                    waiting.answer.set_exception(result)
                else:
                    waiting.answer.set_result(result)

    async def _gather(self) -> list[_Waiting[Item, Result]]:
        """Returns the next batch; an empty one when the batcher is closing and nothing waits."""
        while True:
            while not len(self) and not self._closing:
                await self._arrival()
            deadline = time.perf_counter() + self.max_wait
            while len(self) < self.max_batch and not self._closing:
                try:
                    async with asyncio.timeout(deadline - time.perf_counter()):
                        await self._arrival()
                except TimeoutError:
                    break
            there = [waiting for waiting in self._queue if not waiting.answer.done()]
            batch, self._queue = there[: self.max_batch], there[self.max_batch :]
            if batch or self._closing:
                return batch

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _results(self, items: list[Item]) -> Sequence[Result | Exception]:
        filled = items + [items[-1]] * (round_up(len(items), self.max_batch) - len(items))
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._pool, self._run, filled)
            if len(made) != len(filled):
                raise RuntimeError(f"run made {len(made)} results of {len(filled)} items.")
            return made[: len(items)]
        except Exception as error:
            if len(items) == 1:
                return [error]
            # One bad item must not spoil the others: each is tried by itself.
            return [(await self._results([item]))[0] for item in items]

    def stats(self) -> dict[str, Any]:
        """Returns counts for people and machines; latencies in seconds."""
        latency = np.percentile(self.latencies, QUANTILES).tolist() if self.latencies else []
        return {
            "requests": {name: self.outcomes[name] for name in OUTCOMES},
            "waiting": len(self),
            "batches": {str(size): self.batches[size] for size in sorted(self.batches)},
            "latency": {f"p{q}": s for q, s in zip(QUANTILES, latency, strict=False)},
        }
