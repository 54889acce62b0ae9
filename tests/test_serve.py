"""The batcher loses nothing, the server answers everything, and neighbours do not matter."""

import asyncio
import base64
import contextlib
import http.client
import importlib.util
import io
import json
import logging
import re
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the server's packages: starlette, uvicorn, httpx")
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from genlib import __version__, cli, origin, pipeline
from genlib.models import sampling
from genlib.models.flow import Flow, FlowConfig
from genlib.models.image_gpt import ImageGPT
from genlib.models.tokenizer import Tokenizer, TokenizerConfig
from genlib.models.transformer import TransformerConfig
from genlib.pretrained import method_options
from genlib.ranges import RANGES
from genlib.serve import app as server
from genlib.serve import limits
from genlib.serve.batching import Batcher, Overloaded, round_up
from genlib.serve.load import alone, offer, serving

ROOT = Path(__file__).resolve().parents[1]


def squares(items):
    return [x * x for x in items]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 300))


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
        assert self.open.wait(200)
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
        async with Batcher(squares, max_batch=2, max_wait=60) as batcher:
            first = asyncio.create_task(batcher.submit([1]))
            await until(lambda: len(batcher) == 1)
            assert await asyncio.gather(first, batcher.submit([2])) == [[1], [4]]
            assert batcher.batches == {2: 1}
        async with Batcher(squares, max_batch=8, max_wait=0.1) as batcher:
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
            batcher.timeout = 600
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
        async with Batcher(work, max_batch=4, max_queue=10, timeout=0.2) as batcher:
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


OUT_OF_RANGE = [
    *[{"max_batch": wrong} for wrong in (0, 5000, 2.5, True, "four", None)],
    *[{"max_queue": wrong} for wrong in (0, 10**6, 1.5)],
    *[{"max_wait": wrong} for wrong in (-1, np.inf, np.nan, 600)],
    *[{"timeout": wrong} for wrong in (0, -1, 1e9, np.inf, np.nan)],
]


