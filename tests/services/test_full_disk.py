"""A disk that is full: the cloud's, with the database, images and logs on it, and a host's, with what its agent must not forget."""

import hashlib
import io
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from conftest import Running, started
from fake_node import FakeNode, until
from nacre.core import ids, log
from nacre.node.calls import Call, Calls, Pool, Verb, failure
from nacre.node.deadline import Deadline
from nacre.node.disks.config_drive import ConfigDrives
from nacre.node.disks.file import FileDisks
from nacre.node.disks.image_cache import ImageCache
from nacre.node.documents import Documents
from nacre.node.feed import Feed
from nacre.node.fences import Fences, Results
from nacre.node.hypervisor.driver import ImageSpec, ServerSpec
from nacre.node.wires.driver import Document
from small_disk import SmallDisk, mounted

pytestmark = pytest.mark.services
SAYS = "does not answer at the moment"
DATA = {"content-type": "application/octet-stream"}
COMPUTE = {"openstack-api-version": "compute 2.90"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with mounted(tmp_path_factory.mktemp("small"), 48) as small:
        yield small


@pytest.fixture(scope="module")
def cloud(disk: SmallDisk) -> Iterator[Running]:
    with started(disk.place / "cloud") as found:
        yield found


@pytest.fixture(scope="module")
def host(cloud: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    started = FakeNode(cloud.cloud, "nacre-1", tmp_path_factory.mktemp("node")).start()
    yield started
    started.stop()


@pytest.fixture
def full(disk: SmallDisk) -> Iterator[SmallDisk]:
    disk.fill()
    yield disk
    if disk.left() < 1 << 20:
        disk.free()


def image(http: httpx.Client, disk_format: str = "raw") -> str:
    answer = http.post("/image/v2/images", json={"name": "x", "disk_format": disk_format, "container_format": "bare"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def order(http: httpx.Client) -> dict[str, object]:
    """The body of a small server."""
    image_id = image(http)
    assert http.put(f"/image/v2/images/{image_id}/file", content=b"\0" * 4096, headers=DATA).status_code == 204
    flavor = http.post("/compute/v2.1/flavors", json={"flavor": {"name": ids.hex_id(), "ram": 64, "vcpus": 1, "disk": 1}}).json()["flavor"]
    return {"server": {"name": "one", "imageRef": image_id, "flavorRef": flavor["id"], "networks": "none"}}


@pytest.mark.parametrize("verb", ["file", "stage"])
def test_an_upload_that_does_not_fit_is_413_and_leaves_nothing(cloud: Running, disk: SmallDisk, verb: str) -> None:
    with cloud.http() as http:
        image_id, before = image(http), disk.left()
        answer = http.put(f"/image/v2/images/{image_id}/{verb}", content=b"\1" * (before + (8 << 20)), headers=DATA)
        assert answer.status_code == 413 and "Image storage media is full" in answer.text, answer.text
        until(lambda: http.get(f"/image/v2/images/{image_id}").json()["status"] == "queued", 30)
        assert not list((cloud.cloud.home.reach / "images").rglob(f"{image_id}*"))
        assert disk.left() > before - (4 << 20), "the bytes are given back"
        assert http.put(f"/image/v2/images/{image_id}/{verb}", content=b"\1" * 4096, headers=DATA).status_code == 204


CHANGES = {
    "/compute/v2.1/flavors": ({"flavor": {"name": "small", "ram": 64, "vcpus": 1, "disk": 1}}, "serviceUnavailable"),
    "/network/v2.0/networks": ({"network": {"name": "n"}}, "NeutronError"), "/image/v2/images": ({"name": "i"}, "error"),
    "/placement/resource_providers": ({"name": "r"}, "errors"),
}  # fmt: skip


def test_changes_are_refused_in_each_services_words_and_reads_go_on(cloud: Running, host: FakeNode, full: SmallDisk) -> None:
    with cloud.http(**COMPUTE) as http:
        acknowledged, refused = set[str](), set[str]()
        for number in range(60):  # what the database has laid by may last for some
            for path, (body, key) in CHANGES.items():
                answer = http.post(path, json=json.loads(json.dumps(body).replace('"name": "', f'"name": "{number}-{"x" * 150}-')))
                if answer.status_code == 503:
                    assert SAYS in answer.text and key in answer.json(), answer.text
                    refused.add(path)
                elif path.startswith("/network"):
                    acknowledged.add(answer.json()["network"]["id"])
                else:
                    assert answer.status_code in (200, 201), answer.text
            if refused == CHANGES.keys():
                break
        assert refused == CHANGES.keys()
        assert [http.get(path).status_code for path in CHANGES] == [200] * len(CHANGES) and cloud.token()
        full.free()
        assert http.post("/network/v2.0/networks", json={"network": {"name": "after"}}).status_code == 201
        assert acknowledged <= {entry["id"] for entry in http.get("/network/v2.0/networks").json()["networks"]}


def test_a_task_waits_for_room(cloud: Running, host: FakeNode, disk: SmallDisk) -> None:
    with cloud.http(**COMPUTE) as http:
        body, host.hypervisor.delay = order(http), 0.7
        try:
            asked = http.post("/compute/v2.1/servers", json=body)
            path = f"/compute/v2.1/servers/{asked.json()['server']['id']}"
            until(lambda: http.get(path).json()["server"]["OS-EXT-STS:task_state"] == "spawning")
            disk.fill()
            _use_up(http)
            time.sleep(2)
            assert http.get(path).json()["server"]["status"] == "BUILD"
        finally:
            disk.free()
            host.hypervisor.delay = 0
        until(lambda: http.get(path).json()["server"]["status"] != "BUILD", 30)
        found = http.get(path).json()["server"]
        assert (found["status"], found.get("fault")) == ("ACTIVE", None)


def _use_up(http: httpx.Client) -> None:
    """What the database has laid by, too."""
    until(lambda: http.post("/image/v2/images", json={"name": "x" * 200}).status_code == 503)


@pytest.mark.long
def test_a_database_that_somebody_else_locks(cloud: Running, host: FakeNode) -> None:
    """Reads go on; a change waits for some seconds, then is refused; what is under way goes on afterwards."""
    with cloud.http(**COMPUTE) as http:
        body = order(http)
        asked = http.post("/compute/v2.1/servers", json=body)
        other = sqlite3.connect(str(cloud.cloud.db.url.database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            begun = time.monotonic()
            answer = http.post("/network/v2.0/networks", json={"network": {"name": "n"}})
            assert answer.status_code == 503 and SAYS in answer.text and time.monotonic() - begun < 30, answer.text
            assert http.get("/network/v2.0/networks").status_code == 200
        finally:
            other.execute("ROLLBACK")
            other.close()
        path = f"/compute/v2.1/servers/{asked.json()['server']['id']}"
        until(lambda: http.get(path).json()["server"]["status"] == "ACTIVE", 30)


def test_a_host_without_room_does_what_makes_room(tmp_path: Path) -> None:
    """Calls go with their fence, their results and their documents are told, and none holds its resource up."""
    done = list[str]()

    def verb(call: Call, deadline: Deadline) -> dict[str, object]:
        if call.verb == "grow":
            more = tmp_path / "disk" / call.id
            try:
                more.write_bytes(bytes(2 << 20))
            finally:
                more.unlink()
        done.append(call.id)
        return {}

    with mounted(tmp_path, 8) as disk:
        folder = disk.place / "node"
        fences, results = Fences(folder / "fences"), Results(folder / "results")
        calls = Calls({"grow": Verb(verb, "server_id"), "absent_server": Verb(verb, "server_id")}, fences, results, Pool(2), lambda: None)
        disk.fill()
        asked = [Call(f"{name}-{n}", name, {"server_id": f"server-{n}"}, (1, n)) for n in range(8) for name in ("grow", "absent_server")]
        until(lambda: calls.accept(asked) and len(results.all()) == 16)
        assert {result.error for result in results.all() if result.id.startswith("grow")} == {"there is no room left on the host's disk"}
        assert all(result.ok for result in results.all() if result.id.startswith("absent"))
        assert len(done) == 8
        assert not Fences(folder / "fences").admit("server-7", (1, 6)), "the fences are on the disk"
        documents = Documents(folder / "documents")
        disk.free()
        documents.take({}, Feed(1, [Document("port", "p", 1, {})]))
        disk.fill()
        documents.take({"port": {"p": 1}}, Feed(1, [Document("port", str(n), 2, {"x": "y" * 9000}) for n in range(20)]))
        assert len(documents.index()["port"]) == 21


def test_a_host_whose_disk_is_full_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    """Whatever meets it first, the image or the guest's disk."""
    content = os.urandom(3 << 20)

    @contextmanager
    def fetch(image_id: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO(content)

    with mounted(tmp_path, 8) as disk:
        instances = disk.place / "instances"
        cache = ImageCache(instances / "_base", fetch)
        disks = FileDisks(instances, cache, ConfigDrives("iso9660", lambda server_id: {}))
        disks.recover()
        image = ImageSpec("i1", "raw", len(content), "sha512", hashlib.sha512(content).hexdigest())
        wanted = ServerSpec(id=ids.uuid(), number=1, name="n", project_id="p", vcpus=1, memory_mb=64, root_gb=1, image=image)
        for prepare in (lambda: None, lambda: cache.ensure(image, Deadline(30))):
            prepare()
            disk.fill()
            with pytest.raises(Exception) as failed:
                disks.ensure(msgspec.structs.replace(wanted, ephemeral_gb=1, swap_mb=64), Deadline(30))
            assert "no room left on the host's disk" in str(failure("c", failed.value).error)
            assert not list(instances.glob("**/*.part")) and not list(instances.glob("**/disk*"))
            disks.absent(wanted.id)
            disk.free()
        disks.ensure(wanted, Deadline(30))


def test_a_log_on_a_full_disk_fails_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path, 8) as disk:
        handler = log.ServiceFiles(disk.place, "api")

        def say(text: str) -> None:
            handler.emit(logging.makeLogRecord({"name": "nacre.image", "msg": text, "levelno": 20, "levelname": "INFO"}))

        say("before")
        disk.fill()
        for number in range(300):
            say(f"{number} {'x' * 100}")
        disk.free()
        say("after")
        handler.close()
        lines = [json.loads(line) for line in (disk.place / "image.log").read_text().splitlines() if line.endswith("}")]
        assert lines[0]["message"] == "before" and lines[-1]["message"] == "after"
        assert lines[-2]["message"].startswith("lines lost before this one: ")
        assert len(lines) > 3 and not capsys.readouterr().err
