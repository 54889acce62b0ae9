"""A small server: prompts come over HTTP, are worked on in batches, and go back as PNG.

    genlib serve
    curl -o sunset.png -d '{"prompt": "a beautiful sunset", "seed": 7}' 127.0.0.1:8000/generate

The HTTP is Starlette's and uvicorn's; the batches and the bounded queue are
`genlib.serve.batching`'s. A request's images depend on its prompt and seed, and not on who else is
in the batch: they are those of `genlib.generate`, but for the rounding of the last grey level.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import reprlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from genlib import origin, pipeline, ranges
from genlib.files import to_png
from genlib.models import sampling
from genlib.models.tokenizer import GRID
from genlib.pretrained import DEFAULT, load, load_tokenizer, method_options
from genlib.serve.batching import Batcher, Overloaded, round_up
from genlib.serve.cache import ExactCache
from genlib.serve.limits import IDLE, READING, RECEIPT, FewRecords, Protocol, room

BODY = 16_384  # bytes that a request may have
NOTES = "Genlib-Notes"  # a header: a list of texts
GONE = 499  # nobody reads it; nginx writes this number into its log
FEW = FewRecords()


@dataclass(frozen=True)
class Job:
    """What a request asks for."""

    prompt: str
    n: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Rendered:
    """One image of a job."""

    png: bytes
    description: str
    note: str = ""  # what was understood of the prompt, and what was not


class Renderer:
    """Draws images of several jobs in one batch, each as if it were alone.

    Args:
        method: one of `pipeline.METHODS` that draws latents from noise.
        describe: who completes the prompts, see `pipeline.generate`.
        **options: of the method, in place of its defaults.

    Raises:
        ValueError: if the method or an option is unknown, or its images cannot share a batch.
    """

    def __init__(
        self,
        method: str = DEFAULT,
        describe: pipeline.Writer = "student",
        **options: Any,
    ) -> None:
        self.options, self.describe = method_options(method, options), describe
        self.how = {"method": method, "describe": describe, "options": self.options, "best_of": 1}
        self.model = load(method)
        if self.model.kind != "latents":
            raise ValueError(
                f"{method!r} draws its random numbers by one seed for the whole batch, so requests "
                "cannot share one. Choose a flow."
            )

    def __call__(self, items: Sequence[tuple[Job, int]]) -> list[Rendered]:
        """Draws image `i` of each job."""
        jobs = dict.fromkeys(job for job, _ in items)
        written = {w: pipeline.complete(w.prompt, w.n, w.seed, self.describe) for w in jobs}
        shape = (GRID, GRID, self.model.config.channels)
        noises = {w: sampling.normals(w.n, shape, w.seed) for w in jobs}

        descriptions = [written[job][i] for job, i in items]
        said = tuple(d.text for d in descriptions)
        noise = np.stack([noises[job][i] for job, i in items])
        latents = self.model.sample(pipeline.encode(said), noise=noise, **self.options)
        images = load_tokenizer().decode(latents)
        return [
            Rendered(to_png(image, text=self._told(*item, d.text)), d.text, d.understood)
            for image, d, item in zip(images, descriptions, items, strict=True)
        ]

    def _told(self, job: Job, i: int, description: str) -> dict[str, str]:
        """Returns what image `i` of a job tells of itself, for `genlib show`."""
        record = {"prompt": job.prompt, "n": job.n, "seed": job.seed, **self.how}
        record |= {"file": f"{i:04d}.png"} if job.n > 1 else {}  # as `pipeline.save` calls it
        return origin.texts("generate", {**record, "description": description})


def app(
    method: str = DEFAULT,
    *,
    describe: pipeline.Writer = "student",
    max_batch: int = 16,
    max_wait: float = 0.005,
    max_queue: int = 64,
    timeout: float = 30.0,
    cache_bytes: int = 16 * 2**20,
    **options: Any,
) -> Starlette:
    """Makes the server's application.

    `POST /generate` takes `{"prompt": …, "n": 1, "seed": 0}` and gives a PNG, or, for more images
    or with `Accept: application/json`, JSON with base64, the descriptions, and notes of what was
    understood of the prompt, and of what was cut or dropped. A PNG has these notes in the header
    `Genlib-Notes`, as JSON in ASCII. Each PNG, in JSON too, tells how it was made: `genlib show`
    prints it. What is refused gets JSON with a sentence:
    400, 408 or 413 if the request cannot be understood, 503 with `Retry-After` if the queue is
    full, 504 if it took too long. `GET /health` is 200 when the models are warm, 503 before.
    `GET /metrics` counts.

    If the first images, which warm the models up, fail, the application keeps the error as
    `state.failure` and calls `state.stop()`: whoever runs it puts there what ends the server.

    Args:
        method: see `Renderer`.
        describe: see `Renderer`.
        max_batch: images at once.
        max_wait: for company, s.
        max_queue: images that wait, and the most of one request.
        timeout: of a request, s.
        cache_bytes: of PNG that are kept for the very same request; 0 keeps none.
        **options: of the method.

    Raises:
        ValueError: if a number is out of its range in `genlib.ranges`, or an argument is unknown.
    """
    limits = {"max_batch": max_batch, "max_wait": max_wait, "max_queue": max_queue}
    ranges.check_all(timeout=timeout, cache_bytes=cache_bytes, **limits)
    renderer = Renderer(method, describe, **options)
    store: ExactCache[Job, list[Rendered]] | None = None
    if cache_bytes:
        store = ExactCache(limit_bytes=cache_bytes, size=lambda made: sum(len(p.png) for p in made))
    batcher = Batcher(renderer, timeout=timeout, **limits)  # type: ignore[arg-type]
    ready, leaving = asyncio.Event(), asyncio.Event()

    def warm_up() -> None:
        for size in sorted({round_up(n, max_batch) for n in range(1, max_batch + 1)}):
            if leaving.is_set():
                break
            renderer([(Job("a sunset"), 0)] * size)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async def warm() -> None:
            try:
                await asyncio.to_thread(warm_up)
                ready.set()
            except Exception as error:
                application.state.failure = error
                application.state.stop()

        warming = asyncio.create_task(warm())  # meanwhile /health says that we live
        try:
            async with batcher:
                yield
        finally:
            leaving.set()
            await asyncio.wait({warming})

    async def generate(request: Request) -> Response:
        job = _read(await _body(request), max_queue)
        as_json = job.n > 1 or _prefers_json(request.headers.get("accept", "*/*"))
        if not ready.is_set():
            raise Overloaded("The models are being loaded. Try again in 1 s.", 1.0)
        made = store.find(job) if store is not None else None
        if made is None:
            made = await _unless_gone(request, batcher.submit([(job, i) for i in range(job.n)]))
            if store is not None:
                store.put(job, made)
        notes = list(dict.fromkeys(one.note for one in made if one.note))
        if not as_json:
            told = {NOTES: json.dumps(notes)} if notes else {}  # a header takes only ASCII
            return Response(made[0].png, headers=told, media_type="image/png")
        images = [base64.b64encode(one.png).decode() for one in made]
        descriptions = [one.description for one in made]
        found = {"images": images, "descriptions": descriptions, "notes": notes}
        return JSONResponse({**found, "seed": job.seed})

    async def health(_: Request) -> Response:
        warm, live = ready.is_set(), application.state.failure is None
        return JSONResponse({"live": live, "ready": warm}, 200 if warm else 503)

    async def metrics(_: Request) -> Response:
        found = {"hits": store.hits, "misses": store.misses} if store is not None else {}
        return JSONResponse({**batcher.stats(), "cache": found})

    application = Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={
            HTTPException: _refuse,
            _BadRequest: _refuse,
            Overloaded: _refuse,
            TimeoutError: _refuse,
            _Gone: _refuse,
            ClientDisconnect: _refuse,
            Exception: _refuse,
        },
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # a redirect would be an answer without a sentence
    application.state.failure, application.state.stop = None, lambda: None
    return application


class WarmUpError(ValueError):
    """The first images failed, so the server does not start."""


class _BadRequest(ValueError):  # noqa: N818
    """A request that cannot be understood; what the model itself raises is the server's fault."""