@pytest.mark.parametrize("bad", OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused(bad):
    [name] = bad
    with pytest.raises(ValueError, match=f"^{name} = .*; give a (whole )?number from "):
        Batcher(squares, **bad)


@pytest.mark.parametrize("bad", [*OUT_OF_RANGE, {"cache_bytes": np.nan}, {"cache_bytes": -1}])
def test_the_server_takes_what_the_table_has_and_refuses_before_it_loads_anything(bad, monkeypatch):
    """Alike by `app`, by `run` and on the command line, which has no table of its own."""
    monkeypatch.setattr(server, "load", pytest.fail)
    [(name, value)] = bad.items()
    told = re.escape(f"; give {RANGES[name]}.")
    for start in (server.app, server.run):
        with pytest.raises(ValueError, match=f"^{name} = .*{told}$"):
            start(**bad)
    asked = ["serve", "--port", "0", f"--{name.replace('_', '-')}", str(value)]
    shown = CliRunner().invoke(cli.app, asked)
    assert shown.exit_code
    assert shown.exit_code == 2 or re.search(told, str(shown.exception))  # 2: not even a number


@pytest.mark.parametrize("bad", [{"port": -1}, {"port": 65_536}, {"max_connections": 0.5}])
def test_what_the_server_alone_takes_is_in_the_table_too(bad, monkeypatch):
    monkeypatch.setattr(server, "load", pytest.fail)
    [name] = bad
    with pytest.raises(ValueError, match=re.escape(f"; give {RANGES[name]}.")):
        server.run(**bad)


# ---------------------------------------------------------------- over HTTP


@pytest.fixture
def small(monkeypatch):
    shape = TransformerConfig(1, 16, heads=2, kv_heads=2, hidden=16, modulated=True)
    model = Flow(FlowConfig(shape, channels=2, text_width=128))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    tokenizer = Tokenizer(TokenizerConfig(levels=(3, 3), width=8, pixel_width=4))
    loaded = pipeline.load
    for module in (pipeline, server):
        monkeypatch.setattr(module, "load", lambda m: model if m == "flow" else loaded(m))
        monkeypatch.setattr(module, "load_tokenizer", lambda: tokenizer)
    return model


@contextlib.asynccontextmanager
async def client(**options):
    application = server.app("flow", steps=2, **{"max_batch": 4, "cache_bytes": 0, **options})
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        while (await http.get("/health")).status_code != 200:
            await asyncio.sleep(0.01)
        yield http


def pixels(png):
    return np.array(Image.open(io.BytesIO(png))).astype(int)


def test_an_image_is_that_of_generate_alone_or_among_neighbours(small):
    prompts = [f"a {time} over the sea" for time in ("sunset", "dawn", "night")]
    asked = [{"prompt": p, "seed": s} for p in prompts for s in (0, 7)]

    async def main():
        async with client(max_wait=0.2) as http:
            alone = [await http.post("/generate", json=body) for body in asked]
            together = await asyncio.gather(*(http.post("/generate", json=b) for b in asked))
            batches = (await http.get("/metrics")).json()["batches"]
            return alone, together, batches

    alone, together, batches = run(main())
    assert sum(int(size) * count for size, count in batches.items()) == 12
    assert max(batches) > "1"
    for body, one, among in zip(asked, alone, together, strict=True):
        assert one.headers["content-type"] == among.headers["content-type"] == "image/png"
        own = pipeline.generate(body["prompt"], 1, seed=body["seed"], method="flow", steps=2)
        for answer in (one, among):
            assert pixels(answer.content).shape == (64, 64, 3)
            assert np.abs(pixels(answer.content) - own.images[0]).max() <= 1  # rounding
    assert any((pixels(a.content) != pixels(b.content)).any() for a, b in pairwise(alone))


def test_several_images_come_as_json_and_are_those_of_generate(small):
    async def main():
        async with client(max_batch=2) as http:
            return await http.post("/generate", json={"prompt": "下雪的湖边", "n": 3, "seed": 4})

    made = run(main()).json()
    own = pipeline.generate("下雪的湖边", 3, seed=4, method="flow", steps=2)
    assert made["descriptions"] == list(own.descriptions)
    assert made["notes"] == list(own.notes)
    assert made["seed"] == 4
    for png, image in zip(made["images"], own.images, strict=True):
        assert np.abs(pixels(base64.b64decode(png)) - image).max() <= 1


@pytest.mark.parametrize("n", [1, 2])
def test_every_image_tells_how_it_was_made_and_the_command_makes_it_again(small, n, tmp_path):
    """Prompt, seed, method and version, in any letters; alone as a PNG, or in JSON."""
    asked = {"prompt": "下雪的湖边, a lake\n", "n": n, "seed": 2**64 - 1}

    async def main():
        async with client() as http:
            return await http.post("/generate", json=asked)

    answer = run(main())
    assert (answer.headers["content-type"] == "image/png") == (n == 1)
    images = [base64.b64decode(i) for i in answer.json()["images"]] if n > 1 else [answer.content]
    assert len(images) == n
    for i, image in enumerate(images):
        (tmp_path / "x.png").write_bytes(image)
        told = origin.read(tmp_path / "x.png")
        assert {key: told[key] for key in asked} == asked
        assert (told["genlib"], told["method"], told["describe"]) == (
            __version__,
            "flow",
            "student",
        )
        assert told.get("file") == (f"{i:04d}.png" if n > 1 else None)
        assert told["options"] == method_options("flow", {"steps": 2})
        assert "--option steps=2" in origin.command(told, "again.png")
    described = pipeline.describe(asked["prompt"], n, asked["seed"])
    assert told["description"] == described[-1]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a lake", "Understood: "),
        ("a lake and a wörd9", "Unknown words: wörd9"),
        ("a lake " + "x" * 3000, "Only the first 2,000 characters were read"),
        ("龘龘 湖", "龘"),
    ],
)
def test_what_was_cut_or_dropped_is_told_beside_a_png_as_in_json(small, prompt, told):
    async def main():
        async with client(cache_bytes=10**6) as http:  # the second PNG comes from there
            sent = {"prompt": prompt}
            as_json = await http.post(
                "/generate", json=sent, headers={"Accept": "application/json"}
            )
            return as_json.json()["notes"], [await http.post("/generate", json=sent) for _ in "12"]

    notes, answers = run(main())
    assert told in " ".join(notes)
    for answer in answers:
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers[server.NOTES].isascii()
        assert json.loads(answer.headers[server.NOTES]) == notes


def test_without_a_note_there_is_no_header(small):
    async def main():
        async with client(describe="off") as http:
            return await http.post("/generate", json={"prompt": "a lake"})

    assert server.NOTES not in run(main()).headers


