"""The batcher loses nothing, the server answers everything, and neighbours do not matter."""

import asyncio
import base64
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from genlib import pipeline
from genlib.models.flow import Flow, FlowConfig
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.speed.batching import Batcher, Overloaded, round_up


def squares(items):
    return [x * x for x in items]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def balance(batcher):
    """What was accepted less what was answered in some way: nothing, once all is over."""
    o = batcher.outcomes
    ended = ("answered", "failed", "timed out", "cancelled")
    return o["accepted"] - sum(o[name] for name in ended)


class Gate:
    """A function that works only while its gate is open, and keeps what it was given."""

    def __init__(self):
        self.open, self.begun, self.seen = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.begun.set()
        assert self.open.wait(10)
        self.seen.append(list(items))
        return squares(items)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_every_request_gets_its_own_results_in_order():
    async def main():
        async with Batcher(squares, max_batch=4, max_queue=100) as batcher:
            asked = [[i, i + 1] for i in range(30)]
            got = await asyncio.gather(*(batcher.submit(items) for items in asked))
            assert got == [squares(items) for items in asked]
            assert sum(size * count for size, count in batcher.batches.items()) == 60
            assert max(batcher.batches) <= 4
            assert batcher.stats()["requests"]["answered"] == 30
            assert balance(batcher) == 0

    run(main())


def test_batches_are_filled_up_to_a_few_sizes():
    sizes = []

    def work(items):
        sizes.append(len(items))
        return squares(items)

    async def main():
        async with Batcher(work, max_batch=12, max_wait=0.2, max_queue=99) as batcher:
            for n in (3, 5, 9, 12):
                assert await batcher.submit(list(range(n))) == squares(range(n))

    run(main())
    assert sizes == [4, 8, 12, 12]
    assert [round_up(n, 16) for n in range(1, 17)] == [1, 2, 4, 4] + 4 * [8] + 8 * [16]


def test_a_request_waits_for_company_but_not_for_long():
    async def main():
        async with Batcher(squares, max_batch=8, max_wait=0.1) as batcher:
            first = asyncio.create_task(batcher.submit([1]))
            await asyncio.sleep(0.01)
            assert await asyncio.gather(first, batcher.submit([2])) == [[1], [4]]
            assert batcher.batches == {2: 1}
            assert await batcher.submit([3]) == [9]  # alone, and nobody comes

    run(main())