class _Gone(Exception):  # noqa: N818
    """Whoever asked has hung up."""


def _refuse(request: Request, error: Exception) -> Response:
    message, headers = str(error), {}
    if isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        asked = f"{request.method} {reprlib.repr(request.url.path)}"
        message = {
            404: f"There is no {asked}. Send POST /generate, GET /health or GET /metrics.",
            405: f"There is no {asked}. Send {headers.get('Allow', 'another method')} there.",
        }.get(status, error.detail)
    elif isinstance(error, Overloaded):
        status, headers = 503, {"Retry-After": str(math.ceil(error.retry_after))}
    elif isinstance(error, TimeoutError):
        status, message = 504, "It took too long. Try again later, or ask for fewer images."
    elif isinstance(error, (_Gone, ClientDisconnect)):
        status = GONE
    elif isinstance(error, _BadRequest):
        status = 400
    else:
        status, message = 500, "The server failed; its log says how."
    return JSONResponse({"error": message}, status, headers)


async def _body(request: Request) -> bytes:
    """Receives a request's body, if it is short enough and comes soon."""
    body = bytearray()
    try:
        async with asyncio.timeout(RECEIPT):
            async for part in request.stream():
                body += part
                if len(body) > BODY:
                    raise HTTPException(413, f"The body is too long. Send {BODY} bytes at most.")
    except TimeoutError:
        message = f"The body did not come within {RECEIPT:g} s. Send all of it at once."
        raise HTTPException(408, message, {"Connection": "close"}) from None
    return bytes(body)


