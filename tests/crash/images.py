"""Images under way when a process is killed: as a client sees it that sends, imports, copies and deletes them, and begins again what was lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from crash.cloud import Cloud, Lost, Standing, until

DATA = bytes(range(256)) * 1024
NEW = {"disk_format": "raw", "container_format": "bare"}


@contextmanager
def served() -> Iterator[str]:
    """An address of DATA."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/disk"
    server.shutdown()
    server.server_close()


class Images:
    """Each operation is (prepare, act) as in `Operation`; `address` is where DATA can be fetched."""

    def __init__(self, cloud: Cloud, standing: Standing, name: str, address: str) -> None:
        self.cloud, self.name = cloud, name
        web = {"name": "web-download", "uri": address}
        region = {"name": "glance-download", "glance_region": "RegionOne", "glance_image_id": standing.order["imageRef"]}
        self.operations: dict[str, tuple[Callable[[], str], Callable[[str], bool | str]]] = {
            "upload": (self.queued, self.upload),
            "stage": (self.queued, self.stage),
            "import of what was staged": (self.staged, lambda it: self.bring(it, {"name": "glance-direct"}, DATA)),
            "import from the web": (self.queued, lambda it: self.bring(it, web, DATA)),
            "import of an image": (self.queued, lambda it: self.bring(it, region, standing.data)),
            "copy": (self.active, self.copy),
            "delete of a copy": (self.copied, self.delete_copy),
            "delete of an image": (self.copied, self.delete),
        }

    def show(self, image_id: str) -> Any:
        status, answer = self.cloud.get(f"/image/v2/images/{image_id}")
        return answer if status == 200 else None

    def is_whole(self, image_id: str, data: bytes, stores: str) -> bool:
        """Whoever is told that an image is active can read it."""
        shown = self.show(image_id)
        assert (shown["status"], shown["stores"], shown["size"]) == ("active", stores, len(data)), shown
        assert self.cloud.bytes_of(f"/image/v2/images/{image_id}/file") == data
        return True

    def queued(self) -> str:
        return str(self.cloud.do("POST", "/image/v2/images", {"name": self.name, **NEW})["id"])

    def active(self) -> str:
        made = self.queued()
        assert self.upload(made) is True
        return made

    def staged(self) -> str:
        made = self.queued()
        assert self.stage(made) is True
        return made

    def copied(self) -> str:
        made = self.active()
        assert self.copy(made) is True
        return made

    def _send(self, image_id: str, verb: str, after: str) -> None:
        """Sent until it is there: a client that has lost the answer looks what became of it, when nobody is at it any more."""
        while True:
            self.cloud.tend()
            try:
                status, answer = self.cloud.ask("PUT", f"/image/v2/images/{image_id}/{verb}", DATA)
                assert status == 204, answer
            except Lost:
                until(lambda: not self.cloud.rows("SELECT 1 FROM images WHERE upload IS NOT NULL"), "the end of the upload", self.cloud.tend)
            if self.show(image_id)["status"] == after:
                return

    def upload(self, image_id: str) -> bool | str:
        self._send(image_id, "file", "active")
        return self.is_whole(image_id, DATA, "file")

    def stage(self, image_id: str) -> bool | str:
        self._send(image_id, "stage", "uploading")
        return self.show(image_id)["size"] == len(DATA) or "it is not whole"

    def bring(self, image_id: str, method: dict[str, str], data: bytes) -> bool | str:
        def begun() -> bool:
            return bool(self.cloud.get(f"/image/v2/images/{image_id}/tasks")[1]["tasks"])

        self.cloud.do("POST", f"/image/v2/images/{image_id}/import", {"method": method}, begun)
        return self._task(image_id) or self.is_whole(image_id, data, "file")

    def _task(self, image_id: str) -> str:
        """Why the newest task of the image failed, when it is over."""

        def over() -> Any:
            (newest, *_) = self.cloud.get(f"/image/v2/images/{image_id}/tasks")[1]["tasks"]
            return newest["status"] in ("success", "failure") and newest

        task = until(over, "the end of the task", self.cloud.tend)
        assert task["status"] == "success" or task["message"], task
        return "" if task["status"] == "success" else str(task["message"])

    def copy(self, image_id: str) -> bool | str:
        def begun() -> bool:
            return bool(self.cloud.get(f"/image/v2/images/{image_id}/tasks")[1]["tasks"])

        self.cloud.do("POST", f"/image/v2/images/{image_id}/import", {"method": {"name": "copy-image"}, "stores": ["second"]}, begun)
        return self._task(image_id) or self.is_whole(image_id, DATA, "file,second")

    def delete_copy(self, image_id: str) -> bool | str:
        self.cloud.do("DELETE", f"/image/v2/stores/second/{image_id}", done=lambda: self.show(image_id)["stores"] == "file")
        return self.is_whole(image_id, DATA, "file")

    def delete(self, image_id: str) -> bool | str:
        self.cloud.do("DELETE", f"/image/v2/images/{image_id}", done=lambda: self.show(image_id) is None)
        return self.show(image_id) is None