BAD = {
    b"": "not JSON",
    b"[1]": "got list",
    b"{}": "got []",
    b'{"prompt": "sea", "size": 3}': "size",
    b'{"prompt": 3}': "prompt = 3; give a str",
    b'{"prompt": " "}': "empty",
    b'{"prompt": "sea", "n": true}': "n = True; give a int",
    b'{"prompt": "sea", "n": 0}': "n = 0",
    b'{"prompt": "sea", "n": 65}': "n = 65; give 1 to 64",
    b'{"prompt": "sea", "seed": -1}': "seed = -1",
    b'{"prompt": "sea", "seed": 1.5}': "seed = 1.5",
    b'{"prompt": "sea", "seed": 18446744073709551616}': "seed = 18446744073709551616",
    b'{"prompt": "sea", "seed": ' + b"9" * 5000 + b"}": "not JSON",
    b'{"prompt": "\\ud83c"}': "not Unicode",
    b'{"prompt": "sea' + b"\xff" + b'"}': "not JSON",
    b"[" * 8000: "nested too deeply",
    b"[" * 8000 + b"]" * 8000: "nested too deeply",
    b'{"prompt": ' + b'{"a": ' * 2000 + b"1" + b"}" * 2001: "nested too deeply",
    b'{"prompt": ' + b"[" * 300 + b"]" * 300 + b"}": "give a str",
    b'{"prompt": [' + b"1," * 7000 + b"1]}": "give a str",
    b'{"' + b"a" * 15_000 + b'": 1}': "got [",
}


def test_what_cannot_be_understood_is_refused_with_a_sentence(small):
    async def main():
        async with client() as http:
            for body, message in BAD.items():
                answer = await http.post("/generate", content=body)
                assert answer.status_code == 400, body
                assert message in answer.json()["error"], body
                assert len(answer.json()["error"]) < 500
            counts = (await http.get("/metrics")).json()["requests"]
            assert set(counts.values()) == {0}  # none came as far as the queue

    run(main())


def test_every_refusal_is_json_with_a_sentence(small):
    large = b"{" + b" " * server.BODY + b"}"

    async def parts():
        for at in range(0, len(large), 1000):
            yield large[at : at + 1000]

    async def main():
        async with client() as http:
            return [
                (413, await http.post("/generate", content=large)),
                (413, await http.post("/generate", content=parts())),  # of a length not told
                (404, await http.post("/nowhere", content=large)),
                (404, await http.get("/nowhere")),
                (405, await http.get("/generate")),
                (405, await http.post("/health", content=large)),
            ]

    for status, answer in run(main()):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert " " in answer.json()["error"]
        assert answer.json()["error"].endswith(".")
        if status == 405:
            assert answer.headers["allow"].split(", ")[0] in answer.json()["error"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("application/json;q=0", "image/png"),
        ("application/json; q=0.0, */*", "image/png"),
        ("application/json, text/plain, */*", "application/json"),
        ("image/png, application/json;q=0.5", "image/png"),
        ("image/png;q=0.2, application/json;q=0.5", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("application/json;q=much", "image/png"),
        ("", "image/png"),
    ],
)
def test_one_image_comes_as_what_the_client_prefers(accept, kind):
    assert ("application/json" if server._prefers_json(accept) else "image/png") == kind


def test_a_client_that_refuses_json_gets_a_png(small):
    async def main():
        async with client() as http:
            headers = {"Accept": "application/json;q=0"}
            return await http.post("/generate", json={"prompt": "sea"}, headers=headers)

    assert run(main()).headers["content-type"] == "image/png"


def test_a_body_that_does_not_come_is_given_up(small, monkeypatch):
    monkeypatch.setattr(server, "RECEIPT", 0.05)

    async def slow():
        yield b'{"prompt"'
        await asyncio.sleep(5)

    async def main():
        async with client() as http:
            return await http.post("/generate", content=slow())

    answer = run(main())
    assert answer.status_code == 408
    assert "did not come within" in answer.json()["error"]


def test_a_server_whose_first_images_fail_does_not_start_and_says_why(small, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no memory for that\n  at line 3 of something")

    monkeypatch.setattr(small, "sample", fails)
    with pytest.raises(server.WarmUpError, match=r"RuntimeError: no memory for that$"):
        server.run(port=0, method="flow", max_batch=1, steps=2)

    async def main():
        application = server.app("flow", steps=2, max_batch=1)
        stopped = asyncio.Event()
        application.state.stop = stopped.set
        transport = httpx.ASGITransport(application)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        ):
            await stopped.wait()
            return await http.get("/health")

    health = run(main())
    assert (health.status_code, health.json()) == (503, {"live": False, "ready": False})