def test_a_full_queue_refuses_at_once_and_what_was_accepted_is_answered():
    gate = Gate()

    async def main():
        async with Batcher(gate, max_batch=1, max_wait=0, max_queue=2) as batcher:
            running = asyncio.create_task(batcher.submit([1]))
            await until(gate.begun.is_set)
            waiting = [asyncio.create_task(batcher.submit([x])) for x in (2, 3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="full") as refused:
                await batcher.submit([4])
            assert refused.value.retry_after > 0
            gate.open.set()
            assert await asyncio.gather(running, *waiting) == [[1], [4], [9]]
            assert batcher.outcomes["refused"] == 1
            assert balance(batcher) == 0

    run(main())
    assert gate.seen == [[1], [2], [3]]


def test_all_items_of_a_request_are_accepted_or_none():
    gate = Gate()

    async def main():
        async with Batcher(gate, max_batch=1, max_wait=0, max_queue=2) as batcher:
            running = asyncio.create_task(batcher.submit([1]))
            await until(gate.begun.is_set)
            waiting = asyncio.create_task(batcher.submit([2]))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await batcher.submit([3, 4])
            assert len(batcher) == 1
            with pytest.raises(ValueError, match="1 to 2"):
                await batcher.submit([1, 2, 3])
            with pytest.raises(ValueError, match="0 items"):
                await batcher.submit([])
            gate.open.set()
            await asyncio.gather(running, waiting)

    run(main())


def test_one_bad_item_does_not_spoil_its_neighbours():
    def inverse(items):
        return [1 / x for x in items]

    async def main():
        async with Batcher(inverse, max_batch=4, max_wait=0.1) as batcher:
            asked = [batcher.submit([x]) for x in (1, 0, 2, 4)]
            got = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(got.pop(1), ZeroDivisionError)
            assert got == [[1], [0.5], [0.25]]
            assert await batcher.submit([5]) == [0.2]
            assert batcher.outcomes["failed"] == 1
            assert balance(batcher) == 0

    run(main())


def test_a_result_that_is_an_error_is_raised_for_its_item_alone():
    async def main():
        work = lambda items: [KeyError(x) if x < 0 else x for x in items]  # noqa: E731
        async with Batcher(work, max_wait=0.1) as batcher:
            got = await asyncio.gather(
                batcher.submit([-1]), batcher.submit([1]), return_exceptions=True
            )
            assert isinstance(got[0], KeyError)
            assert got[1] == [1]

    run(main())


def test_too_few_results_are_an_error_not_a_lost_request():
    async def main():
        async with Batcher(lambda items: []) as batcher:
            with pytest.raises(RuntimeError, match="0 results of 1 items"):
                await batcher.submit([1])

    run(main())


def test_whoever_waits_no_longer_is_not_worked_for():
    gate = Gate()

    async def main():
        async with Batcher(gate, max_batch=1, max_wait=0, timeout=0.1) as batcher:
            running = asyncio.create_task(batcher.submit([1]))
            await until(gate.begun.is_set)
            leaving = asyncio.create_task(batcher.submit([2]))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            for request in (running, batcher.submit([3])):
                with pytest.raises(TimeoutError):
                    await request
            assert len(batcher) == 0
            gate.open.set()
            assert await batcher.submit([4]) == [16]
            assert batcher.outcomes["timed out"] == 2
            assert batcher.outcomes["cancelled"] == 1
            assert balance(batcher) == 0

    run(main())
    assert gate.seen == [[1], [4]]


def test_closing_finishes_what_was_accepted_and_refuses_what_comes_later():
    gate = Gate()

    async def main():
        async with Batcher(gate, max_batch=2, max_wait=60) as batcher:
            asked = [asyncio.create_task(batcher.submit([x])) for x in range(5)]
            await until(gate.begun.is_set)
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="closed"):
                await batcher.submit([9])
            gate.open.set()
            await closing
            assert await asyncio.gather(*asked) == [[0], [1], [4], [9], [16]]
            assert balance(batcher) == 0

    run(main())


def test_closing_with_a_limit_refuses_what_cannot_be_finished():
    gate = Gate()

    async def main():
        batcher = Batcher(gate, max_batch=1, max_wait=0)
        async with batcher:
            asked = [asyncio.create_task(batcher.submit([x])) for x in range(3)]
            await until(gate.begun.is_set)
            closing = asyncio.create_task(batcher.close(grace=0.02))
            await asyncio.sleep(0.05)
            gate.open.set()
            await closing
            got = await asyncio.gather(*asked, return_exceptions=True)
        assert got[0] == [0]
        assert [type(e) for e in got[1:]] == [Overloaded, Overloaded]
        assert balance(batcher) == 0

    run(main())


def test_a_storm_of_requests_loses_nothing():
    rng = np.random.default_rng(0)

    def work(items):
        time.sleep(0.001)
        return [ValueError("odd") if x % 7 == 0 else x for x in items]

    async def one(batcher, x):
        await asyncio.sleep(rng.uniform(0, 0.1))
        return await batcher.submit([x] * int(rng.integers(1, 4)))

    async def main():
        async with Batcher(work, max_batch=4, max_queue=10, timeout=0.02) as batcher:
            tasks = [asyncio.create_task(one(batcher, x)) for x in range(300)]
            await asyncio.sleep(0.05)
            for task in tasks[::10]:
                task.cancel()
            got = await asyncio.gather(*tasks, return_exceptions=True)
            assert len(got) == 300
            for x, result in enumerate(got):
                assert isinstance(result, BaseException) or set(result) == {x}
        assert balance(batcher) == 0
        assert batcher.outcomes["answered"] > 0

    run(main())


@pytest.mark.parametrize(
    "bad",
    [{"max_batch": 0}, {"max_queue": 0}, {"max_wait": -1}, {"max_wait": np.inf}, {"timeout": 0}],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        Batcher(squares, **bad)
