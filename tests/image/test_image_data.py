"""Data on their way in: what is refused, what an interrupted upload leaves, what a kill leaves, and how much memory it takes."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import Running, make_cloud
from image.disks import qcow2, qed, vmdk
from nacre import image
from nacre.core import ids
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.image import loops, stores, tables
from nacre.image.service import data, images

WHO = System("req-test")


def new(http: Any, disk_format: str, container: str = "bare") -> str:
    answer = http.post("/image/v2/images", json={"name": "x", "disk_format": disk_format, "container_format": container})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize(("disk_format", "content", "said"), [
    ("qcow2", qcow2(backing="/etc/passwd"), "backing_file"),
    ("qcow2", qcow2(incompatible=4), "data_file"),
    ("qcow2", qcow2(incompatible=1 << 40), "unknown_features"),
    ("raw", qcow2(backing="/etc/passwd"), "backing_file"),
    ("vmdk", vmdk("/etc/passwd"), "safety"),
    ("qed", qed(), "banned"),
    ("qcow2", b"not a disk at all" * 10000, "does not match stream data raw"),
    ("vmdk", qcow2(), "does not match stream data qcow2"),
    ("qcow2", b"", "does not match"),
])  # fmt: skip
def test_hostile_and_mistaken_data_are_refused(running: Running, disk_format: str, content: bytes, said: str) -> None:
    with running.http("demo") as http:
        image_id = new(http, disk_format)
        answer = http.put(f"/image/v2/images/{image_id}/file", content=content, headers={"content-type": "application/octet-stream"})
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (415, True), answer.text
        assert http.get(f"/image/v2/images/{image_id}").json()["status"] == "queued"
    assert not list((running.cloud.home.reach / "images").glob(f"{image_id}*"))


@pytest.mark.parametrize(("disk_format", "container", "content", "virtual_size"), [
    ("qcow2", "bare", qcow2(5 << 30), 5 << 30), ("raw", "bare", b"z" * 5000, 5000), ("raw", "bare", qcow2(5 << 30, length=70000), 70000),
    ("ami", "bare", b"kernel", None), ("qcow2", "ovf", b"anything", None),
])  # fmt: skip
def test_honest_data_are_taken(running: Running, disk_format: str, container: str, content: bytes, virtual_size: int | None) -> None:
    with running.http("demo") as http:
        image_id = new(http, disk_format, container)
        assert http.put(f"/image/v2/images/{image_id}/file", content=content).status_code == 204
        shown = http.get(f"/image/v2/images/{image_id}").json()
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", len(content), virtual_size)


def test_a_client_that_goes_away_leaves_the_image_queued(running: Running) -> None:
    with running.http("demo") as http:
        image_id, token = new(http, "raw"), http.headers["x-auth-token"]
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            head = f"PUT /image/v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Type: application/octet-stream\r\n"
            raw.sendall(f"{head}Content-Length: 10000000\r\n\r\n".encode() + b"y" * 3_000_000)
            until(lambda: http.get(f"/image/v2/images/{image_id}").json()["status"] == "saving")
        until(lambda: http.get(f"/image/v2/images/{image_id}").json()["status"] == "queued")
    until(lambda: not list((running.cloud.home.reach / "images").glob(f"{image_id}*")))


def until(true: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_image_deleted_during_its_upload_stays_deleted(running: Running) -> None:
    with running.http("demo") as http:
        image_id = new(http, "raw")

        def body() -> Iterator[bytes]:
            yield b"a" * 100_000
            until(lambda: http.get(f"/image/v2/images/{image_id}").json()["status"] == "saving")
            assert http.delete(f"/image/v2/images/{image_id}").status_code == 204
            yield b"b"

        with running.http("demo") as other:
            answer = other.put(f"/image/v2/images/{image_id}/file", content=body(), headers={"content-type": "application/octet-stream"})
        assert answer.status_code == 410, answer.text
        assert http.get(f"/image/v2/images/{image_id}").status_code == 404
    assert not list((running.cloud.home.reach / "images").glob(f"{image_id}*"))


def opened(image_id: str) -> int:
    """How many files of the image this process, the api, has open."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(os.readlink(each))
    return sum(image_id in link for link in links)


