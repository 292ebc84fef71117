"""`doctor` against a whole cloud with a fake host: each kind of difference is planted, named with its cause, and repaired or left."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from conftest import Running
from core import durability as harness
from fake_node import FakeNode, until
from nacre import network, placement, program
from nacre.compute import doctor as checks
from nacre.compute import repair, states, tables
from nacre.core import doctor, ids, nodes, tasks
from nacre.core.caller import System
from nacre.network.tables.wires import ports
from nacre.node.hypervisor.driver import SeenDomain

from .test_durability import World, world  # noqa: F401 - the fixture

SERVERS = "/compute/v2.1/servers"
WHO = System("req-test")
UNKNOWN, OTHER = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAUSE", 0.2)


@pytest.fixture(scope="module")
def make(running: Running, node: FakeNode, admin: Any, image: Any, flavor: Any) -> Iterator[Callable[[], str]]:
    net = admin.network.create_network(name="net")
    admin.network.create_subnet(network_id=net.id, ip_version=4, cidr="10.9.0.0/24", name="sub")

    def make() -> str:
        server = admin.compute.create_server(name="one", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": net.id}])
        until(lambda: admin.compute.get_server(server.id).status == "ACTIVE")
        return str(server.id)

    yield make


def examined(running: Running, fix: bool = False) -> dict[str, Any]:
    return doctor.run(running.cloud, program.CHECKS, repair=fix)


def kinds(found: list[dict[str, Any]]) -> dict[str, str]:
    return {one["kind"]: one["what"] for one in found}


def cured(running: Running, kind: str, what: str, cause: str) -> dict[str, Any]:
    """It is found, alone, with its cause; repaired; and nothing differs then."""
    seen = examined(running)
    assert [(one["kind"], one["what"]) for one in seen["found"]] == [(kind, what)], seen
    assert cause in seen["found"][0]["cause"] and seen["found"][0]["cure"] and seen["differences"] == 1
    after = examined(running, fix=True)
    assert after["differences"] == 0 and kinds(after["repaired"]) == {kind: what}, after
    return after


def test_a_cloud_at_work_differs_in_nothing(running: Running, make: Callable[[], str]) -> None:
    make()
    assert examined(running) == {"differences": 0, "found": [], "repaired": [], "left": []}


def test_a_domain_that_is_gone(running: Running, make: Callable[[], str], node: FakeNode, admin: Any) -> None:
    server = make()
    node.hypervisor.strays.add(server)  # its folder with the disk
    node.hypervisor.lose(server)
    until(lambda: admin.compute.get_server(server).status == "SHUTOFF")
    seen = examined(running)
    assert kinds(seen["found"]) == {"domain-missing": server} and "its disk is there" in seen["found"][0]["cause"]
    node.hypervisor.strays.discard(server)
    guest = examined(running)
    assert "its disk is gone, too" in guest["found"][0]["cause"]
    node.hypervisor.strays.add(server)
    after = examined(running, fix=True)
    node.hypervisor.strays.discard(server)
    assert after["differences"] == 0 and kinds(after["repaired"]) == {"domain-missing": server}
    until(lambda: server in node.hypervisor.servers())
    assert node.hypervisor.servers()[server].power == "shutdown", "nobody asked for it to run"
    admin.compute.start_server(server)
    until(lambda: admin.compute.get_server(server).status == "ACTIVE")


def test_a_disk_that_is_gone_is_an_error(running: Running, make: Callable[[], str], node: FakeNode, admin: Any) -> None:
    server = make()
    node.hypervisor.lose(server)
    cured(running, "domain-missing", server, "its disk is gone, too")
    shown = admin.compute.get_server(server)
    assert shown.status == "ERROR" and "disk are gone" in shown.fault["message"]
    admin.compute.delete_server(server)
    until(lambda: admin.compute.find_server(server) is None)


def test_what_nobody_may_touch_is_left(running: Running, make: Callable[[], str], node: FakeNode, admin: Any) -> None:
    server = make()
    node.hypervisor.foreign = [SeenDomain(OTHER, "somebodys", "running"), SeenDomain(UNKNOWN, "instance-00000999", "running")]
    node.wires.others = {"mine": "namespace"}
    for fix in (False, True):
        seen = examined(running, fix)
        assert kinds(seen["left"]) == {"domain": "somebodys", "namespace": "mine"}
        assert kinds(seen["found"]) == {"domain-unknown": UNKNOWN} and seen["differences"] == 1 and not seen["found"][0]["cure"]
    assert len(node.hypervisor.foreign) == 2 and node.hypervisor.servers()[server].power == "running"
    node.hypervisor.foreign, node.wires.others = [], {}


def test_deleted_guests_are_taken_away_once_they_are_off(running: Running, make: Callable[[], str], node: FakeNode, admin: Any) -> None:
    server = make()
    admin.compute.delete_server(server)
    until(lambda: admin.compute.find_server(server) is None)
    node.hypervisor.foreign = [SeenDomain(server, "instance-00000998", "running")]
    seen = examined(running, fix=True)
    assert kinds(seen["found"]) == {"domain-deleted": server} and node.hypervisor.foreign, "a running guest is not touched"
    node.hypervisor.foreign = []
    node.hypervisor.strays = {server, UNKNOWN}
    seen = examined(running)
    assert kinds(seen["found"]) == {"folder-deleted": server, "folder-unknown": UNKNOWN}
    node.hypervisor.strays = {UNKNOWN}
    assert "set_aside" not in str(cured(running, "folder-unknown", UNKNOWN, "knows no such server")["found"])
    assert not node.hypervisor.strays


def test_bases(running: Running, make: Callable[[], str], node: FakeNode, image: Any) -> None:
    def base(id_: str) -> str:
        return hashlib.sha1(id_.encode()).hexdigest()

    node.hypervisor.bases = {base(image.id), base(UNKNOWN)}
    cured(running, "base-stray", base(UNKNOWN), "no image and no disk needs it")
    assert node.hypervisor.bases == {base(image.id)}


def test_wires(running: Running, make: Callable[[], str], node: FakeNode) -> None:
    node.wires.strays = {"qrouter-x": "namespace-stray"}
    cured(running, "namespace-stray", "qrouter-x", "nobody wants it")
    node.wires.stray_taps = {"tapaaaaaaaa-00": UNKNOWN}
    cured(running, "tap-stray", "tapaaaaaaaa-00", "no guest has it")
    node.wires.stray_taps = {"tap0": ""}
    seen = examined(running, fix=True)
    assert kinds(seen["left"]) == {"tap": "tap0"} and node.wires.stray_taps
    node.wires.stray_taps = {}
    server = make()
    with running.cloud.db.read() as conn:
        port = network.ports_of(conn, [server])[server][0]
    node.wires.stray_taps = {port.tap: port.id}
    assert examined(running, fix=True)["differences"] == 0 and node.wires.stray_taps, "a port's tap is no stray"
    node.wires.stray_taps = {}


def test_allocations(running: Running, make: Callable[[], str], node: FakeNode) -> None:
    server = make()
    with running.cloud.db.write(WHO) as tx:
        host = next(each for each in placement.candidates(tx, {"VCPU": 1}) if each.name == "nacre-1")
        assert placement.claim(tx, UNKNOWN, host.provider_id, host.generation, {"VCPU": 1}, project_id="p", user_id="u")
    cured(running, "allocation-stray", UNKNOWN, "no server has this id")
    with running.cloud.db.write(WHO) as tx:
        kept = placement.allocated(tx, server)
        placement.release(tx, server)
    cured(running, "allocation-missing", server, "nobody counts")
    with running.cloud.db.read() as conn:
        assert placement.allocated(conn, server) == kept and placement.allocated(conn, UNKNOWN) == {}


def test_ports(running: Running, make: Callable[[], str], admin: Any) -> None:
    server = make()
    with running.cloud.db.read() as conn:
        port = network.ports_of(conn, [server])[server][0].id
    with running.cloud.db.write(WHO) as tx:
        network.unbind_ports(tx, server)
    cured(running, "port-elsewhere", port, "it is bound to no host")
    extra = admin.network.create_port(network_id=admin.network.find_network("net").id)
    with running.cloud.db.write(WHO) as tx:
        tx.update(ports, {"id": extra.id}, device_id=UNKNOWN, device_owner="compute:nova", attached=1)
    cured(running, "port-without-server", extra.id, "which is no more")
    assert admin.network.get_port(extra.id).device_id == "", "a port that was given is only detached"


def test_a_server_that_nothing_works_at(running: Running, make: Callable[[], str], monkeypatch: pytest.MonkeyPatch, admin: Any) -> None:
    monkeypatch.setattr(checks, "_STUCK_AFTER", timedelta(0))
    server = make()
    for task_state, ends in (("powering-off", "ACTIVE"), ("deleting", None)):
        with running.cloud.db.write(WHO) as tx:
            row = tables.locked(tx, server)
            assert row is not None
            tables.move(tx, row, states.ACTIVE, task_state)
        cured(running, "server-stuck", server, f"it is {task_state} and no task does that")
        until(lambda ends=ends: getattr(admin.compute.find_server(server), "status", None) == ends)  # type: ignore[misc]


def test_a_task_that_was_not_woken(running: Running, make: Callable[[], str]) -> None:
    server = make()
    with running.cloud.db.write(WHO) as tx:
        call = nodes.call(tx, "nacre-1", nodes.NewCall("console_log", {"server_id": server}, 30))
        nodes.finish(tx, call, True, {}, "", "")
        task_id = tasks.start(tx, repair.TASK, f"server:{UNKNOWN}", {"server_id": UNKNOWN})
        tx.update(tasks.tasks, {"id": task_id}, state="parked", waiting=f"call:{call}")
    cured(running, "task-asleep", f"{repair.TASK} of server:{UNKNOWN}", "what it waits for has come")


def test_a_host_that_does_not_answer_is_told(running: Running, node: FakeNode, make: Callable[[], str]) -> None:
    with running.cloud.db.write(WHO) as tx:
        nodes.register(tx, "nacre-9")
    seen = examined(running, fix=True)
    assert kinds(seen["found"]) == {"host-down": "nacre-9"} and seen["differences"] == 1
    with running.cloud.db.write(WHO) as tx:
        tx.delete(nodes.holders, host="nacre-9")
        tx.delete(nodes.hosts, name="nacre-9")


# the task under the harness


def test_repair_is_durable(world: World) -> None:  # noqa: F811
    def begin() -> str:
        made = world.active()
        world.node.hypervisor.lose(made)
        with world.cloud.db.write(System(ids.request_id())) as tx:
            tasks.start(tx, repair.TASK, f"server:{made}", {"server_id": made})
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert row.task_state is None
        if well:
            assert row.vm_state == states.STOPPED and world.node.hypervisor.servers()[server_id].power == "shutdown"
        else:
            assert row.vm_state == states.ACTIVE, "what could not be repaired is as it was"

    harness.killed_at_every_boundary(world.stage, begin, check)
    harness.every_step_repeated(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)
    made = begin()
    world.stage.refuse = {"ensure_server"}
    harness.settle(world.stage)
    world.stage.refuse = set()
    check(made, False)
