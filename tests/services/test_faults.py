"""Daemons that hang and threads that do not come back, as the API shows them: what needs them waits, the rest goes on."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from fake_node import FakeNode, until
from nacre import program
from nacre.core import doctor as doctors
from nacre.core import ids, nodes
from nacre.core.caller import System
from nacre.node.deadline import Deadline, Unreachable

pytestmark = pytest.mark.services
COMPUTE = {"openstack-api-version": "compute 2.90"}


@pytest.fixture(scope="module")
def node(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    started = FakeNode(running.cloud, "nacre-1", tmp_path_factory.mktemp("node")).start()
    yield started
    started.stop()


@pytest.fixture
def http(running: Running, node: FakeNode) -> Iterator[httpx.Client]:
    with running.http(**COMPUTE) as client:
        yield client


@pytest.fixture(scope="module")
def body(running: Running) -> dict[str, Any]:
    with running.http(**COMPUTE) as http:
        image = http.post("/image/v2/images", json={"name": "disk", "disk_format": "raw", "container_format": "bare"}).json()["id"]
        http.put(f"/image/v2/images/{image}/file", content=b"\0" * 4096, headers={"content-type": "application/octet-stream"})
        flavor = http.post("/compute/v2.1/flavors", json={"flavor": {"name": "nano", "ram": 64, "vcpus": 1, "disk": 1}}).json()["flavor"]["id"]
    return {"server": {"name": "one", "imageRef": image, "flavorRef": flavor, "networks": "none"}}


def made(http: httpx.Client, body: dict[str, Any]) -> str:
    asked = http.post("/compute/v2.1/servers", json=body)
    assert asked.status_code == 202, asked.text
    return str(asked.json()["server"]["id"])


def server(http: httpx.Client, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/compute/v2.1/servers/{server_id}").json()["server"]
    return found


def rest(http: httpx.Client, server_id: str, seconds: float = 20) -> dict[str, Any]:
    until(lambda: server(http, server_id)["status"] != "BUILD", seconds)
    return server(http, server_id)


def gone(http: httpx.Client, server_id: str) -> bool:
    return http.get(f"/compute/v2.1/servers/{server_id}").status_code == 404


def service(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/compute/v2.1/os-services?binary=nova-compute&host=nacre-1").json()["services"][0]
    return found


def differences(running: Running) -> list[tuple[str, str]]:
    found = doctors.run(running.cloud, program.CHECKS, repair=False)["found"]
    return [(one["kind"], one["what"]) for one in found]


def test_a_host_whose_hypervisor_hangs_takes_no_server_and_lets_them_go(running: Running, node: FakeNode, http: httpx.Client,
                                                                        body: dict[str, Any]) -> None:  # fmt: skip
    kept, doomed = made(http, body), made(http, body)
    assert {rest(http, kept)["status"], rest(http, doomed)["status"]} == {"ACTIVE"}
    node.hypervisor.hung["libvirtd"] = "it does not answer"
    until(lambda: service(http)["status"] == "disabled")
    assert service(http)["disabled_reason"] == "AUTO: Connection to libvirt lost: it does not answer" and service(http)["state"] == "up"
    assert ("daemon", "libvirtd") in differences(running)
    refused = rest(http, made(http, body))
    assert refused["status"] == "ERROR" and "Connection to libvirt lost" in refused["fault"]["message"]
    assert server(http, kept)["status"] == "ACTIVE"
    assert http.delete(f"/compute/v2.1/servers/{doomed}").status_code == 204
    until(lambda: gone(http, doomed))
    del node.hypervisor.hung["libvirtd"]
    until(lambda: service(http)["status"] == "enabled" and doomed not in node.hypervisor.servers())
    assert rest(http, made(http, body))["status"] == "ACTIVE"
    assert differences(running) == []


def test_a_dead_switch_is_shown_and_named(running: Running, node: FakeNode, http: httpx.Client) -> None:
    def agent() -> bool:
        found = http.get("/network/v2.0/agents?binary=neutron-openvswitch-agent").json()["agents"]
        return bool(found[0]["alive"])

    assert agent()
    node.wires.alive["openvswitch"], node.wires.hung["ovs-vswitchd"] = False, "it does not answer"
    until(lambda: not agent())
    assert ("daemon", "ovs-vswitchd") in differences(running)
    node.wires.alive["openvswitch"] = True
    del node.wires.hung["ovs-vswitchd"]
    until(agent)
    assert differences(running) == []


class Stuck:
    """A verb of the host that does not come back until it is told to."""

    def __init__(self, node: FakeNode) -> None:
        self.node, self.go, self.held = node, threading.Event(), 0
        self.before = node.hypervisor.ensure_power

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.held += 1
        self.go.wait(60)
        return self.before(*arguments, **named)


def test_threads_that_do_not_come_back_hold_nobody_else_up(running: Running, node: FakeNode, http: httpx.Client, body: dict[str, Any]) -> None:
    """More calls hang than the host has threads for them. Reads go on; calls whose time is over give their threads up."""
    first = made(http, body)
    assert rest(http, first)["status"] == "ACTIVE"
    stuck = Stuck(node)
    node.hypervisor.ensure_power = stuck  # type: ignore[method-assign]
    try:
        with running.cloud.db.write(System(ids.request_id())) as tx:
            for _ in range(8):
                nodes.call(tx, "nacre-1", nodes.NewCall("ensure_power", {"server_id": ids.uuid(), "power": "running"}, 2.0))
        until(lambda: stuck.held == 8)
        asked = time.monotonic()
        log = http.post(f"/compute/v2.1/servers/{first}/action", json={"os-getConsoleOutput": {}})
        assert log.status_code == 200 and time.monotonic() - asked < 5
        assert http.delete(f"/compute/v2.1/servers/{first}").status_code == 204
        until(lambda: gone(http, first), 20)
        assert service(http)["state"] == "up"
    finally:
        node.hypervisor.ensure_power = stuck.before  # type: ignore[method-assign]
        stuck.go.set()
    until(lambda: differences(running) == [], 20)
    assert rest(http, made(http, body))["status"] == "ACTIVE"


def test_what_is_asked_for_ever_is_kept_while_the_hypervisor_is_away(running: Running, node: FakeNode, http: httpx.Client,
                                                                     body: dict[str, Any]) -> None:  # fmt: skip
    before, tries = node.hypervisor.absent_server, list[str]()

    def away(server_id: str, deadline: Deadline) -> None:
        tries.append(server_id)
        if len(tries) < 4:
            raise Unreachable("the hypervisor does not answer")
        before(server_id, deadline)

    node.hypervisor.absent_server = away  # type: ignore[method-assign]
    try:
        with running.cloud.db.write(System(ids.request_id())) as tx:
            call_id = nodes.call(tx, "nacre-1", nodes.NewCall("absent_server", {"server_id": ids.uuid()}, None))
        until(lambda: _state(running, call_id) == "done")
    finally:
        node.hypervisor.absent_server = before  # type: ignore[method-assign]
    assert len(tries) == 4


def _state(running: Running, call_id: str) -> str:
    with running.cloud.db.read() as conn:
        return nodes.outcome(conn, call_id)[0]
