"""Consoles in the browser, mounted under `/console`: the pages, and the websocket that they and other clients open.

    GET /console/vnc_lite.html?path=console/<token>   a guest's screen, drawn by noVNC
    GET /console/serial.html?path=console/<token>     its first serial line
    GET /console/novnc/...                            noVNC's own files
    websocket /console/<token>                        the bytes themselves (meetings.py)

The pages are ours; noVNC is Debian's package, unpacked by the set-up below `STORE` (docs/decisions/0003-consoles.md). What may be asked
for is a list of names made when the first is asked for, so an address never becomes a path of the file system. The pages run no script
but ours and speak to no other host.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from starlette.responses import Response

from nacre.core.consoles import meetings
from nacre.core.errors import Error, NotFound, Unavailable
from nacre.core.http import PUBLIC, SIGNED, Call, Route, Service

STORE = Path("/opt/nacre")
PAGES = Path(__file__).parent / "pages"
_SHOWN = ("vnc_lite.html", "vnc.js", "serial.html", "serial.js", "console.css")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_CSP = "; ".join(("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'", "base-uri 'none'",
                  "form-action 'none'", "frame-ancestors 'self'"))  # fmt: skip
_HEADERS = {
    "content-security-policy": _CSP, "x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN", "cache-control": "no-cache",
    "referrer-policy": "no-referrer", "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip


def service(spend: meetings.Spend, store: Path = STORE) -> Service:
    """`spend(tx, token)` gives (server id, host, kind) of a token that counts, and it counts no more."""
    novnc = cache(partial(_novnc, store))
    return Service(
        name="console", type="", prefix="/console", rules={}, render_error=_render_error,
        routes=(
            Route("WEBSOCKET", "/{token}", partial(meetings.browser, spend), SIGNED),
            *(Route("GET", f"/{name}", partial(_page, PAGES / name), PUBLIC) for name in _SHOWN),
            Route("GET", "/novnc/{file*}", partial(_library, novnc), PUBLIC),
        ),
    )  # fmt: skip


def _page(file: Path, call: Call) -> Response:
    return _file(call, file)


def _library(novnc: Callable[[], Mapping[str, Path]], call: Call) -> Response:
    found = novnc()
    if call.path["file"] not in found:
        raise NotFound(f"noVNC has no file {call.path['file']}.")
    return _file(call, found[call.path["file"]])


def _novnc(store: Path) -> dict[str, Path]:
    """Its scripts by name, as `core/rfb.js`. Raises Unavailable while there are none, which is not remembered."""
    for complete in sorted(store.glob("novnc-*/complete"), key=lambda path: path.stat().st_mtime, reverse=True):
        folder = complete.parent
        return {str(file.relative_to(folder)): file for part in ("core", "vendor") for file in sorted((folder / part).rglob("*.js"))}
    raise Unavailable("noVNC is not set up on this machine: type  sudo ./nacre up  there.")


def _file(call: Call, file: Path) -> Response:
    content = file.read_bytes()
    headers = {**_HEADERS, "etag": f'"{hashlib.sha256(content).hexdigest()[:24]}"'}
    if headers["etag"] in call.headers.get("if-none-match", ""):
        return Response(b"", 304, headers)
    return Response(content, 200, headers, media_type=_TYPES[file.suffix])


def _render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {"error": {"code": error.code, "title": error.name, "message": error.message}}
