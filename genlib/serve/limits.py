"""Limits of what clients can do to the server: no connection lasts for ever, and not too many are.

uvicorn has a setting for idle connections and one for the end of a shutdown, but none for a request
that comes by halves or an answer that nobody reads; and it accepts connections until the process
has no descriptors left. Its setting `http` takes a class of our own, which adds these limits.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import time

import h11
import psutil
from uvicorn.protocols.http.h11_impl import H11Protocol

from genlib import ranges

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

RECEIPT = 5.0  # s in which a request must come, once it has begun
IDLE = 10.0  # s that a connection may be silent; longer than clients keep theirs (httpx: 5 s)
READING = 10.0  # s in which an answer must be read
KEPT = 24  # descriptors for files, pipes and the language's own needs


class Protocol(H11Protocol):
    """HTTP/1.1 by uvicorn, with a clock for each connection and refusals in JSON.

    Subclasses set the limits.

    Attributes:
        most: connections at once; one more is refused with 503.
        answer: from a whole request until its answer has been read, s.
    """

    most = 256
    answer = 40.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuses a connection too many, and starts the clock of any other."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._phase = ""
        self._clock = self.loop.call_later(IDLE, self._late)
        if len(self.connections) > self.most:
            self._refuse(503, f"There are {self.most} connections already. Try again in 1 s.", 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._clock.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Does as uvicorn does with what has come, then looks how far the request is."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Does as uvicorn does, with a new clock for what follows."""
        self._phase = ""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP."""
        text = "This is no request of HTTP/1.1, or its head is too long. Send POST /generate with "
        self._refuse(400, text + '{"prompt": "…"}.')

    def _watch(self) -> None:
        """Starts the clock anew when a connection gets from one phase into the next."""
        state, begun = self.conn.their_state, self.conn.trailing_data[0]
        if state is h11.IDLE and not begun:
            phase, seconds = "idle", IDLE
        elif state in (h11.IDLE, h11.SEND_BODY):
            phase, seconds = "receipt", RECEIPT
        else:
            phase, seconds = "answer", self.answer
        if phase != self._phase and not self.transport.is_closing():
            self._phase = phase
            self._clock.cancel()
            self._clock = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._phase == "receipt":
            text = f"The request did not come within {RECEIPT:g} s. Send all of it at once."
            self._refuse(408, text)
        else:
            self.transport.abort()  # what is not read yet would keep it open

    def _refuse(self, status: int, message: str, retry_after: int | None = None) -> None:
        """Answers, unless another answer has begun, and hangs up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": message}, ensure_ascii=False).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            headers += [("Connection", "close")]
            headers += [("Retry-After", str(retry_after))] if retry_after else []
            phrase = http.HTTPStatus(status).phrase
            head = h11.Response(status_code=status, headers=headers, reason=phrase)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True  # the application has nobody to answer
                self.cycle.message_event.set()
            self.transport.close()
        else:
            self.transport.abort()


def room(wanted: int) -> tuple[int, int]:
    """Returns how many connections, and how many at a time, the process has descriptors for.

    Those that are refused need one too, for a moment: as many as are accepted in four turns of the
    event loop.

    Args:
        wanted: connections.

    Raises:
        ValueError: if that is out of its range in `genlib.ranges`.
        OSError: if there is not even room for one.
    """
    ranges.check("max_connections", wanted)
    if resource is None:
        return wanted, 128
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return wanted, 128
    free = allowed - psutil.Process().num_fds() - KEPT
    if free < 5:
        raise OSError(
            f"This process may open {allowed} files, too few to serve. Allow more: ulimit -n 1024"
        )
    at_once = max(1, min(128, free // 8))
    return min(wanted, free - 4 * at_once), at_once


class FewRecords(logging.Filter):
    """Lets so many records of a minute pass, so that no client can fill a disk with the log.

    The first one of the next minute tells how many were left out.
    """

    def __init__(self, most: int = 20) -> None:
        super().__init__()
        self.most, self.count, self.since = most, 0, time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is written."""
        if time.monotonic() - self.since >= 60:
            if (left_out := self.count - self.most) > 0:
                record.msg = f"{record.getMessage()} ({left_out} records before it were left out)"
                record.args = ()
            self.count, self.since = 0, time.monotonic()
        self.count += 1
        return self.count <= self.most
