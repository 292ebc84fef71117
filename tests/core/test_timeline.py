"""`why`: the timeline of a request from HTTP to the node's commands, by the API and as the system; what others may see of it."""

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Running
from fake_node import FakeNode, until
from nacre.core import ids, log, timeline, why
from nacre.core.errors import NotFound

SERVERS = "/compute/v2.1/servers"


@pytest.fixture(scope="module")
def logged(running: Running) -> Iterator[Path]:
    """The processes of a cloud log to its folder; here all are one."""
    folder = running.cloud.home.path / "logs"
    handler, root = log.ServiceFiles(folder, "api"), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield folder
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


@pytest.fixture(scope="module")
def made(running: Running, node: FakeNode, logged: Path) -> tuple[str, str]:
    """(a server of demo's, the request that made it)."""
    admin = running.connect("admin")
    image = admin.image.create_image("i", data=b"\0" * 512, disk_format="raw", container_format="bare", visibility="public")
    flavor = admin.compute.create_flavor(name="small", ram=64, vcpus=1, disk=1)
    with running.http("demo") as demo:
        body = {"name": "one", "imageRef": image.id, "flavorRef": flavor.id}
        answer = demo.post(SERVERS, json={"server": body})
        assert answer.status_code == 202, answer.text
        server_id = answer.json()["server"]["id"]
        until(lambda: demo.get(f"{SERVERS}/{server_id}").json()["server"]["status"] == "ACTIVE")
    admin.close()
    return server_id, answer.headers["x-openstack-request-id"]


def at(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


def test_a_request_from_http_to_the_nodes_commands(running: Running, made: tuple[str, str]) -> None:
    server_id, request_id = made
    found = running.http("admin").get(f"/nacre/v1/why/{request_id}").json()["why"]
    events = found["events"]
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "http" and events[0]["text"] == "POST /compute/v2.1/servers: 202" and events[0]["ms"] > 0
    assert {"change", "task", "step", "call", "command"} <= set(kinds)
    assert [at(event) for event in events] == sorted(at(event) for event in events)
    texts = [event["text"] for event in events]
    assert any(text.startswith(f"server {server_id} create (") for text in texts)
    assert f"task compute.create_server of server:{server_id}: done" in texts
    for verb in ("ensure_image", "ensure_server", "ensure_power"):
        call = next(event for event in events if event["kind"] == "call" and event["text"] == f"node call {verb}")
        began = next(event for event in events if event["kind"] == "command" and event["text"].startswith(f"{verb} began"))
        assert call["host"] == began["host"] == "nacre-1" and 0 <= began["ms"] <= call["ms"] and at(call) <= at(began)
    steps = [event["text"] for event in events if event["kind"] == "step"]
    assert steps == ["step schedule", "step ensure_image", "step ensure_server", "step wired", "step ensure_power", "step finish"]
    assert all(event["ms"] is not None for event in events if event["kind"] in ("task", "step", "call"))


def test_a_resource_is_told_by_its_requests(running: Running, made: tuple[str, str]) -> None:
    server_id, request_id = made
    with running.http("demo") as demo:
        stopped = demo.post(f"{SERVERS}/{server_id}/action", json={"os-stop": None}).headers["x-openstack-request-id"]
        until(lambda: demo.get(f"{SERVERS}/{server_id}").json()["server"]["status"] == "SHUTOFF")
        found = demo.get(f"/nacre/v1/why/{server_id}").json()["why"]
        requests = [one["id"] for one in found["requests"]]
        assert requests[0] == stopped and requests[-1] == request_id
        assert found["requests"][0]["did"][0] == "server stop" and found["request_id"] == stopped
        assert any("compute.stop_server" in event["text"] for event in found["events"])
        older = demo.get(f"/nacre/v1/why/{server_id}?request={request_id}").json()["why"]
        assert any("compute.create_server" in event["text"] for event in older["events"])
        assert found["documents"] == [{"kind": "server", "true": True}]
    assert running.http("admin").get(f"/nacre/v1/why/{server_id}").json()["why"]["documents"][0]["host"] == "nacre-1"


def test_an_owner_sees_no_host(running: Running, made: tuple[str, str]) -> None:
    with running.http("demo") as demo:
        told = demo.get(f"/nacre/v1/why/{made[1]}")
        kinds = {event["kind"] for event in told.json()["why"]["events"]}
        assert kinds == {"http", "change", "task", "step", "call"}
        assert "nacre-1" not in told.text and not any(key in event for event in told.json()["why"]["events"] for key in ("host", "inside"))


def test_others_know_of_nothing(running: Running, made: tuple[str, str]) -> None:
    with running.http("admin") as http:
        request = http.post("/compute/v2.1/os-keypairs", json={"keypair": {"name": "k"}}).headers["x-openstack-request-id"]
        assert http.get(f"/nacre/v1/why/{request}").status_code == 200
    with running.http("demo") as demo:
        for name in (request, "req-00000000-0000-4000-8000-000000000000", "nonsense", "..%2f..", "%"):
            refused = demo.get(f"/nacre/v1/why/{name}")
            assert refused.status_code == 404, name
        assert demo.get(f"/nacre/v1/why/{made[0]}?request={request}").status_code == 404
        assert "Nothing is known of nonsense" in demo.get("/nacre/v1/why/nonsense").json()["error"]["message"]


def test_what_was_refused_is_known_by_the_logs(running: Running, made: tuple[str, str], logged: Path) -> None:
    with running.http("demo") as demo:
        refused = demo.get("/compute/v2.1/os-services")
        assert refused.status_code == 403
        request_id = refused.headers["x-openstack-request-id"]
        assert demo.get(f"/nacre/v1/why/{request_id}").status_code == 404, "only rows tell whose a request was"
    [event] = why.tell(running.cloud, request_id)["events"]
    assert event["text"] == "GET /compute/v2.1/os-services: 403" and "os_compute_api:os-services:list" in event["problem"]
    with pytest.raises(NotFound, match="Nothing is known of req-no"):
        why.tell(running.cloud, "req-no")


def test_lines_are_found_by_their_time(tmp_path: Path) -> None:
    wanted = ids.request_id()
    lines = [f'{{"time": "2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}.000000Z", "level": "INFO", "request_id": '
             f'"{wanted if n % 1000 == 7 else "req-x"}", "message": "{n}", "process": "api", "logger": "x"}}' for n in range(20000)]  # fmt: skip
    (tmp_path / "api.log").write_text("\n".join(lines) + "\n")
    (tmp_path / "empty.log").write_text("")
    (tmp_path / "bad.log").write_bytes(b'\xff"request_id": "' + wanted.encode() + b'"\n')
    moment = datetime(2026, 1, 1, 1, 0, 0)
    found = timeline._lines(tmp_path, wanted, moment, moment.replace(hour=2))
    assert [line["message"] for line in found] == ["4007", "5007", "6007", "7007"]
    assert len(timeline._lines(tmp_path, wanted, None, None)) == 20
    assert timeline._lines(tmp_path, 'x"|', None, None) == []
