"""What a node talks to: the transport of docs/node-contract.md, on a listener of its own.

One ASGI application a host; who the host is comes from the listener (its unix socket, later the certificate), never from the request.
The services behind it are named in `Behind`, which `program.py` fills: core knows no service. Feeds are held open without a thread
until the bell `node:<host>` rings or the wait is over; the database is asked again before every answer.
Heartbeats are collected and written once a second for all hosts together.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from nacre.core import db, ids, leases, nodes, tasks
from nacre.core.caller import System
from nacre.core.cloud import Cloud

_log = logging.getLogger("nacre.node_api")
Render = Callable[[sa.Connection, Sequence[str]], Mapping[str, Any]]
Permit = Callable[[db.Conn], None]
GRACE = 15.0


class Refused(Exception):
    """The machine may not have what it asks for; the message is the reason. `code` is for programs."""

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.answer = {"error": reason, **({"code": code} if code else {})}


async def _refuse(cloud: Cloud, host: str, image_id: str, chunks: AsyncIterator[bytes]) -> str | None:
    return "images are not taken here"


@dataclass
class Behind:
    """`render`: kind -> bodies of documents by id (an id that is gone is left out). `reported(tx, host, seen)` are told what a node
    saw, in the report's transaction. `image(cloud, host, id)` gives (size, chunks) or None; `store(cloud, host, id, chunks)` takes
    the bytes of an image that a call asked for and gives None, or why it does not; `metadata(cloud, conn, kind, id, address)` a
    guest's files or None; `password(tx, kind, id, address, password)` keeps what a guest leaves for its user
    and gives a status; `config_drive(cloud, conn, host, server id)` what is on a guest's config drive or None;
    `console(cloud, host, rendezvous, socket)` pairs a node's console stream with its browser."""

    render: Mapping[str, Render]
    reported: Sequence[Callable[[db.Tx, str, Mapping[str, Any]], None]] = ()
    image: Callable[[Cloud, str, str], tuple[int, AsyncIterator[bytes]] | None] = lambda cloud, host, image_id: None
    store: Callable[[Cloud, str, str, AsyncIterator[bytes]], Awaitable[str | None]] = _refuse
    metadata: Callable[[Cloud, sa.Connection, str, str, str], Mapping[str, Any] | None] = lambda cloud, conn, kind, scope_id, address: None
    password: Callable[[db.Tx, str, str, str, str], int] = lambda tx, kind, scope_id, address, password: 404
    config_drive: Callable[[Cloud, sa.Connection, str, str], Mapping[str, Any] | None] = lambda cloud, conn, host, server_id: None
    console: "Callable[[Cloud, str, str, WebSocket], Any] | None" = None


class Report(msgspec.Struct):
    protocol: int = 1
    epoch: int = 0
    number: int | None = None
    results: list[dict[str, Any]] = []
    applied: dict[str, dict[str, int]] = {}
    seen: dict[str, Any] | None = None


class Left(msgspec.Struct):
    password: str


class Feed(msgspec.Struct):
    protocol: int = 1
    epoch: int = 0
    have: dict[str, dict[str, int]] = {}
    calls: list[str] = []
    wait: float = 25.0


