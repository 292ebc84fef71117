"""One request, from the socket to the verb and back.

A service is a table of `Route` rows. The kit matches the raw path segment by segment in a tree built once, picks the row by method,
microversion and (for `POST .../action`) the body's single key, authenticates, decodes the body for that version, calls the handler
and renders what it returned: a dict becomes JSON with the row's status, `Reply` says more, a Starlette response is passed through.
Handlers are plain functions; what a request needs (who asks, its body, the handler, its answer) is done in one go on one thread of a
bounded pool. Reads have a pool of their own, so that none waits behind changes, which wait for each other and for the disk; where the
database is in this process it is small, since more threads take the interpreter from each other at every row.
A handler that streams is `async` and gets the open request. Any `Error` is rendered by the service in its upstream format;
anything else is a 500 whose cause is only in the log.

Races: a handler that loses a unique or serialisation race is run again whole (`db.again`), so it keeps its effects in one transaction.
"""

import asyncio
import errno
import inspect
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from nacre.core import access, db, ids, log
from nacre.core.caller import FORBIDDEN, Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Error, MethodNotAllowed, NotFound, TooLarge, TooManyRequests, Unauthorized, Unavailable, UnsupportedMedia
from nacre.core.threads import Threads
from nacre.core.versions import ALWAYS, Body, Microversions, Version

PUBLIC = "public"
SIGNED = "signed"
MAX_BODY = 1 << 20
MAX_UNKNOWN = 112 << 10
"""The same where nobody has to be known, as oslo.middleware has it."""
_SHORT = 16 << 10
PATIENCE = 60.0
# A disk or a machine that has no more to give for the moment.
_PASSING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
T = TypeVar("T")
_log = logging.getLogger("nacre.http")


@dataclass
class Reply:
    """An answer that needs more than the row's status. `body` None sends no content."""

    body: Any = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Call:
    """What a handler gets. `path` holds the decoded `{names}`; `request` is the raw one for handlers that stream."""

    caller: Caller
    route: "Route"
    service: "Service"
    path: Mapping[str, str]
    query: QueryParams
    headers: Headers
    body: Any
    version: Version
    request: Request
    base: str

    @property
    def cloud(self) -> Cloud:
        return self.caller.cloud

    @property
    def url(self) -> str:
        """Absolute address of the service's root, without a trailing slash, as this client sees it."""
        return self.base + self.service.prefix

    @property
    def authority(self) -> str:
        """What the catalog's addresses begin with for this client: who came without TLS, on this machine, goes on so."""
        plain = self.cloud.config.nacre.http_port
        return self.base if plain and self.base in (f"http://127.0.0.1:{plain}", f"http://localhost:{plain}") else self.cloud.public_url

    @property
    def source(self) -> str:
        """The address that the request came from."""
        return self.request.client.host if self.request.client is not None else ""

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter. Raises BadRequest."""
        text = self.query.get(name)
        if text is None:
            return default
        if text.lower() in ("1", "true", "yes", "on", "t", "y", ""):
            return True
        if text.lower() in ("0", "false", "no", "off", "f", "n"):
            return False
        raise BadRequest(f"Invalid value '{text}' for query parameter {name}: a boolean is expected.")


Handler = Callable[..., Any] | Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One row (law 8). `rule`: a policy name, `public` (no token) or `signed` (the handler proves the caller by itself).
    `action`: key of the body for `POST .../action` rows. `since`/`until`: microversions.
    `stream`: the handler reads the body by itself."""

    method: str
    path: str
    handler: Handler
    rule: str
    body: Body | None = None
    status: int = 200
    action: str = ""
    since: Version = ALWAYS
    until: Version | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        if not self.rule:
            raise ValueError(f"route {self.method} {self.path} has no rule")

    @cached_property
    def streams(self) -> bool:
        """Whether the handler is `async`."""
        return inspect.iscoroutinefunction(self.handler)

    def serves(self, version: Version) -> bool:
        return self.since <= version and (self.until is None or version <= self.until)


@dataclass
class Service:
    """A mounted API. `aliases`: other names of a path's first segment, under which there are no microversions; `title`: name in the
    catalog; `endpoint`: what the catalog adds to the prefix; `rules` are policy
    defaults by upstream name; `render_error(error, request_id)` gives the body of a refusal; `forbidden` is its sentence of a 403;
    `strict`: a slash where an id should follow is another address (glance, nova), not the collection's (keystone)."""

    name: str
    type: str
    prefix: str
    routes: tuple[Route, ...]
    rules: Mapping[str, str]
    render_error: Callable[[Error, str], dict[str, Any]]
    microversions: Microversions | None = None
    request_id_header: str = "x-openstack-request-id"
    title: str = ""
    endpoint: str = ""
    forbidden: str = FORBIDDEN
    strict: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)


