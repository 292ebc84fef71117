"""A control plane in memory that speaks the node contract over a real unix socket."""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Controller:
    def __init__(self) -> None:
        self.epoch = 1
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.times_answered: dict[str, int] = {}
        self.applied: dict[str, dict[str, int]] = {}
        self.seen: dict[str, Any] = {}
        self.powers: set[str] = set()
        self.images: dict[str, bytes] = {}
        self.taken: dict[str, bytes] = {}
        self.cut_off = 0  # so many of the next images end in the middle
        self.troubles = 0  # so many of the next requests about images find it in trouble
        self.feeds: list[dict[str, Any]] = []
        self.refuse_reports = False
        self.bell = threading.Condition()

    def want(self, kind: str, key: str, version: int, body: dict[str, Any]) -> None:
        with self.bell:
            self.documents[kind, key] = {"kind": kind, "id": key, "version": version, "body": body}
            self.bell.notify_all()

    def call(self, call_id: str, verb: str, args: dict[str, Any], *, fence: tuple[int, int] = (1, 1), deadline: float = 30) -> str:
        with self.bell:
            call = {"id": call_id, "verb": verb, "args": args, "fence": fence, "deadline": deadline, "request_id": f"req-{call_id}"}
            self.calls.append(call)
            self.bell.notify_all()
        return call_id

    def result(self, call_id: str, timeout: float = 5) -> dict[str, Any]:
        self.until(lambda: call_id in self.results, timeout)
        return self.results[call_id]

    def until(self, true: Any, timeout: float = 5) -> None:
        with self.bell:
            end = time.monotonic() + timeout
            while not true():
                assert time.monotonic() < end, "it did not happen in time"
                self.bell.wait(0.02)

    def feed(self, body: dict[str, Any]) -> dict[str, Any]:
        end = time.monotonic() + body["wait"]
        with self.bell:
            self.feeds.append(body)
            self.bell.notify_all()
            while True:
                answer = self._difference(body)
                if answer["documents"] or answer["gone"] or answer["calls"] or self.epoch != body["epoch"] or time.monotonic() >= end:
                    return answer
                self.bell.wait(max(0, end - time.monotonic()))

    def _difference(self, body: dict[str, Any]) -> dict[str, Any]:
        have = body["have"]
        return {
            "epoch": self.epoch,
            "documents": [d for (kind, key), d in self.documents.items() if have.get(kind, {}).get(key) != d["version"]],
            "gone": [[kind, key] for kind, keys in have.items() for key in keys if (kind, key) not in self.documents],
            "calls": [call for call in self.calls if call["id"] not in body["calls"] and call["id"] not in self.results],
        }

    def report(self, body: dict[str, Any]) -> bool:
        with self.bell:
            if self.refuse_reports:
                return False
            for result in body.get("results", ()):
                self.results[result["id"]] = result
                self.times_answered[result["id"]] = self.times_answered.get(result["id"], 0) + 1
            for kind, applied in body.get("applied", {}).items():
                self.applied.setdefault(kind, {}).update(applied)
            self.seen = body.get("seen", self.seen)
            self.powers |= {server["power"] for server in self.seen.get("servers", {}).values()} if "seen" in body else set()
            self.bell.notify_all()
            return True


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    controller: Controller


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["protocol"] == 1
        if self.path == "/node/v1/feed":
            self._answer(200, json.dumps(self.server.controller.feed(body)).encode())
        else:
            taken = self.server.controller.report(body)
            self._answer(200 if taken else 503, b"{}")

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/node/v1/images/"):
            found = self.server.controller.images.get(url.path.rpartition("/")[2])
            if self._in_trouble() or self._cut_off(found or b""):
                return
        else:
            query = parse_qs(url.query)
            found = json.dumps({"server_id": query["network"][0] + query["address"][0]}).encode() if "network" in query else None
        self._answer(404 if found is None else 200, found or b"none")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._in_trouble():
            self.server.controller.taken[self.path.rpartition("/")[2]] = content
            self._answer(200, b"{}")

    def _in_trouble(self) -> bool:
        controller = self.server.controller
        controller.troubles -= 1
        if controller.troubles >= 0:
            self._answer(503, b"later")
        return controller.troubles >= 0

    def _cut_off(self, content: bytes) -> bool:
        controller = self.server.controller
        controller.cut_off -= 1
        if controller.cut_off >= 0:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        return controller.cut_off >= 0

    def _answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "node"


@contextmanager
def serving(controller: Controller, path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)
    with _Server(str(path), _Handler) as server:
        server.controller = controller
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            path.unlink(missing_ok=True)
