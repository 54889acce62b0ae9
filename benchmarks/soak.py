"""A server under more than it can do, for minutes, among clients that behave badly.

    python benchmarks/soak.py            # ten minutes; writes genlib/records/soak.json

Valid requests come at twice the server's throughput, which is measured first, and again in each
minute. Besides, for each image that the server can make, and five times a second at least, another
client comes: slow, half-sent, malformed, silent, deaf or soon gone. All on this machine. It fails
if an accepted request is lost, a valid one gets no answer, or a bad one keeps its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections import Counter
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from genlib import records
from genlib.serve.limits import IDLE, RECEIPT
from genlib.serve.load import PROMPT, Load, Server, offer, started

ARGUMENTS = ("--max-batch", "4", "--max-queue", "8", "--cache-bytes", "0", "--timeout", "10")
DEADLINE = 10.0  # s, the server's own, as the arguments say
ROUND = 60.0  # s of load after which the memory is looked at
PATIENCE = RECEIPT + IDLE + DEADLINE  # s; a bad client that is still connected then is stuck
HEAD = b"POST /generate HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n"
ANSWERS = {"200", "503", "504"}


def request(n: int = 1) -> bytes:
    """Returns a whole valid request."""
    body = json.dumps({"prompt": PROMPT, "n": n}).encode()
    return HEAD % len(body) + body


# What each kind of client sends, in parts, the seconds between them, and how it may end. A
# connection that is closed without an answer is "closed", one that the client itself left "left".
KINDS: dict[str, tuple[list[bytes], float, set[str]]] = {
    "slow": ([request()[i : i + 20] for i in range(0, len(request()), 20)], 0.3, ANSWERS),
    "dribbling": ([request()[i : i + 1] for i in range(60)], 0.5, {"408", "closed"}),
    "half a head": ([request()[:30]], 0.0, {"408"}),
    "half a body": ([request()[:-5]], 0.0, {"408"}),
    "silent": ([], 0.0, {"closed"}),
    "no HTTP": ([b"\x16\x03\x01\x02\x00\x01 hello\r\n\r\n"], 0.0, {"400"}),
    "no JSON": ([HEAD % 5 + b"[" * 5], 0.0, {"400"}),
    "too long": ([HEAD % 10**6 + b"x" * 10**5], 0.0, {"413"}),
    "soon gone": ([request()], 0.1, {"left"}),
    "deaf": ([request(4)], 15.0, {"left"}),
}
LEAVING = {"soon gone", "deaf"}  # these do not wait for an answer


async def bad_client(port: int, kind: str) -> str:
    """Behaves as its kind does, and returns how it ended; "stuck" is the server's fault."""
    parts, pause, _ = KINDS[kind]
    with contextlib.suppress(OSError), socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # so that deafness is noticed
        loop, answer = asyncio.get_running_loop(), b""
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(client, ("127.0.0.1", port))
                with contextlib.suppress(OSError):  # refused early: the answer is there to read
                    for part in parts:
                        await loop.sock_sendall(client, part)
                        await asyncio.sleep(pause)
                if kind in LEAVING:
                    return "left"
                with contextlib.suppress(OSError):
                    while more := await loop.sock_recv(client, 65_536):
                        answer += more
                        if kind == "slow" and b"\r\n" in answer:  # it would be kept open
                            break
        except TimeoutError:
            return "stuck"
        return answer[9:12].decode() or "closed"
    return "no connection"


class BadClients:
    """Bad clients of all kinds in turn, at a rate, in a thread, until `stop`."""

    def __init__(self, port: int, rate: float) -> None:
        self.ends: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self._port, self._rate, self._stopping = port, rate, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    async def _run(self) -> None:
        async def one(kind: str) -> None:
            self.ends[kind][await bad_client(self._port, kind)] += 1

        async with asyncio.TaskGroup() as group:
            for kind in itertools.cycle(KINDS):
                if self._stopping.is_set():
                    break
                group.create_task(one(kind))
                await asyncio.sleep(1 / self._rate)

    def stop(self) -> dict[str, dict[str, int]]:
        """Waits for those that are there, and returns how many of each kind ended in which way."""
        self._stopping.set()
        self._thread.join()
        return {kind: dict(sorted(ends.items())) for kind, ends in self.ends.items()}