def test_a_download_outlives_a_delete_and_a_client_that_leaves_leaves_nothing_open(running: Running) -> None:
    content = os.urandom(1 << 20) * 64  # more than is read ahead and what sockets hold
    with running.http("demo") as http:
        image_id = new(http, "raw")
        assert http.put(f"/image/v2/images/{image_id}/file", content=content).status_code == 204
        with running.http("demo") as leaving, leaving.stream("GET", f"/image/v2/images/{image_id}/file") as answer:
            next(answer.iter_raw())
            assert opened(image_id) == 1
        until(lambda: opened(image_id) == 0)
        with http.stream("GET", f"/image/v2/images/{image_id}/file") as answer:
            came = answer.iter_raw()
            first = next(came)
            with running.http("demo") as other:
                assert other.delete(f"/image/v2/images/{image_id}").status_code == 204
                assert other.get(f"/image/v2/images/{image_id}/file").status_code == 404
            assert not list((running.cloud.home.reach / "images").glob(f"{image_id}*"))
            assert first + b"".join(came) == content
        until(lambda: opened(image_id) == 0)


def test_two_uploads_of_one_image(running: Running) -> None:
    with running.http("demo") as http, running.http("demo") as other:
        image_id = new(http, "raw")

        def body() -> Iterator[bytes]:
            yield b"a" * 100_000
            until(lambda: http.get(f"/image/v2/images/{image_id}").json()["status"] == "saving")
            assert http.put(f"/image/v2/images/{image_id}/file", content=b"late").status_code == 409
            yield b"b"

        assert other.put(f"/image/v2/images/{image_id}/file", content=body(), headers={"content-type": "application/octet-stream"}).status_code == 204
        assert http.get(f"/image/v2/images/{image_id}").json()["size"] == 100_001


