"""Listeners of the `nacre api` process: the public one with TLS on sockets made before privileges were dropped, the same without TLS for
this machine alone if it is wanted, and one unix socket a node, whose name says which host speaks through it. The node sockets live in
`<home>/run/node/`, readable by nobody but their owner.
Nodes that joined come with a certificate to a listener of their own, which puts the host and the admission that it names into the scope.
Inside hosts the API listens, too, on sockets that root made (handover.py): a host that is started anew gets new ones, without a restart.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from nacre.core import handover, watchdog
from nacre.core.connections import Requests, Websocket

# Consoles send what is packed already, and compressing would buffer what is not read. A side that does not answer for 40 s is gone.
WEBSOCKETS: Mapping[str, Any] = {
    "ws": Websocket, "ws_max_size": 1 << 20, "ws_per_message_deflate": False, "ws_ping_interval": 20.0, "ws_ping_timeout": 20.0,
}  # fmt: skip
_log = logging.getLogger("nacre.serve")
Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Sockets:
    """Made while the process was root. `public` speak TLS, `plain` do not, `nodes` want a certificate."""

    public: Sequence[socket.socket]
    plain: Sequence[socket.socket] = ()
    nodes: Sequence[socket.socket] = ()


@dataclass(frozen=True)
class Joined:
    """The listener for nodes with certificates."""

    app: Any
    context: ssl.SSLContext


@dataclass(frozen=True)
class Inside:
    """Listeners inside hosts: those that run, as (role, host) -> socket, and the ear for those that come. Roles: `api`, `nodes`."""

    sockets: Mapping[tuple[str, str], socket.socket]
    ear: socket.socket


class _Certified(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        held = transport.get_extra_info("peercert") or {}
        names = [value for kind, value in held.get("subjectAltName", ()) if kind == "DNS"]
        admissions = [value for part in held.get("subject", ()) for kind, value in part if kind == "serialNumber"]
        self.app_state = {"host": names[0] if len(names) == 1 else "", "admission": admissions[0] if len(admissions) == 1 else ""}
        super().connection_made(transport)


@dataclass(frozen=True)
class Hosts:
    """How hosts reach us. `local`: socket path -> application."""

    local: Mapping[Path, Any]
    joined: Joined | None = None
    inside: Inside | None = None


class _Server(uvicorn.Server):
    """Looks at the clock once a second, for the header Date, instead of ten times; what ends it wakes it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.asked_to_end = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.asked_to_end.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.asked_to_end.wait(), 1)


def serve(app: Any, sockets: Sockets, *, certificate: tuple[Path, Path] | None, hosts: Hosts,
          background: Sequence[Background] = ()) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT. `certificate`: (chain, key)."""
    tls = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])} if certificate else {}
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", loop="uvloop", http=Requests,
                            timeout_keep_alive=75, timeout_graceful_shutdown=5, **WEBSOCKETS, **tls)  # type: ignore[arg-type]  # fmt: skip
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        config.ssl.num_tickets = 0  # core/connections.py
    uvicorn_loop = asyncio.Runner(loop_factory=config.get_loop_factory())
    with uvicorn_loop as runner, watchdog.watching(runner.get_loop()):
        runner.run(_main(config, sockets, hosts, background))


async def _main(config: uvicorn.Config, sockets: Sockets, hosts: Hosts, background: Sequence[Background]) -> None:
    server = _Server(config)
    listeners = [await _listen(path, app) for path, app in hosts.local.items()]
    ways: dict[str, Way] = {"api": partial(_listen_public, server, config.ssl)}
    listeners += [await _listen_public(server, None, one) for one in sockets.plain]
    if hosts.joined:
        ways["nodes"] = _way_for(hosts.joined)
        listeners += [await ways["nodes"](one) for one in sockets.nodes]
    jobs = [asyncio.create_task(job()) for job in background]
    held = _Held(ways)
    if hosts.inside:
        await held.begin(hosts.inside)
    try:
        await server.serve(sockets=list(sockets.public))
    finally:
        for job in jobs:
            job.cancel()
        for listener in (*listeners, *held.listeners.values()):
            listener.close()
        for path in hosts.local:
            path.unlink(missing_ok=True)


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_keep_alive=120,
                            **WEBSOCKETS)  # fmt: skip
    config.load()
    return config


Way = Callable[[socket.socket], Coroutine[Any, Any, asyncio.AbstractServer]]


class _Held:
    """One listener a role and host: a host that comes back is a new one, and the listener in the one before is closed."""

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self.ways = ways
        self.listeners: dict[tuple[str, str], asyncio.AbstractServer] = {}
        self.taking = asyncio.Lock()

    async def begin(self, inside: Inside) -> None:
        for (role, host), one in inside.sockets.items():
            await self.take(role, host, one)
        tasks = set[asyncio.Task[None]]()

        def heard() -> None:
            while came := handover.receive(inside.ear):
                task = asyncio.ensure_future(self.take(*came))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        asyncio.get_running_loop().add_reader(inside.ear, heard)

    async def take(self, role: str, host: str, one: socket.socket) -> None:
        if role not in self.ways:
            return one.close()
        async with self.taking:
            before = self.listeners.pop((role, host), None)
            if before:
                before.close()
            self.listeners[role, host] = await self.ways[role](one)
        _log.info("%s listens in %s", role, host)


async def _listen_public(server: uvicorn.Server, context: ssl.SSLContext | None, one: socket.socket) -> asyncio.AbstractServer:
    """One more socket for what the public listeners serve."""
    config = server.config
    make = partial(config.http_protocol_class, config=config, server_state=server.server_state, app_state={})  # type: ignore[call-arg]
    return await asyncio.get_running_loop().create_server(make, sock=one, ssl=context, backlog=config.backlog)


def _way_for(joined: Joined) -> Way:
    config, state = _config(joined.app), ServerState()

    async def listen(one: socket.socket) -> asyncio.AbstractServer:
        make = partial(_Certified, config=config, server_state=state, app_state={})
        return await asyncio.get_running_loop().create_server(make, sock=one, ssl=joined.context)

    return listen


async def _listen(path: Path, app: Any) -> asyncio.AbstractServer:
    config, state = _config(app), ServerState()
    path.unlink(missing_ok=True)
    mask = os.umask(0o077)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), path=str(path))
    finally:
        os.umask(mask)