def test_a_full_queue_is_503_with_a_time_and_too_slow_is_504(small, monkeypatch):
    gate = threading.Event()
    gate.set()
    sample = small.sample

    def slow(*arguments, **options):
        assert gate.wait(200)
        return sample(*arguments, **options)

    monkeypatch.setattr(small, "sample", slow)
    made = []
    monkeypatch.setattr(server, "Batcher", lambda *a, **o: made.append(Batcher(*a, **o)) or made[0])

    async def main():
        async with client(max_batch=1, max_wait=0, max_queue=2, timeout=0.5) as http:
            gate.clear()
            asked = [http.post("/generate", json={"prompt": "sea", "seed": s}) for s in range(9)]
            got = await asyncio.gather(*asked)
            made[0].timeout = 600  # the next one is not about time
            gate.set()
            after = await http.post("/generate", json={"prompt": "sea"})
            return got, after, (await http.get("/metrics")).json()

    got, after, metrics = run(main())
    statuses = [answer.status_code for answer in got]
    assert sorted(set(statuses)) == [503, 504]
    for answer in got:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "full" in answer.json()["error"]
    assert after.status_code == 200
    assert metrics["requests"]["refused"] == statuses.count(503)
    assert metrics["requests"]["timed out"] == statuses.count(504)


def test_before_it_is_warm_it_lives_but_is_not_ready(small, monkeypatch):
    gate, sample = threading.Event(), small.sample

    def slow(*arguments, **options):
        assert gate.wait(200)
        return sample(*arguments, **options)

    monkeypatch.setattr(small, "sample", slow)

    async def main():
        application = server.app("flow", steps=2, max_batch=1)
        transport = httpx.ASGITransport(application)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        ):
            health = await http.get("/health")
            assert (health.status_code, health.json()) == (503, {"live": True, "ready": False})
            early = await http.post("/generate", json={"prompt": "sea"})
            assert (early.status_code, early.headers["retry-after"]) == (503, "1")
            gate.set()
            while (await http.get("/health")).status_code != 200:
                await asyncio.sleep(0.01)

    run(main())


def test_a_failure_of_the_model_is_500_and_the_next_request_is_served(small, monkeypatch):
    sample = small.sample

    def fails_for_seed_666(said, *, noise, **options):
        if any(np.array_equal(n, sampling.normals(1, n.shape, 666)[0]) for n in noise):
            raise ValueError("a secret of the model")
        return sample(said, noise=noise, **options)

    monkeypatch.setattr(small, "sample", fails_for_seed_666)

    async def main():
        async with client(max_wait=0.2) as http:
            asked = [{"prompt": "sea", "seed": s} for s in (1, 666, 2)]
            return await asyncio.gather(*(http.post("/generate", json=b) for b in asked))

    good, bad, also_good = run(main())
    assert good.status_code == also_good.status_code == 200
    assert bad.status_code == 500
    assert "secret" not in bad.text


def test_the_very_same_request_is_answered_from_the_cache(small):
    async def main():
        async with client(cache_bytes=10**6) as http:
            for seed in (1, 1, 2):
                answer = await http.post("/generate", json={"prompt": "sea", "seed": seed})
                yield answer.content
            metrics = (await http.get("/metrics")).json()
            assert metrics["cache"] == {"hits": 1, "misses": 2}
            assert metrics["requests"]["answered"] == 2

    async def all_of_it():
        return [content async for content in main()]

    first, again, other = run(all_of_it())
    assert first == again != other


def test_a_method_that_cannot_share_a_batch_or_an_unknown_option_is_refused(small, monkeypatch):
    with pytest.raises(ValueError, match="no option"):
        server.app("flow", speed=3)
    monkeypatch.setattr(small, "kind", ImageGPT.kind)
    with pytest.raises(ValueError, match="Choose a flow"):
        server.app("flow")