def test_large_data_take_no_memory(running: Running) -> None:
    """200 MB in and out, client and server in this process: what is resident grows by a few batches."""
    size, chunk = 200 << 20, os.urandom(1 << 18)
    peak, start, stop = [0], resident(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with running.http("demo") as http:
            image_id = new(http, "raw")
            stream = (chunk for _ in range(size // len(chunk)))
            answer = http.put(f"/image/v2/images/{image_id}/file", content=stream, headers={"content-type": "application/octet-stream"}, timeout=120)
            assert answer.status_code == 204
            with http.stream("GET", f"/image/v2/images/{image_id}/file") as got:
                assert sum(len(part) for part in got.iter_raw()) == size
            http.delete(f"/image/v2/images/{image_id}")
    finally:
        stop.set()
        watcher.join()
    assert peak[0] - start < 48 << 20, f"{(peak[0] - start) >> 20} MiB more"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = make_cloud(tmp_path / "cloud")
    yield made
    made.db.close()


def queued(cloud: Cloud) -> image.Image:
    image_id = ids.uuid()
    with cloud.db.write(WHO) as tx:
        images.insert(tx, image_id, {"name": "x", "owner": "p", "visibility": "private", "disk_format": "raw", "container_format": "bare"})
        found = image.by_id(tx, image_id)
    assert found is not None
    return found


def status(cloud: Cloud, image_id: str) -> str:
    with cloud.db.read() as conn:
        found = image.by_id(conn, image_id)
    return found.status if found else "gone"


def folder(cloud: Cloud) -> Path:
    store = stores.all_of(cloud)["file"]
    assert isinstance(store, stores.FileStore)
    return store.folder


def names(cloud: Cloud) -> set[str]:
    return {entry.name for entry in folder(cloud).iterdir() if entry.is_file()}


def age(cloud: Cloud) -> None:
    """Everything in the folder becomes older than the time a new part is given."""
    for entry in folder(cloud).iterdir():
        os.utime(entry, (1, 1))


UPLOADER = """
import sys, time
from conftest import TestHome
from pathlib import Path
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.config import Config
from nacre.core.bells import Bells
from nacre.core.db import Database
from nacre.image import by_id
from nacre.image.service import data
home = TestHome(Path(sys.argv[1]))
cloud = Cloud(home=home, config=Config(), bells=Bells(None), db=Database(home.database_url), policies={}, authenticate=None)
with cloud.db.read() as conn:
    image = by_id(conn, sys.argv[2])
arrival = data.begin(cloud, System("req-child"), image)
arrival.intake.write(b"half")
print("begun", flush=True)
time.sleep(60)
"""


def test_a_killed_uploader_is_noticed(cloud: Cloud) -> None:
    found = queued(cloud)
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", UPLOADER, str(cloud.home.path), found.id], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": f"{root}/src:{root}/tests"})  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        age(cloud)
        loops.reclaim_uploads(cloud, WHO)
        loops.tidy_files(cloud, WHO)
        assert (status(cloud, found.id), len(names(cloud))) == ("saving", 1), "it lives"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    loops.reclaim_uploads(cloud, WHO)
    loops.tidy_files(cloud, WHO)
    assert (status(cloud, found.id), names(cloud)) == ("queued", set())
    arrival = data.begin(cloud, WHO, found)
    arrival.intake.write(b"whole")
    data.end(arrival)
    assert status(cloud, found.id) == "active"


def test_files_that_no_row_vouches_for(cloud: Cloud) -> None:
    lost, gone, kept = queued(cloud), queued(cloud), queued(cloud)
    arrival = data.begin(cloud, WHO, kept)
    arrival.intake.write(b"kept")
    data.end(arrival)
    with cloud.db.write(WHO) as tx:
        tx.update(tables.images, {"id": gone.id}, status="deleted", deleted_at=tx.now)
    strange = ids.uuid()
    for name in (lost.id, gone.id, strange, "notes.txt", f"{lost.id}.part", f"{lost.id}.{ids.hex_id()}.part"):
        (folder(cloud) / name).write_bytes(b"x")
    age(cloud)
    loops.tidy_files(cloud, WHO)
    assert names(cloud) == {kept.id, strange, "notes.txt", f"{lost.id}.part"}


def test_register_is_idempotent_and_checks(cloud: Cloud, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(qcow2(3 << 20))
    bad.write_bytes(qcow2(backing="/etc/passwd"))
    with pytest.raises(Exception, match="backing_file"):
        image.register(cloud, WHO, name="guest", file=bad, project_id="p")
    for _ in range(2):
        image.register(cloud, WHO, name="guest", file=good, project_id="p")
    with cloud.db.read() as conn:
        (row,) = list(conn.execute(tables.images.select()))
    assert (row.status, row.visibility, row.virtual_size, row.size) == ("active", "public", 3 << 20, 1 << 16)
    assert names(cloud) == {row.id}


def test_a_full_disk_is_said_so(cloud: Cloud) -> None:
    import resource

    found = queued(cloud)
    arrival = data.begin(cloud, WHO, found)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(Exception, match="storage media is full") as raised:
            arrival.intake.write(b"x" * 10000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        arrival.intake.close()
    assert getattr(raised.value, "code", 0) == 413


@pytest.mark.parametrize(("asked", "size", "found"), [
    (None, 10, None), ("bytes=0-0", 10, (0, 0)), ("bytes=3-", 10, (3, 9)), ("bytes=-3", 10, (7, 9)), ("bytes=-30", 10, (0, 9)),
    ("bytes=5-50", 10, (5, 9)),
])  # fmt: skip
def test_spans(asked: str | None, size: int, found: tuple[int, int] | None) -> None:
    assert data.span(asked, size) == found


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=5-4", "bytes=-", "lines=1-2", "bytes=1-2,4-5", "bytes=-0"])
def test_spans_refused(asked: str) -> None:
    with pytest.raises(data.RangeNotSatisfiable):
        data.span(asked, 10)
