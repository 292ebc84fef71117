"""A console's two websockets, a browser's and a node's, brought together and piped.

The browser comes with a console's token. It is spent, and the guest's host called, in one transaction; the call carries a rendezvous
that nobody else knows. The node dials back with it (docs/node-contract.md), from then on bytes go both ways until one side ends, which
ends the other. Before that nothing is upgraded: whoever is refused gets an HTTP status and the reason. What waits and what is open is
bounded, per process and per guest, and each stage of the way has its time; a token refused for that is not spent.

Both handlers live in the event loop of one api process, which keeps the meetings in memory (`Cloud.memory`): a browser and the node of
its guest must reach the same process. Back-pressure is the sockets' own: a message is read after the one before was sent.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from nacre.core import db, ids, log, node_api, nodes, tasks
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.errors import Error, Forbidden, Unavailable

PATIENCE = 10.0
OPEN, OPEN_OF_A_GUEST = 100, 10
THREADS = 8
_CLOSING = 5.0
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_NOBODY = 4404
_log = logging.getLogger("nacre.console")
Spend = Callable[[db.Tx, str], tuple[str, str, str] | None]


@dataclass
class Meeting:
    """One browser's. `server_id` and `host` are known once its token is spent."""

    far: "asyncio.Future[WebSocket]"
    server_id: str = ""
    host: str = ""
    dialled: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


def _meetings(cloud: Cloud) -> dict[str, Meeting]:
    held: dict[str, Meeting] = cloud.memory.setdefault("consoles", {})
    return held


async def browser(spend: Spend, cloud: Cloud, socket: WebSocket, path: Mapping[str, str]) -> None:
    """The browser's side, or any other client's."""
    who, rendezvous = System(ids.request_id()), secrets.token_urlsafe(32)
    log.request_id.set(who.request_id)
    held = _meetings(cloud)
    meeting = Meeting(asyncio.get_running_loop().create_future())
    try:
        _own_page(cloud, socket)
        if len(held) >= OPEN:
            raise Unavailable(f"{OPEN} consoles are open already: close one.")
        held[rendezvous] = meeting
        call_id = await _in_thread(cloud, lambda: db.again(lambda: _begin(spend, cloud, who, path["token"], rendezvous)))
        far = await _arrives(cloud, call_id, meeting)
        await socket.accept("binary" if "binary" in socket.scope.get("subprotocols", ()) else None)
        _log.info("console of server %s opened", meeting.server_id)
        await _join(socket, far)
        _log.info("console of server %s closed", meeting.server_id)
    except Error as error:
        held.pop(rendezvous, None)  # first: who still waits for the database must not spend the token of one who was refused
        _log.info("console refused: %s", error.message)
        await socket.send_denial_response(Response(error.message + "\n", error.code, media_type="text/plain"))
    except WebSocketDisconnect:
        _log.info("console of server %s: the browser left before it was opened", meeting.server_id)
    finally:
        held.pop(rendezvous, None)
        meeting.over.set()


def _own_page(cloud: Cloud, socket: WebSocket) -> None:
    """A page of another origin may not open a console; who says no origin is no page. Raises Forbidden."""
    origin = socket.headers.get("origin")
    if origin is None:
        return
    ours, its = urlsplit(cloud.public_url), urlsplit(origin)
    try:
        known = its.scheme == ours.scheme and its.port == ours.port and (its.hostname == ours.hostname or its.hostname in _LOOPBACK)
    except ValueError:
        known = False
    if not known:
        raise Forbidden("Consoles are opened by pages of this cloud only.")


async def _in_thread(cloud: Cloud, work: Callable[[], str]) -> str:
    """What `work` gives. Raises Unavailable when it takes too long; it keeps its thread until it ends."""
    limiter = cloud.memory.get("console threads") or cloud.memory.setdefault("console threads", anyio.CapacityLimiter(THREADS))
    working = asyncio.create_task(anyio.to_thread.run_sync(work, limiter=limiter))
    done, _ = await asyncio.wait({working}, timeout=PATIENCE)
    if not done:
        working.add_done_callback(asyncio.Task.exception)  # nobody else looks at it
        _log.error("the database did not answer a console within %g s; %d of %d threads wait for it", PATIENCE, limiter.borrowed_tokens, THREADS)
        raise Unavailable("The database did not answer in time: try again.")
    return working.result()


def _begin(spend: Spend, cloud: Cloud, who: System, token: str, rendezvous: str) -> str:
    """The id of the call to the guest's host. Raises Forbidden, Unavailable; then nothing has changed."""
    held = _meetings(cloud)
    with cloud.db.write(who) as tx:
        if rendezvous not in held:
            raise Unavailable("Nobody waits for this console any more.")
        found = spend(tx, token)
        if found is None:
            raise Forbidden("This address of a console was used already, is over, or never was: ask for another one.")
        server_id, host, kind = found
        if sum(meeting.server_id == server_id for meeting in list(held.values())) >= OPEN_OF_A_GUEST:
            raise Unavailable(f"{OPEN_OF_A_GUEST} consoles of this server are open already: close one.")
        held[rendezvous].server_id, held[rendezvous].host = server_id, host
        return nodes.call(tx, host, nodes.NewCall("ensure_console", {"server_id": server_id, "kind": kind, "rendezvous": rendezvous}, PATIENCE))


async def _arrives(cloud: Cloud, call_id: str, meeting: Meeting) -> WebSocket:
    """The node's websocket. Raises Unavailable when the host refuses, or does not dial in time."""
    answer = asyncio.create_task(node_api.answer(cloud, call_id, meeting.host, PATIENCE))
    try:
        await asyncio.wait({answer, meeting.far}, return_when=asyncio.FIRST_COMPLETED)
        if not meeting.far.done():
            await answer
        return await asyncio.wait_for(meeting.far, 1)
    except (tasks.StepFailed, TimeoutError) as error:
        _log.warning("host %s opened no console of server %s: %s", meeting.host, meeting.server_id, error)
        raise Unavailable(f"The host of the server opened no console: {error}") from error
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def node(cloud: Cloud, host: str, rendezvous: str, socket: WebSocket) -> None:
    """The node's side; `host` is whose listener it came by."""
    meeting = _meetings(cloud).get(rendezvous)
    if meeting is None or meeting.host != host or meeting.dialled:
        await socket.close(_NOBODY)
        return
    meeting.dialled = True
    try:
        await socket.accept()
        if not meeting.far.done():
            meeting.far.set_result(socket)
            await meeting.over.wait()
    finally:
        await _close(socket)


async def _join(near: WebSocket, far: WebSocket) -> None:
    ways = {asyncio.create_task(_copy(near, far)), asyncio.create_task(_copy(far, near))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        await asyncio.gather(_close(near), _close(far))


async def _copy(source: WebSocket, sink: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # one of the two has gone
        while (message := await source.receive())["type"] == "websocket.receive":
            await sink.send_bytes(message.get("bytes") or (message.get("text") or "").encode())


async def _close(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        await asyncio.wait_for(socket.close(), _CLOSING)