def settled(url: str) -> dict[str, Any]:
    """Returns the server's counts of requests when it has nothing left to do."""
    for _ in range(300):
        time.sleep(0.1)
        counts = httpx.get(f"{url}/metrics", trust_env=False).json()
        requests: dict[str, Any] = counts["requests"]
        ended = sum(requests[n] for n in ("answered", "failed", "timed out", "cancelled"))
        requests["lost"] = requests["accepted"] - ended
        if not counts["waiting"] and not requests["lost"]:
            break
    return requests


def stopped(server: Server, port: int) -> float:
    """Ends a server that has half of a request, and returns how long that takes, s."""
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(request()[:-5])
        time.sleep(0.2)
        start = time.perf_counter()
        server.process.terminate()
        server.process.wait(timeout=60)
        return time.perf_counter() - start


def soak(seconds: float) -> dict[str, Any]:
    """Runs all of it, and returns what is recorded; times in seconds, memory in bytes."""
    with started(*ARGUMENTS, patience=900) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        first = offer(server.url, 30, min(10.0, seconds), timeout=60)
        throughput, before = first.throughput, server.memory
        clients = BadClients(port, rate=max(5.0, throughput))
        loads, memory, left = [], [before], seconds
        while left > 0.1:
            part = min(ROUND, left)
            loads.append(offer(server.url, 2 * throughput, part, seed=len(loads), timeout=60))
            throughput = max(throughput, loads[-1].throughput)  # others may use the machine, too
            memory.append(server.memory)
            left -= part
        bad = clients.stop()
        requests, log_bytes = settled(server.url), server.log_bytes
        stopping = stopped(server, port)
    status, latency = (
        np.concatenate([getattr(load, name) for load in loads]) for name in ("status", "latency")
    )
    rate = len(status) / seconds
    whole = Load(rate, seconds, np.concatenate([x.due for x in loads]), latency, status)
    return {
        "arguments": list(ARGUMENTS),
        "seconds": seconds,
        "throughput": throughput,
        "valid": {
            "rate": rate,
            "rounds": [load.rate for load in loads],
            "sent": len(status),
            "counts": {str(code): count for code, count in whole.counts.items()},
            "without answer": whole.lost,
            "late": int(((status == 200) & (latency > DEADLINE + 1)).sum()),
            "latency": {f"p{q}": whole.percentile(q) for q in (50, 95, 99)},
        },
        "bad": bad,
        "server": requests,
        "memory": {"before": before, "after": memory[-1], "most": max(memory), "rounds": memory},
        "log bytes": log_bytes,
        "stopped in": stopping,
    }


def faults(result: dict[str, Any]) -> list[str]:
    """Returns what went wrong, each in a sentence."""
    found = []
    valid, server, memory = result["valid"], result["server"], result["memory"]
    for name, count in (
        ("accepted requests are lost", server["lost"]),
        ("requests failed", server["failed"]),
        ("valid requests got no answer", valid["without answer"]),
        ("valid requests were answered late", valid["late"]),
        ("got another status", sum(n for c, n in valid["counts"].items() if c not in ANSWERS)),
    ):
        if count:
            found.append(f"{count} {name}.")
    for kind, ends in result["bad"].items():
        allowed = KINDS[kind][2] | {"503"}  # of a connection too many
        if unlike := {end: n for end, n in ends.items() if end not in allowed}:
            found.append(f"Clients of the kind {kind!r} ended in another way: {unlike}.")
    if memory["after"] > 1.2 * memory["before"]:
        found.append(f"The memory grew from {memory['before']} to {memory['after']} bytes.")
    if result["log bytes"] > 5_000 * (1 + result["seconds"] / 60):
        found.append(f"The log has {result['log bytes']} bytes.")
    if result["stopped in"] > RECEIPT + DEADLINE + 2:
        found.append(f"It took {result['stopped in']:.0f} s to stop.")
    return found


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 600.0,
    save: Annotated[bool, typer.Option(help="Write the record.")] = True,
) -> None:
    """Loads a server, prints what became of it, and writes the record."""
    result = soak(seconds)
    print(json.dumps(result, indent=1))
    if found := faults(result):
        raise SystemExit("\n".join(found))
    if save:
        records.save("soak", result)


if __name__ == "__main__":
    typer.run(main)