def _prefers_json(accept: str) -> bool:
    """Returns whether a client would rather have JSON than a PNG, by its `Accept`.

    If it likes both alike, it gets what it names: `*/*` is a PNG, `application/json, */*` JSON.

    Reference: RFC 9110, section 12.5.1.
    """
    liked: dict[str, float] = {}
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        shares = [p[2:] for p in parameters if p.startswith("q=")]
        try:
            liked[kind] = float(shares[0]) if shares else 1.0
        except ValueError:
            liked[kind] = 0.0

    def share(kind: str) -> float:
        patterns = (kind, kind.partition("/")[0] + "/*", "*/*")  # the most exact one counts
        return next((liked[p] for p in patterns if p in liked), 0.0)

    json_share, png_share = share("application/json"), share("image/png")
    named = liked.get("application/json", 0.0) > 0
    return json_share > png_share or (named and json_share == png_share)


def _read(body: bytes, most: int) -> Job:
    """Checks a request before it is queued, so that no bad one spoils a batch."""
    try:
        sent = json.loads(body)
    except ValueError as error:
        raise _BadRequest(f'The body is not JSON ({error}). Send {{"prompt": "…"}}.') from None
    except RecursionError:
        raise _BadRequest('The body is nested too deeply. Send {"prompt": "…"}.') from None
    fields = {"prompt": str, "n": int, "seed": int}
    if not isinstance(sent, dict) or "prompt" not in sent or set(sent) - set(fields):
        got = reprlib.repr(sorted(sent)) if isinstance(sent, dict) else type(sent).__name__
        raise _BadRequest(f'Send {{"prompt": "…", "n": 1, "seed": 0}}; got {got}.')
    for name, value in sent.items():
        if type(value) is not fields[name]:  # True is no number here
            shown = reprlib.repr(value)  # short, however much was sent
            raise _BadRequest(f"{name} = {shown}; give a {fields[name].__name__}.")
    job = Job(**sent)
    try:
        pipeline.check(job.prompt, job.n, job.seed)
    except ValueError as error:
        raise _BadRequest(str(error)) from None
    if job.n > most:
        raise _BadRequest(f"n = {job.n}; give 1 to {most}.")
    return job


async def _unless_gone(request: Request, work: Any) -> Any:
    """Waits for the work, and cancels it if the client hangs up meanwhile."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise _Gone("The client has hung up.")
    finally:
        leaving.cancel()
        working.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def run(
    host: str = "127.0.0.1", port: int = 8000, *, max_connections: int = 256, **options: Any
) -> None:
    """Serves until it is interrupted; what was accepted is finished first.

    The first line that it prints is its address, so that `port=0`, any free one, can be used.
    A request must come within `limits.RECEIPT` seconds, and its answer be read within
    `limits.READING`; a connection may be idle for `limits.IDLE`. The log holds at most 20 records
    of a minute.

    Args:
        host: the address to listen at; this machine's own unless given.
        port: 0 takes a free one.
        max_connections: at once, or fewer where the process may not open so many files; one more
            is refused with 503.
        **options: see `app`.

    Raises:
        OSError: if the address cannot be had, or the process may open too few files.
        WarmUpError: if the first images fail.
        ValueError: see `app`.
    """
    ranges.check_all(port=port, max_connections=max_connections)
    application = app(**options)
    for name in ("asyncio", "uvicorn.error"):
        logging.getLogger(name).addFilter(FEW)
    with listen(host, port) as listening:
        at = f"[{host}]" if ":" in host else host
        print(f"http://{at}:{listening.getsockname()[1]}", flush=True)
        timeout = options.get("timeout", 30.0)
        connections, at_once = room(max_connections)
        limits = {"most": connections, "answer": timeout + READING}
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=type("Limited", (Protocol,), limits),
                ws="none",
                log_level="warning",
                access_log=False,
                backlog=at_once,
                timeout_keep_alive=math.ceil(IDLE),
                timeout_graceful_shutdown=math.ceil(RECEIPT + timeout) + 1,  # nothing takes longer
            )
        )
        application.state.stop = lambda: setattr(server, "should_exit", True)
        server.run(sockets=[listening])
    if (failure := application.state.failure) is not None:
        reason = " ".join([f"{type(failure).__name__}:", *str(failure).splitlines()[:1]])
        raise WarmUpError(
            f"The first images failed, so the server does not start: {reason}"
        ) from failure


class _Listening(socket.socket):
    """A socket whose queue is longer than what asyncio accepts at a time, which is one number."""

    def listen(self, backlog: int = 0, /) -> None:
        super().listen(128)


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket whose connections send at once.

    An answer goes out in two parts, head and body. By Nagle's algorithm the second one would wait
    until the first is acknowledged, which the other side puts off for 40 ms.

    Raises:
        OSError: if the port is taken, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), family=family)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    return _Listening(fileno=made.detach())
