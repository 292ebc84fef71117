"""Listeners of the `nacre api` process: the public one with TLS on sockets made before privileges were dropped, and one unix socket a
node, whose name says which host speaks through it. The node sockets live in `<home>/run/node/`, readable by nobody but their owner.
Nodes that joined come with a certificate to a listener of their own, which puts the host that the certificate names into the scope.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

# Consoles send what is packed already, and compressing would buffer what is not read. A side that does not answer for 40 s is gone.
WEBSOCKETS: Mapping[str, Any] = {
    "ws": "websockets-sansio", "ws_max_size": 1 << 20, "ws_per_message_deflate": False, "ws_ping_interval": 20.0, "ws_ping_timeout": 20.0,
}  # fmt: skip
Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Joined:
    """The listener for nodes with certificates."""

    app: Any
    sockets: Sequence[socket.socket]
    context: ssl.SSLContext


class _Certified(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        held = transport.get_extra_info("peercert") or {}
        names = [value for kind, value in held.get("subjectAltName", ()) if kind == "DNS"]
        self.app_state = {"host": names[0] if len(names) == 1 else ""}
        super().connection_made(transport)


def serve(app: Any, sockets: Sequence[socket.socket], *, certificate: tuple[Path, Path] | None, nodes: Mapping[Path, Any],
          background: Sequence[Background] = (), joined: Joined | None = None) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT. `certificate`: (chain, key); `nodes`: socket path -> application."""
    tls = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])} if certificate else {}
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", loop="uvloop", http="httptools",
                            timeout_keep_alive=75, timeout_graceful_shutdown=5, **WEBSOCKETS, **tls)  # type: ignore[arg-type]  # fmt: skip
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    uvicorn_loop = asyncio.Runner(loop_factory=config.get_loop_factory())
    with uvicorn_loop as runner:
        runner.run(_main(uvicorn.Server(config), list(sockets), nodes, background, joined))


async def _main(server: uvicorn.Server, sockets: list[socket.socket], nodes: Mapping[Path, Any], background: Sequence[Background],
                joined: Joined | None) -> None:  # fmt: skip
    listeners = [await _listen(path, app) for path, app in nodes.items()]
    listeners += await _listen_for(joined) if joined else []
    jobs = [asyncio.create_task(job()) for job in background]
    try:
        await server.serve(sockets=sockets)
    finally:
        for job in jobs:
            job.cancel()
        for listener in listeners:
            listener.close()
        for path in nodes:
            path.unlink(missing_ok=True)


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_keep_alive=120,
                            **WEBSOCKETS)  # fmt: skip
    config.load()
    return config


async def _listen_for(joined: Joined) -> list[asyncio.AbstractServer]:
    config, state, loop = _config(joined.app), ServerState(), asyncio.get_running_loop()
    return [
        await loop.create_server(lambda: _Certified(config=config, server_state=state, app_state={}), sock=one, ssl=joined.context)
        for one in joined.sockets
    ]


async def _listen(path: Path, app: Any) -> asyncio.AbstractServer:
    config, state = _config(app), ServerState()
    path.unlink(missing_ok=True)
    mask = os.umask(0o077)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), path=str(path))
    finally:
        os.umask(mask)
