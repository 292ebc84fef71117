"""What a connection with the api may not do for long, and what uvicorn does not see to.

No TLS session tickets are sent by any listener: they come after the handshake, together with the client's request, and a client that
reads in one thread and writes in another loses its request then (Python 3.11 takes no lock around OpenSSL), which looks like a server
that does not answer.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

PATIENCE = 30.0  # for the head of a request


class Websocket(WebSocketsSansIOProtocol):
    """A refusal with a body completes a handshake too; uvicorn 0.54 logs an error after it."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


class Requests(HttpToolsProtocol):
    """Closes a connection whose first request, or the head of any, is not there in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._expect()

    def on_headers_complete(self) -> None:
        self._expect_no_more()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_more()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._late = self.loop.call_later(PATIENCE, self.transport.close)

    def _expect_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