def test_connections_send_at_once():
    with (
        server.listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---------------------------------------------------------------- connections


@contextlib.contextmanager
def limited(**limits):
    """A server in this process with the limits of `genlib serve`, and an application that waits."""

    async def answer(request):
        body = await server._body(request)
        await asyncio.sleep(0.01)
        return Response(b"x" * int(body or 1))

    application = Starlette(
        routes=[Route("/generate", answer, methods=["POST"])],
        exception_handlers={server.HTTPException: server._refuse},
    )
    application.router.redirect_slashes = False
    http = type("Limited", (server.Protocol,), limits)
    config = uvicorn.Config(application, http=http, ws="none", log_level="error", backlog=8)
    running = uvicorn.Server(config)
    with server.listen("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield address
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def soon(monkeypatch):
    """Deadlines that a test can wait for."""
    for name, seconds in (("RECEIPT", 0.3), ("IDLE", 0.6)):
        monkeypatch.setattr(limits, name, seconds)


def talk(address, *parts, pause=0.0, patience=20.0):
    """Sends parts, and returns all that comes until the other side hangs up."""
    with socket.create_connection(address, timeout=patience) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        found = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(65_536):
                found += more
        return found


def refusal(answer):
    """Returns the status of an answer that is JSON with a sentence."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert json.loads(body)["error"].endswith(".")
    return int(head.split()[1])


def ask(connection):
    """Sends one request on a connection that stays open, and returns the status of its answer.

    The answer may come in any number of pieces: it is read to its end, so that nothing of it is
    left before the next one.
    """
    connection.sendall(WHOLE)
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status


WHOLE = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n10"
BYTES = [WHOLE[i : i + 1] for i in range(len(WHOLE))]


@pytest.mark.parametrize(
    ("parts", "pause"),
    [
        ([WHOLE[:30]], 0),
        ([WHOLE[:-1]], 0),
        (BYTES, 0.05),
        ([WHOLE[:-2], *[b""] * 20], 0.05),
        ([b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"], 0),
    ],
)
def test_a_request_that_comes_by_halves_gets_408_in_time(soon, parts, pause):
    with limited() as address:
        start = time.perf_counter()
        assert refusal(talk(address, *parts, pause=pause)) == 408
        assert time.perf_counter() - start < 5


def test_a_silent_connection_is_closed(soon):
    with limited() as address:
        assert talk(address) == b""


def test_a_connection_that_is_kept_gets_a_new_clock_for_each_request(monkeypatch):
    monkeypatch.setattr(limits, "RECEIPT", 1.5)
    monkeypatch.setattr(limits, "IDLE", 3.0)
    with limited() as address, socket.create_connection(address, timeout=20) as connection:
        for _ in range(8):  # together longer than any deadline
            assert ask(connection) == 200
            time.sleep(0.5)


def test_what_is_no_http_and_where_nothing_is_are_refused_with_a_sentence(soon):
    with limited() as address:
        for data, status in (
            (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, 400),
            (
                WHOLE[:-2].replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"zz\r\n",
                400,
            ),
            (WHOLE[:-2].replace(b"Length: 2", b"Length: 9000000") + b"x" * 10**6, 413),
            (b"POST /generate/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
            (b"BREW /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        ):
            assert refusal(talk(address, data)) == status, data[:60]


def test_one_connection_too_many_is_refused_and_the_others_are_served():
    with limited(most=3) as address, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(3)]
        for connection in kept:
            assert ask(connection) == 200
        for _ in range(50):
            answer = talk(address, WHOLE)
            assert refusal(answer) == 503
            assert b"Retry-After: 1" in answer
        assert ask(kept[0]) == 200
        kept[0].close()
        time.sleep(0.2)
        assert b"200 OK" in talk(address, WHOLE.replace(b"Host", b"Connection: close\r\nHost"))


@pytest.mark.parametrize("size", [b"60000", b"20000000"])  # less and more than is held for it
def test_an_answer_that_nobody_reads_is_given_up(soon, size):
    asked = WHOLE[:-2].replace(b"Length: 2", b"Length: %d" % len(size)) + size
    with limited(most=1, answer=0.5) as address, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(address)
        deaf.sendall(asked)
        for _ in range(100):
            time.sleep(0.1)
            if b"200 OK" in talk(address, WHOLE.replace(b"Host", b"Connection: close\r\nHost")):
                return
    pytest.fail("the connection is kept")


def test_a_server_ends_with_half_sent_requests_and_readers_that_do_not_read(soon):
    with limited(answer=1.0) as address, contextlib.ExitStack() as stack:
        for data in (WHOLE[:30], WHOLE[:-1], WHOLE.replace(b"h: 2", b"h: 8")[:-2] + b"20000000"):
            connection = stack.enter_context(socket.create_connection(address, 20))
            connection.sendall(data)
        time.sleep(0.1)
        start = time.perf_counter()
    assert time.perf_counter() - start < 10


def test_there_is_room_for_as_many_connections_as_the_process_may_open(monkeypatch):
    resource = pytest.importorskip("resource")
    opened = limits.psutil.Process().num_fds()
    for left, expected in ((2000, (256, 128)), (64, (256, 8)), (5, (256, 1))):
        allowed = (opened + limits.KEPT + left, -1)
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: allowed)
        connections, at_once = limits.room(256)
        assert (connections, at_once) == (min(expected[0], left - 4 * at_once), expected[1])
        assert connections + 4 * at_once <= left
    monkeypatch.setattr(resource, "getrlimit", lambda _: (opened, opened))
    with pytest.raises(OSError, match="ulimit -n 1024"):
        limits.room(256)
    with pytest.raises(ValueError, match="max_connections = 0"):
        limits.room(0)


def test_a_log_holds_few_records_of_a_minute_and_tells_how_many_it_left_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    few = limits.FewRecords(most=3)

    def record():
        return logging.LogRecord("x", logging.ERROR, "x", 1, "no %s", ("socket",), None)

    assert [few.filter(record()) for _ in range(10)] == [True] * 3 + [False] * 7
    now[0] = 61.0
    last = record()
    assert few.filter(last)
    assert last.getMessage() == "no socket (7 records before it were left out)"


def test_ten_seconds_among_bad_clients_lose_nothing():
    """The whole server, as `genlib serve` starts it, stopped with half a request at the end."""
    spec = importlib.util.spec_from_file_location("soak", ROOT / "benchmarks" / "soak.py")
    soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)
    result = soak.soak(10.0)
    assert soak.faults(result) == []
    assert result["valid"]["counts"]["200"] > 0
    assert result["server"]["accepted"] >= result["valid"]["counts"]["200"]
    assert all(result["bad"].values())  # each kind was there
    lost = {**result, "server": {**result["server"], "lost": 1}, "stopped in": 99.0}
    assert len(soak.faults(lost)) == 2


# ---------------------------------------------------------------- under load


@pytest.fixture
def echo():
    """A server in this process that answers every third request with a refusal."""
    count = iter(range(10**6))

    async def answer(request):
        await asyncio.sleep(0.01)
        return Response(status_code=503 if next(count) % 3 == 2 else 200)

    application = Starlette(routes=[Route("/generate", answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


def test_a_load_arrives_at_its_rate_and_every_request_is_accounted_for(echo):
    load = offer(echo, rate=100, seconds=1.5, seed=2)
    n = len(load.due)
    assert n == 150
    assert 0 <= load.due.min() <= load.due.max() < 1.5
    gaps = np.diff(load.due)
    assert 0.7 < gaps.std() / gaps.mean() < 1.3  # 1 for arrivals at random
    assert load.lost == 0
    assert load.counts == {200: n - n // 3, 503: n // 3}
    assert 0.01 <= load.percentile(50) <= load.percentile(99)
    assert load.goodput(within=60) == pytest.approx((n - n // 3) / 1.5)
    assert load.goodput(within=0.005) == 0
    few = [offer(echo, rate=0.1, seconds=0.2, seed=2).due for _ in range(2)]
    assert few[0].tolist() == few[1].tolist()
    assert len(few[0]) == 1


def test_a_request_alone_takes_what_the_server_takes_and_a_failure_is_raised(echo):
    assert (alone(echo, n=1, warmup=1) > 0.01).all()  # the first two are answered
    with pytest.raises(httpx.HTTPStatusError):
        alone(echo, n=3)


def test_a_server_that_is_not_there_loses_all(echo):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    load = offer(f"http://127.0.0.1:{port}", rate=50, seconds=0.2)
    assert load.lost == len(load.due) > 0
    assert np.isnan(load.percentile(50))
    assert load.throughput == 0


@pytest.mark.parametrize(
    ("url", "rate"), [("http://example.com", 1), ("http://127.0.0.1", 0), ("http://[::1]", 1e6)]
)
def test_a_load_is_bounded_and_stays_on_this_machine(url, rate):
    with pytest.raises(ValueError, match=r"loopback|at most"):
        offer(url, rate=rate, seconds=1)


def test_a_server_that_cannot_start_says_why():
    with (
        pytest.raises(RuntimeError, match="no-such"),
        serving("--method", "no-such", patience=60),
    ):
        pass
