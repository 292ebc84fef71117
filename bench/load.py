"""The load: N connections, each with one request under way, for a time or a number of requests (a closed loop).

One process, one thread, one event loop in C with an HTTP parser in C: a request costs this side about 50 us, so that it measures the
server and not itself. With `fresh` each request has a connection of its own, whose making is part of its time.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools
import uvloop

PATIENCE = 60.0


class Unreachable(Exception):
    """Nobody answers at the address; the message says which and why."""


@dataclass(frozen=True)
class Request:
    """One request; `path` begins at the root. `expected`: the statuses that are no error."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    expected: tuple[int, ...] = (200,)


@dataclass(frozen=True)
class Order:
    """How to ask. `make(n)` gives the n-th request."""

    url: str
    make: Callable[[int], Request]
    connections: int = 1
    seconds: float = 5.0
    count: int | None = None
    fresh: bool = False
    trust: ssl.SSLContext | None = None


@dataclass
class Took:
    """What came of it: times of good answers in seconds, sorted; a sentence for each kind of error."""

    times: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    size: int = 0

    @property
    def per_second(self) -> float:
        return len(self.times) / self.seconds if self.seconds else 0.0

    def percentile(self, part: float) -> float:
        """In milliseconds."""
        return self.times[min(len(self.times) - 1, int(len(self.times) * part))] * 1000 if self.times else 0.0


def run(order: Order) -> Took:
    """Raises Unreachable when not even a connection can be made."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Loop(order).run())


class _Loop:
    def __init__(self, order: Order) -> None:
        self.order, self.took, self.sent = order, Took(), 0
        at = urlsplit(order.url)
        self.secure = at.scheme == "https"
        self.host, self.port = at.hostname or "", at.port or (443 if self.secure else 80)
        self.authority = at.netloc.rpartition("@")[2]
        self.end = float("inf")

    async def run(self) -> Took:
        begun = time.perf_counter()
        if self.order.count is None:
            self.end = begun + self.order.seconds
        await asyncio.gather(*(self._one() for _ in range(self.order.connections)))
        self.took.seconds = time.perf_counter() - begun
        self.took.times.sort()
        return self.took

    def _next(self) -> Request | None:
        if time.perf_counter() >= self.end or (self.order.count is not None and self.sent >= self.order.count):
            return None
        self.sent += 1
        return self.order.make(self.sent - 1)

    async def _one(self) -> None:
        connection = None
        while (request := self._next()) is not None:
            begun = time.perf_counter()
            try:
                if connection is None or connection.over:
                    connection = await self._connect()
                async with asyncio.timeout(PATIENCE):
                    status = await connection.ask(self._head(request) + request.body)
            except (OSError, TimeoutError, httptools.HttpParserError) as error:
                if isinstance(error, ConnectionRefusedError) and not self.took.times:
                    raise Unreachable(f"{self.authority} does not answer: {error.strerror}") from error
                self._failed(f"{type(error).__name__}: {error}")
                connection = None
                continue
            if status in request.expected:
                self.took.times.append(time.perf_counter() - begun)
                self.took.size = connection.size
            else:
                self._failed(f"{request.method} {request.path}: {status}")
            if self.order.fresh:
                connection.close()
        if connection is not None:
            connection.close()

    def _failed(self, why: str) -> None:
        self.took.errors[why] = self.took.errors.get(why, 0) + 1

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self.host, self.port, ssl=self.order.trust if self.secure else None)
        return connection

    def _head(self, request: Request) -> bytes:
        lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {self.authority}", *(f"{n}: {v}" for n, v in request.headers.items())]
        if request.body:
            lines.append(f"content-length: {len(request.body)}")
        if self.order.fresh:
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode()


class _Connection(asyncio.Protocol):
    """One connection; one question at a time."""

    over, size = False, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.parser = transport, httptools.HttpResponseParser(self)
        self.answered: asyncio.Future[int] | None = None

    def ask(self, question: bytes) -> "asyncio.Future[int]":
        self.size, self.answered = 0, asyncio.get_running_loop().create_future()
        self.transport.write(question)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.size += len(body)

    def on_message_complete(self) -> None:
        self.over = not self.parser.should_keep_alive()
        if self.answered and not self.answered.done():
            self.answered.set_result(self.parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        self.over = True
        if self.answered and not self.answered.done():
            self.answered.set_exception(error or ConnectionResetError("the server closed the connection"))

    def close(self) -> None:
        self.over = True
        self.transport.close()