@dataclass
class Heartbeats:
    """Hosts heard of since the last write."""

    cloud: Cloud
    heard: set[str] = field(default_factory=set)

    async def forever(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.heard:
                heard, self.heard = self.heard, set()
                try:
                    await anyio.to_thread.run_sync(self._write, heard)
                except db.Unreachable:
                    pass
                except Exception:
                    _log.exception("heartbeats could not be written")

    def _write(self, heard: set[str]) -> None:
        with self.cloud.db.write(System(ids.request_id())) as tx:
            tx.lock(sa.select(nodes.hosts.c.name).where(nodes.hosts.c.name.in_(heard)).order_by(nodes.hosts.c.name), "change")
            nodes.heard_of(tx, heard)


class NodeApp:
    """The node API for one host. `permit` raises Refused when the host may not speak (any more): asked first, and again in what a
    request reads or writes."""

    def __init__(self, cloud: Cloud, host: str, behind: Behind, heartbeats: Heartbeats, permit: Permit = lambda conn: None) -> None:
        self.cloud, self.host, self.behind, self.heartbeats, self.permit = cloud, host, behind, heartbeats, permit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            token = scope["path"].rpartition("/")[2]
            if self.behind.console is not None and scope["path"].startswith("/node/v1/consoles/"):
                try:
                    await anyio.to_thread.run_sync(self._permitted)
                except Refused as error:
                    return await WebSocket(scope, receive, send).close(1008, str(error))
                await self.behind.console(self.cloud, self.host, token, WebSocket(scope, receive, send))
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            response = _json({"error": str(error)}, 400)
        except Refused as error:
            response = _json(error.answer, 403)
        except db.Unreachable as error:
            response = _json({"error": error.message}, 503)
        except asyncio.CancelledError:
            return  # this process ends; the node asks the next one
        except Exception:
            _log.exception("%s of %s failed", request.url.path, self.host)
            response = _json({"error": "the controller's log has the cause"}, 500)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        await anyio.to_thread.run_sync(self._permitted)
        parts = request.url.path.strip("/").split("/")
        match (request.method, parts):
            case ("POST", ["node", "v1", "feed"]):
                feed = msgspec.json.decode(await request.body(), type=Feed)
                gone = asyncio.ensure_future(request.receive())  # after the body only a disconnect can come
                try:
                    return _json(await self._feed(feed, gone))
                finally:
                    gone.cancel()
            case ("POST", ["node", "v1", "report"]):
                report = msgspec.json.decode(await request.body(), type=Report)
                return _json(await anyio.to_thread.run_sync(lambda: db.again(lambda: self._report(report))))
            case ("PUT", ["node", "v1", "images", image_id]):
                why = await self.behind.store(self.cloud, self.host, image_id, request.stream())
                return _json({} if why is None else {"error": why}, 200 if why is None else 409)
            case ("GET", ["node", "v1", "images", image_id]):
                found = await anyio.to_thread.run_sync(self.behind.image, self.cloud, self.host, image_id)
                return StreamingResponse(found[1], headers={"content-length": str(found[0])}) if found else _json({"error": "no such image"}, 404)
            case ("GET", ["node", "v1", "metadata"]):
                files = await anyio.to_thread.run_sync(self._metadata, dict(request.query_params))
                return _json(files) if files is not None else _json({"error": "no such guest"}, 404)
            case ("POST", ["node", "v1", "metadata"]):
                left = msgspec.json.decode(await request.body(), type=Left)
                status = await anyio.to_thread.run_sync(lambda: db.again(lambda: self._left(dict(request.query_params), left)))
                return _json({} if status == 200 else {"error": "not kept"}, status)
            case ("GET", ["node", "v1", "config_drives", server_id]):
                files = await anyio.to_thread.run_sync(self._config_drive, server_id)
                return _json(files) if files is not None else _json({"error": "no such config drive"}, 404)
        return _json({"error": "no such address"}, 404)

    def _permitted(self) -> None:
        with self.cloud.db.read() as conn:
            self.permit(conn)

    async def _feed(self, feed: Feed, gone: asyncio.Future[Any]) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + min(feed.wait, 60.0)
        self.heartbeats.heard.add(self.host)
        with self.cloud.bells.waiter(f"node:{self.host}") as rung:
            while True:
                rung.clear()
                answer = await anyio.to_thread.run_sync(self._difference, feed)
                left = deadline - asyncio.get_running_loop().time()
                news = answer["documents"] or answer["gone"] or answer["calls"] or answer["epoch"] != feed.epoch
                if news or left <= 0 or gone.done():
                    return answer
                ringing = asyncio.create_task(rung.wait())
                await asyncio.wait({ringing, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                ringing.cancel()

    def _difference(self, feed: Feed) -> dict[str, Any]:
        with self.cloud.db.read() as conn:
            self.permit(conn)
            wanted = nodes.held_by(conn, self.host)
            documents = []
            for kind, versions in wanted.items():
                had = feed.have.get(kind, {})
                stale = [document_id for document_id, version in versions.items() if had.get(document_id) != version]
                bodies = self.behind.render[kind](conn, stale) if stale else {}
                documents += [{"kind": kind, "id": i, "version": versions[i], "body": bodies[i]} for i in stale if i in bodies]
            gone = [[kind, i] for kind, had in feed.have.items() for i in had if i not in wanted.get(kind, {})]
            epoch, working = nodes.epoch(conn), set(feed.calls)
            asked = [row for row in nodes.open_calls(conn, self.host) if row.id not in working]
            instant = leases.now(conn) if asked else ("", 0.0)
            calls = [_call(row, epoch, instant) for row in asked]
        return {"epoch": epoch, "documents": documents, "gone": gone, "calls": calls}

    def _report(self, report: Report) -> dict[str, Any]:
        """What is seen and applied counts only in the order in which it was: a report that was on its way while a later one came is late."""
        who = System(ids.request_id())
        self.heartbeats.heard.add(self.host)
        with self.cloud.db.write(who) as tx:
            self.permit(tx)
            self._own(tx, [str(result["id"]) for result in report.results])
            nodes.register(tx, self.host)
            counted, number = nodes.count_report(tx, self.host, report.number, bool(report.applied) or report.seen is not None)
            for result in sorted(report.results, key=lambda result: str(result["id"])):
                told = (result.get("value"), str(result.get("error") or ""), str(result.get("detail") or ""))
                nodes.timed(tx, str(result["id"]), result.get("timing"))
                nodes.finish(tx, str(result["id"]), bool(result["ok"]), *told)
                tasks.wake(tx, f"call:{result['id']}")
            current = report.epoch in (0, nodes.epoch(tx))  # what was true of another epoch's documents says nothing of these
            if counted and report.seen is not None:
                _store_seen(tx, self.host, report.seen)
                for told_of in self.behind.reported:
                    told_of(tx, self.host, report.seen)
            if counted and current and report.applied:
                tasks.wake(tx, *nodes.mark_applied(tx, self.host, report.applied))
        return {"number": number, "counted": counted}

    def _metadata(self, asked: dict[str, str]) -> Mapping[str, Any] | None:
        with self.cloud.db.read() as conn:
            guest = self._served(conn, asked)
            return self.behind.metadata(self.cloud, conn, *guest) if guest is not None else None

    def _left(self, asked: dict[str, str], left: Left) -> int:
        with self.cloud.db.write(System(ids.request_id())) as tx:
            self.permit(tx)
            guest = self._served(tx, asked)
            return self.behind.password(tx, *guest, left.password) if guest is not None else 404

    def _served(self, conn: db.Conn, asked: dict[str, str]) -> tuple[str, str, str] | None:
        """(kind, id, address) of the guest that a question names, if this host serves where it asks."""
        kind = "network" if "network" in asked else "router"
        serving = nodes.holders_of(conn, "dhcp" if kind == "network" else kind, asked.get(kind, ""))
        return (kind, asked.get(kind, ""), asked.get("address", "")) if self.host in serving else None

    def _own(self, tx: db.Tx, call_ids: Sequence[str]) -> None:
        """Raises Refused when one of these calls was another host's; one that is not known any more is nobody's."""
        query = sa.select(nodes.calls.c.id, nodes.calls.c.host).where(nodes.calls.c.id.in_(call_ids), nodes.calls.c.host != self.host)
        foreign = tx.first(query) if call_ids else None
        if foreign is not None:
            raise Refused(f"call {foreign.id} was made to host {foreign.host}, not to {self.host}")

    def _config_drive(self, server_id: str) -> Mapping[str, Any] | None:
        with self.cloud.db.read() as conn:
            return self.behind.config_drive(self.cloud, conn, self.host, server_id)


def _store_seen(tx: db.Tx, host: str, seen: Mapping[str, Any]) -> None:
    """A part that is missing could not be seen; what was seen before stays."""
    row = nodes.host_named(tx, host)
    columns = {"resources": "seen", "agents": "agents", "address": "address", "trouble": "trouble"}
    values = {columns[part]: seen[part] for part in columns if part in seen}
    if row is not None and any(getattr(row, name) != value for name, value in values.items()):
        tx.update(nodes.hosts, {"name": host}, **values)


def _call(row: db.Row, epoch: int, instant: tuple[str, float]) -> dict[str, Any]:
    left = row.seconds if row.seconds is None or row.boot != instant[0] else row.until - instant[1]
    return {"id": row.id, "verb": row.verb, "args": row.args, "fence": [epoch, row.number], "deadline": left, "request_id": row.request_id}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def expire_calls(cloud: Cloud, who: System) -> None:
    """Loop: a call whose host did not answer in time, or has died, has failed, and so has what waits for a host that died; their tasks
    go on. A tombstone waits for ever."""
    c = nodes.calls.c
    with cloud.db.read() as conn:
        boot, instant = leases.now(conn)
        rows = list(conn.execute(sa.select(c.id, c.host, c.boot, c.until).where(c.state == "open", c.seconds.is_not(None))))
        waited_for = tasks.waited_for(conn)
        silent = {row.name for row in nodes.all_hosts(conn) if not nodes.alive(row)} if rows or waited_for else set()
    dead = _dead(cloud.memory.setdefault("silent hosts", {}), silent, time.monotonic())
    if any(row.boot != boot for row in rows):
        with cloud.db.write(who) as tx:
            again = {"boot": boot, "until": instant + c.seconds}
            tx.execute(nodes.calls.update().where(c.state == "open", c.seconds.is_not(None), c.boot != boot).values(**again))
    for row in rows:
        late = row.boot == boot and row.until < instant
        if late or row.host in dead:
            with cloud.db.write(who) as tx:
                nodes.finish(tx, row.id, False, None, f"host {row.host} {'did not answer in time' if late else 'is down'}", "")
                tasks.wake(tx, f"call:{row.id}")
    for host in dead & waited_for:
        with cloud.db.write(who) as tx:
            tasks.host_died(tx, host, f"host {host} is down")


def _dead(since: dict[str, float], silent: Collection[str], now: float) -> set[str]:
    """The hosts that were silent for `GRACE` while we looked: after a pause of our own every host is silent at first."""
    for host in since.keys() - set(silent):
        del since[host]
    return {host for host in silent if now - since.setdefault(host, now) >= GRACE}


async def ask(cloud: Cloud, who: db.Who, host: str, new: nodes.NewCall) -> Any:
    """The value of a call to a node while a client waits, at most `new.seconds`. Raises tasks.StepFailed."""

    def begin() -> str:
        with cloud.db.write(who) as tx:
            return nodes.call(tx, host, new)

    return await answer(cloud, await anyio.to_thread.run_sync(begin), host, new.seconds or 30.0)


async def answer(cloud: Cloud, call_id: str, host: str, seconds: float) -> Any:
    """The value of a call that was written, waited for at most `seconds`. Raises tasks.StepFailed."""

    def look() -> tuple[str, Any, str | None, str | None]:
        with cloud.db.read() as conn:
            return nodes.outcome(conn, call_id)

    deadline = asyncio.get_running_loop().time() + seconds
    with cloud.bells.waiter(f"call:{call_id}") as rung:
        while True:
            rung.clear()
            state, value, error, detail = await anyio.to_thread.run_sync(look)
            if state == "done":
                return value
            left = deadline - asyncio.get_running_loop().time()
            if state == "failed" or left <= 0:
                raise tasks.StepFailed(error or f"host {host} did not answer in time", detail or "")
            try:
                await asyncio.wait_for(rung.wait(), left)
            except TimeoutError:
                pass
