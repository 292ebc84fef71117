"""A Source that is a file: a node without a control plane.

`wanted.json` holds {"epoch", "documents", "calls", "images": {id: path}, "metadata": {address: answer}, "config_drives": {server id: files}}
and may be replaced at any time; what the node reports is kept beside it in `wanted.report.json` as {"results": {id: ...}, "applied",
"seen"}. A call with a result in there is not given again.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from nacre.node.calls import Call
from nacre.node.console import Far
from nacre.node.deadline import NodeError
from nacre.node.feed import Bytes, Feed, Index
from nacre.node.fences import write_file
from nacre.node.wires.driver import ControlPlaneDown, Document

_LOOK = 0.1


class _File(msgspec.Struct):
    epoch: int = 1
    documents: list[Document] = []
    calls: list[Call] = []
    images: dict[str, str] = {}
    metadata: dict[str, dict[str, Any]] = {}
    config_drives: dict[str, dict[str, Any]] = {}


class FileSource:
    """Wanted documents and calls of the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path, self.report_path = path, path.with_suffix(".report.json")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._reported: dict[str, Any] = {"results": {}, "applied": {}, "seen": {}}
        if self.report_path.exists():
            self._reported |= msgspec.json.decode(self.report_path.read_bytes())

    def feed(self, have: Index, *, epoch: int, calls: list[str], wait: float) -> Feed:
        end = time.monotonic() + wait
        while True:
            found = self._difference(have, set(calls))
            if found.documents or found.gone or found.calls or found.epoch != epoch or time.monotonic() >= end:
                return found
            if self._closed.wait(_LOOK):
                raise ControlPlaneDown("closed")

    def report(self, report: dict[str, Any]) -> bool:
        with self._lock:
            self._reported["results"] |= {result.id: msgspec.to_builtins(result) for result in report.get("results", ())}
            for kind, applied in report.get("applied", {}).items():
                self._reported["applied"].setdefault(kind, {}).update(applied)
            self._reported["seen"] = msgspec.to_builtins(report.get("seen", self._reported["seen"]))
            write_file(self.report_path, msgspec.json.encode(self._reported), sync=False)
        return True

    @contextlib.contextmanager
    def image(self, image_id: str) -> Iterator[Bytes]:
        path = self._read().images.get(image_id)
        if path is None:
            raise NodeError(f"image {image_id} is not available to this host")
        with open(path, "rb") as file:
            yield file

    def put_image(self, image_id: str, file: IO[bytes]) -> None:
        """Beside the file."""
        self.path.with_name(f"{image_id}.qcow2").write_bytes(file.read())

    def metadata(self, kind: str, owner: str, address: str) -> dict[str, Any] | None:
        return self._read().metadata.get(address)

    def keep_password(self, kind: str, owner: str, address: str, password: str) -> int:
        return 404

    def config_drive(self, server_id: str) -> dict[str, Any]:
        found = self._read().config_drives.get(server_id)
        if found is None:
            raise NodeError(f"there is no config drive for server {server_id}")
        return found

    def console(self, rendezvous: str) -> Far:
        raise NodeError("nobody waits for this console")

    def close(self) -> None:
        self._closed.set()

    def _read(self) -> _File:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError) as error:
            raise ControlPlaneDown(f"{self.path}: {error}") from error

    def _difference(self, have: Index, calls: set[str]) -> Feed:
        file = self._read()
        wanted = {(document.kind, document.id) for document in file.documents}
        with self._lock:
            calls |= set(self._reported["results"])
        return Feed(
            epoch=file.epoch,
            documents=[document for document in file.documents if have.get(document.kind, {}).get(document.id) != document.version],
            gone=[(kind, key) for kind, keys in have.items() for key in keys if (kind, key) not in wanted],
            calls=[call for call in file.calls if call.id not in calls],
        )