class _Node:
    __slots__ = ("children", "name", "parameter", "rows")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rows: list[tuple[Route, tuple[str, ...]]] = []


class Tree:
    """Routes of one service, matched by raw segments: literal before parameter; `{name*}` takes the rest of the path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self.root, []
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                node.parameter = node.parameter or _Node()
                node = node.parameter
            elif segment:
                node = node.children.setdefault(segment, _Node())
        node.rows.append((route, tuple(names)))

    def match(self, segments: list[str]) -> tuple[list[tuple[Route, tuple[str, ...]]], list[str]]:
        """Rows for the path (any method) and its parameters; no rows when nothing matches."""
        found = self._walk(self.root, segments, 0)
        return found if found is not None else ([], [])

    def _walk(self, node: _Node, segments: list[str], at: int) -> tuple[list[tuple[Route, tuple[str, ...]]], list[str]] | None:
        if at == len(segments) - 1 and not segments[at]:
            names_nothing = node.parameter is not None and bool(node.parameter.rows)  # a slash where an id should follow
            return (node.rows, []) if node.rows and not names_nothing else None
        if at == len(segments):
            return (node.rows, []) if node.rows else None
        child = node.children.get(segments[at])
        found = self._walk(child, segments, at + 1) if child is not None else None
        if found is None and node.parameter is not None:
            rest = [row for row in node.parameter.rows if row[1][-1].endswith("*")]
            if rest:
                return rest, ["/".join(segments[at:])]
            found = self._walk(node.parameter, segments, at + 1)
            if found is not None:
                found = (found[0], [segments[at], *found[1]])
        return found


class App:
    """The ASGI application: all services, each under its prefix."""

    def __init__(self, cloud: Cloud, services: Iterable[Service], root: Callable[[str], Any] | None = None) -> None:
        self.cloud, self.root = cloud, root
        self.mounts = {service.prefix.strip("/"): (service, Tree(service.routes)) for service in services}
        self.reads, self.changes = Threads(16, "read", 2 if cloud.db.sqlite else None), Threads(16, "change")
        self._policies_read = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(WebSocket(scope, receive, send))
        else:
            response = await self._answer(Request(scope, receive, send))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        started = time.monotonic()
        request_id = ids.request_id()
        log.request_id.set(request_id)
        raw = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("ascii", "replace").split("?")[0]
        segments = [unquote(part) for part in raw.strip("/").split("/")]
        mount = self.mounts.get(segments[0])
        if mount is None:
            if segments == [""] and self.root is not None:
                return Response(msgspec.json.encode(self.root(_base(request))), 300, media_type="application/json")
            return Response(b'{"error": {"code": 404, "title": "Not Found", "message": "No service here."}}', 404, media_type="application/json")
        service, tree = mount
        version, refused = ALWAYS, {}
        self._refresh_policies(started)
        try:
            alias = service.aliases.get(segments[1]) if len(segments) > 2 and segments[2] else None
            if alias is not None:
                segments[1] = alias
            if service.microversions is not None:
                version = service.microversions.asked(request.headers if alias is None else {})
            response = await self._route(request, service, tree, (segments[1:], version, request_id))
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:
            refused = {"refused": error.message[:300]} if isinstance(error, Error) else {}
            response = _failed(service, error, request_id, request)
        response.headers[service.request_id_header] = request_id
        response.headers["x-openstack-request-id"] = request_id
        if service.microversions is not None and version != ALWAYS:
            response.headers.update(service.microversions.headers(version))
        _log.info("%s %s %d", request.method, raw, response.status_code,
                  extra={"service": service.name, "ms": round((time.monotonic() - started) * 1000, 1), **refused})  # fmt: skip
        return response

    def _refresh_policies(self, now: float) -> None:
        if now - self._policies_read > 1:
            self._policies_read = now
            for policy in self.cloud.policies.values():
                policy.refresh()

    async def _route(self, request: Request, service: Service, tree: Tree, asked: tuple[list[str], Version, str]) -> Response:
        segments, version, request_id = asked
        named = [part for part in segments if part]
        rows, values = tree.match(named + [""] * (service.strict and len(named) > 1 and request.url.path.endswith("/")))
        if not rows:
            raise NotFound("The resource could not be found.")
        method = "GET" if request.method == "HEAD" and not any(r.method == "HEAD" for r, _ in rows) else request.method
        serving = [(r, names) for r, names in rows if r.method == method and r.serves(version)]
        if not serving:
            if any(route.method == method for route, _ in rows):
                raise NotFound("The resource could not be found.")
            raise MethodNotAllowed("The method is not allowed for this resource.")
        needed = any(route.rule not in (PUBLIC, SIGNED) for route, _ in serving)
        threads = self.reads if request.method in ("GET", "HEAD") else self.changes
        known = await _in(threads, lambda: self._caller(request, request_id, True)) if needed and _is_long(request) else None
        raw = b"" if serving[0][0].stream else await _read(request, MAX_BODY if needed else MAX_UNKNOWN)

        def work() -> Call | Response:
            caller = known or self._caller(request, request_id, needed)
            route, names = _by_action(serving, rows, raw) if serving[0][0].action else serving[0]
            caller.service, caller.rule, caller.forbidden = service.name, route.rule, service.forbidden
            if "application_credential" in caller.extra:
                access.permit(caller.extra["application_credential"], service.type, service.prefix, request.method, segments)
            body = route.body.decode(_wire(route, raw, request), version) if route.body is not None else None
            path = {name.rstrip("*"): value for name, value in zip(names, values, strict=True)}
            call = Call(caller, route, service, path, request.query_params, request.headers, body, version, request, _base(request))
            return call if route.streams else _answered(call, db.again(lambda: route.handler(call)))

        done = await _in(threads, work)
        return done if isinstance(done, Response) else _answered(done, await done.route.handler(done))

    def _caller(self, request: Request, request_id: str, needed: bool) -> Caller:
        token = request.headers.get("x-auth-token", "")
        if not token:
            if needed:
                raise Unauthorized
            return Caller(self.cloud, request_id)
        return self.cloud.authenticate(self.cloud, token, request_id) if needed else Caller(self.cloud, request_id, token=token)

    async def _websocket(self, socket: WebSocket) -> None:
        segments = [unquote(part) for part in socket.scope["path"].strip("/").split("/")]
        mount = self.mounts.get(segments[0])
        rows, values = mount[1].match(segments[1:]) if mount else ([], [])
        serving = [(r, names) for r, names in rows if r.method == "WEBSOCKET"]
        if not mount or not serving:
            await socket.close(4404)
            return
        route, names = serving[0]
        await route.handler(self.cloud, socket, dict(zip(names, values, strict=True)))


async def _in(threads: Threads, work: Callable[[], T]) -> T:
    """Raises Unavailable when it takes so long that only a database that hangs explains it."""
    future = threads.run(work)
    late = asyncio.get_running_loop().call_later(PATIENCE, _give_up, future)
    try:
        return await future
    finally:
        late.cancel()


def _give_up(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(Unavailable("The request was not done in time, try again later."))


def _answered(call: Call, result: Any) -> Response:
    if call.route.rule not in (PUBLIC, SIGNED) and call.route.rule not in call.caller.asked:
        raise RuntimeError(f"{call.route.method} {call.route.path} answered without asking its rule {call.route.rule}")
    return _render(result, call.route.status)


def _by_action(serving: list[tuple[Route, tuple[str, ...]]], rows: list[tuple[Route, tuple[str, ...]]], raw: bytes) -> tuple[Route, tuple[str, ...]]:
    """The row of the body's single key: 404 for an action that other microversions have, 400 for one that none has."""
    try:
        keys = list(json.loads(raw or b"null"))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest("Malformed request body") from error
    for row in serving:
        if keys == [row[0].action]:
            return row
    if any(keys == [row[0].action] for row in rows):
        raise NotFound("The resource could not be found.")
    raise BadRequest(f"There is no such action: {', '.join(map(str, keys)) or 'none given'}")


def _wire(route: Route, raw: bytes, request: Request) -> bytes:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip()
    if raw and not (kind.endswith(("json", "json-patch")) or kind in ("", "text/plain")):
        raise UnsupportedMedia(f"Unsupported Content-Type {kind}")
    return raw


def _is_long(request: Request) -> bool:
    """Whether the body may be more than one holds for a caller who is not known yet."""
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _SHORT


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge("Request body is too large.")
        parts.append(chunk)
    return b"".join(parts)


def _render(result: Any, status: int) -> Response:
    if isinstance(result, Response):
        return result
    if not isinstance(result, Reply):
        result = Reply(result)
    if result.body is None:
        return Response(b"", result.status or status, dict(result.headers))
    return Response(msgspec.json.encode(result.body), result.status or status, dict(result.headers), media_type="application/json")


def _failed(service: Service, error: Exception, request_id: str, request: Request) -> Response:
    headers = {}
    if not isinstance(error, Error):
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error, extra={"service": service.name})
        error = _unexpected(error, request_id)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = f'Keystone uri="{_base(request)}/identity"'
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(error.retry_after)
    return Response(msgspec.json.encode(service.render_error(error, request_id)), error.code, headers, media_type="application/json")


def _unexpected(error: Exception, request_id: str) -> Error:
    if isinstance(error, OSError) and error.errno in _PASSING:
        reason = f"The machine cannot do this at the moment ({os.strerror(error.errno)}), try again later."
        return Unavailable(reason, kind="ServiceUnavailable")
    return Error(f"Unexpected error, the log has its cause under request id {request_id}.")


def _base(request: Request) -> str:
    return f"{request.scope['scheme']}://{request.headers.get('host', '127.0.0.1')}"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
