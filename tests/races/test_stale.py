"""Who comes late: a report that was on its way, a call of an older attempt, a task whose server another has taken over, a host that is deleted.

Each is one thing that an interleaving of many did or could do; the states' owner and the reports' order are what decides them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_node import ADDRESS
from nacre import compute
from nacre.compute import loops, states, tables
from nacre.core import joining, node_api, nodes
from nacre.node.deadline import Deadline
from races import stage as stages
from races.stage import HOST, WHO, Stage

SERVERS = "/compute/v2.1/servers"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Stage]:
    made = stages.make(tmp_path_factory.mktemp("stage"), fresh_database())
    yield made
    made.cloud.db.close()


@pytest.fixture
def server(stage: Stage) -> Iterator[str]:
    server_id = made(stage)
    stage.settle()
    assert state(stage, server_id) == (states.ACTIVE, None)
    yield server_id
    stage.settle()
    stage.ask("DELETE", f"{SERVERS}/{server_id}")
    stage.settle()


def made(stage: Stage) -> str:
    """A server whose create is only begun."""
    body = {"server": {"name": "s", "imageRef": stage.image, "flavorRef": "1", "networks": "none"}}
    return str(stage.ask("POST", SERVERS, body).json()["server"]["id"])


def state(stage: Stage, server_id: str) -> tuple[str, str | None]:
    with stage.cloud.db.read() as conn:
        row = tables.by_id(conn, server_id)
    assert row is not None
    return row.vm_state, row.task_state


def act(stage: Stage, server_id: str, body: dict[str, Any]) -> int:
    return stage.ask("POST", f"{SERVERS}/{server_id}/action", body).status_code


def power(stage: Stage, server_id: str) -> str:
    return str(stage.node.hypervisor.servers()[server_id].power)


def test_a_hard_reboot_takes_over_and_who_was_first_writes_no_state(stage: Stage, server: str) -> None:
    assert act(stage, server, {"pause": None}) == 202
    assert stage.work()
    assert act(stage, server, {"reboot": {"type": "HARD"}}) == 202
    stage.node.run_call(0)
    stage.node.tell_result(0, False)
    while state(stage, server)[1] is not None:  # the pause ends first; the reboot is not done before it is
        assert state(stage, server) == (states.ACTIVE, "rebooting_hard")
        assert stage.work() or stage.node.settle()
    assert state(stage, server) == (states.ACTIVE, None) and power(stage, server) == "running"


@pytest.mark.parametrize("first", [{"os-stop": None}, {"reboot": {"type": "SOFT"}}, {"suspend": None}])
def test_what_was_abandoned_leaves_the_next_verb_its_states(stage: Stage, server: str, first: dict[str, Any]) -> None:
    assert act(stage, server, first) == 202
    assert stage.work()
    assert act(stage, server, {"os-resetState": {"state": "active"}}) == 202
    assert act(stage, server, {"pause": None}) == 202
    assert stage.work()  # the abandoned one ends
    assert state(stage, server) == (states.ACTIVE, "pausing"), "who was abandoned may not end what another has begun"
    stage.settle()
    assert state(stage, server)[1] is None and power(stage, server) in ("paused", "shutdown", "suspended")


def reset(stage: Stage, server_id: str, to: str) -> int:
    return act(stage, server_id, {"os-resetState": {"state": to}})


def test_a_delete_that_has_not_begun_is_taken_back(stage: Stage, server: str) -> None:
    assert stage.ask("DELETE", f"{SERVERS}/{server}").status_code == 204
    assert reset(stage, server, "active") == 202
    assert act(stage, server, {"pause": None}) == 202
    stage.settle()
    assert state(stage, server) == (states.PAUSED, None) and power(stage, server) == "paused"


@pytest.mark.parametrize("to", ["active", "error"])
def test_a_delete_that_has_told_its_host_goes_on(stage: Stage, to: str) -> None:
    """Whatever is said and begun meanwhile: the guest may be gone already."""
    server = made(stage)
    stage.settle()
    assert stage.ask("DELETE", f"{SERVERS}/{server}").status_code == 204
    assert stage.work()
    assert reset(stage, server, to) == 202 and state(stage, server) == (to, None)
    assert to == "error" or act(stage, server, {"pause": None}) == 202
    stage.settle()
    assert stage.ask("GET", f"{SERVERS}/{server}").status_code == 404 and server not in stage.node.hypervisor.servers()


@pytest.mark.parametrize("to", ["active", "error"])
@pytest.mark.parametrize("begun", range(6))
def test_a_create_that_is_abandoned_leaves_an_error(stage: Stage, to: str, begun: int) -> None:
    """Upstream, too: the build finds that its task state is gone, and gives up. Nobody calls a server ACTIVE that is nowhere."""
    server = made(stage)
    for n in range(begun):
        stage.work() if n % 2 == 0 else stage.node.settle()
    assert reset(stage, server, to) == 202 and state(stage, server) == (to, None)
    if begun > 1 and to == "active":
        assert act(stage, server, {"pause": None}) == 202
    stage.settle()
    shown = stage.ask("GET", f"{SERVERS}/{server}").json()["server"]
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ERROR", None) and shown["fault"]["message"]
    assert server not in stage.node.hypervisor.servers()
    assert reset(stage, server, "active") == 409 and reset(stage, server, "error") == 202
    stage.ask("DELETE", f"{SERVERS}/{server}")
    stage.settle()


def test_a_rebuild_that_is_abandoned_leaves_an_error(stage: Stage, server: str) -> None:
    assert act(stage, server, {"rebuild": {"imageRef": stage.image}}) == 202
    for _ in range(3):
        stage.work()
        stage.node.settle()
    assert reset(stage, server, "active") == 202
    stage.settle()
    shown = stage.ask("GET", f"{SERVERS}/{server}").json()["server"]
    assert shown["status"] == "ERROR" and "rebuild_server was under way" in shown["fault"]["message"]
    assert act(stage, server, {"rebuild": {"imageRef": stage.image}}) == 202
    stage.settle()
    assert state(stage, server) == (states.ACTIVE, None) and power(stage, server) == "running"


def test_a_resize_that_was_neither_confirmed_nor_reverted_brings_no_old_disk_back(stage: Stage, server: str) -> None:
    stage.ask("POST", "/compute/v2.1/flavors", {"flavor": {"id": "3", "name": "3", "vcpus": 1, "ram": 64, "disk": 2}})
    guest = stage.node.hypervisor._guests[server]
    for flavor, written in (("2", "first"), ("3", "second")):
        guest.disk = written
        assert act(stage, server, {"resize": {"flavorRef": flavor}}) == 202
        stage.settle()
        assert state(stage, server) == (states.RESIZED, None)
        assert flavor == "3" or reset(stage, server, "active") == 202
    assert act(stage, server, {"revertResize": None}) == 202
    stage.settle()
    assert state(stage, server) == (states.ACTIVE, None) and guest.disk == "second"


def test_a_stalled_worker_undoes_nothing(stage: Stage, server: str) -> None:
    """The first loses its lease within a step, the second brings the task to its end, then the first goes on."""
    act(stage, server, {"resize": {"flavorRef": "2"}})
    stalled: list[str] = []

    def fault(when: str, step: str) -> None:
        if not stalled:
            stalled.append(step)
            stage.lose_leases()
            stage.settle()

    assert stage.work(fault)
    assert stalled and state(stage, server) == (states.RESIZED, None)
    stage.settle()
    assert state(stage, server) == (states.RESIZED, None) and power(stage, server) == "running"


def test_a_report_that_comes_late_is_not_what_is(stage: Stage, server: str) -> None:
    stage.node.sights.clear()
    stage.node.look()  # it runs; this is long on its way
    assert act(stage, server, {"os-stop": None}) == 202
    stage.settle_calls()
    stage.node.look()
    stage.node.tell_seen(1)
    stage.node.tell_seen(0)
    loops.agree(stage.cloud, WHO)
    assert state(stage, server) == (states.STOPPED, None), "seen running before it was stopped"
    app = stage.node._app()
    late = app._report(node_api.Report(number=0, applied={"server": {server: 0}}, seen={"servers": {}}))
    assert late["counted"] is False and late["number"] == stage.node.number
    with stage.cloud.db.read() as conn:
        assert nodes.missing(conn, HOST, [("server", server)]) is None
    old = app._report(node_api.Report(results=[{"id": "of-nobody", "ok": True}], number=0))
    assert old["counted"] is False, "its results count all the same, the rest is told again"


def test_a_report_without_a_number_counts(stage: Stage, server: str) -> None:
    """A node of the version before."""
    assert stage.node._app()._report(node_api.Report(seen={"servers": {server: {"power": "shutdown"}}}))["counted"]
    loops.agree(stage.cloud, WHO)
    assert state(stage, server)[0] == states.STOPPED
    stage.node.number += 1
    stage.node.report()


def test_a_report_that_could_see_no_guests_vouches_for_none(stage: Stage, server: str) -> None:
    stage.node.hypervisor.turn_off(server)
    stage.node.report()
    assert act(stage, server, {"os-resetState": {"state": "active"}}) == 202
    stage.node.sights.append((stage.node.number, {"address": ADDRESS}))
    stage.node.tell_seen(len(stage.node.sights) - 1)
    loops.agree(stage.cloud, WHO)
    assert state(stage, server) == (states.ACTIVE, None), "what was seen before the reset says nothing of what is after it"
    stage.node.report()
    loops.agree(stage.cloud, WHO)
    assert state(stage, server) == (states.STOPPED, None)


def test_an_older_version_is_not_the_current_one(stage: Stage, server: str) -> None:
    with stage.cloud.db.read() as conn:
        version = nodes.held_by(conn, HOST)["server"][server]
    with stage.cloud.db.write(WHO) as tx:
        nodes.bump(tx, "server", server)
    stage.node._app()._report(node_api.Report(applied={"server": {server: version}}))
    with stage.cloud.db.read() as conn:
        assert nodes.missing(conn, HOST, [("server", server)])
    stage.node._app()._report(node_api.Report(epoch=7, applied={"server": {server: version + 1}}))
    with stage.cloud.db.read() as conn:
        assert nodes.missing(conn, HOST, [("server", server)]), "another epoch's versions say nothing of these"


def test_a_host_that_lost_the_server_says_nothing_of_it(stage: Stage, server: str) -> None:
    app = node_api.NodeApp(stage.cloud, "other", stage.node._app().behind, node_api.Heartbeats(stage.cloud))
    app._report(node_api.Report(seen={"servers": {server: {"power": "shutdown", "domain": "instance-00000001"}}}))
    loops.agree(stage.cloud, WHO)
    assert state(stage, server) == (states.ACTIVE, None)
    assert act(stage, server, {"os-stop": None}) == 202
    assert stage.work()
    with stage.cloud.db.read() as conn:
        (call,) = nodes.open_calls(conn, HOST)
    with pytest.raises(node_api.Refused, match=f"was made to host {HOST}"):
        app._report(node_api.Report(results=[{"id": call.id, "ok": True, "value": {"power": "shutdown"}}]))
    stage.settle()
    assert state(stage, server) == (states.STOPPED, None)


def test_an_older_attempt_is_refused_by_the_node(stage: Stage, server: str) -> None:
    fences = stage.node.fences
    current = fences.current(server)
    assert current is not None
    assert not fences.admit(server, (current[0], current[1] - 1)) and not fences.admit(server, (current[0] - 1, current[1] + 9))
    assert fences.admit(server, current) and fences.current(server) == current


def test_a_report_after_the_service_was_deleted(stage: Stage) -> None:
    with stage.cloud.db.write(WHO) as tx:
        nodes.register(tx, "far")
        compute.reported(tx, "far", {})
        admission = joining.admit(tx, "far")
    app = node_api.NodeApp(stage.cloud, "far", stage.node._app().behind, node_api.Heartbeats(stage.cloud), joining.permit("far", admission))
    app._report(node_api.Report(seen={"servers": {}}, number=0))
    services = [one for one in stage.ask("GET", "/compute/v2.1/os-services").json()["services"] if one["host"] == "far"]
    assert stage.ask("DELETE", f"/compute/v2.1/os-services/{services[0]['id']}").status_code == 204
    with pytest.raises(node_api.Refused, match="was revoked"):
        app._report(node_api.Report(seen={"servers": {}}, number=1))
    assert not [one for one in stage.ask("GET", "/compute/v2.1/os-services").json()["services"] if one["host"] == "far"]


def test_a_port_deleted_under_a_guest_leaves_it(stage: Stage) -> None:
    """Whatever is being done to the server by then: it is queued behind that."""
    made = stage.ask("POST", "/network/v2.0/networks", {"network": {"name": "n"}}).json()["network"]["id"]
    stage.ask("POST", "/network/v2.0/subnets", {"subnet": {"network_id": made, "cidr": "10.8.0.0/28", "ip_version": 4}})
    body = {"server": {"name": "s", "imageRef": stage.image, "flavorRef": "1", "networks": [{"uuid": made}]}}
    server = stage.ask("POST", SERVERS, body).json()["server"]["id"]
    for before in (stage.work, stage.settle):
        before()
        (port,) = stage.ask("GET", f"/network/v2.0/ports?device_id={server}").json()["ports"]
        assert stage.ask("DELETE", f"/network/v2.0/ports/{port['id']}").status_code == 204
        stage.settle()
        assert state(stage, server) == (states.ACTIVE, None)
        assert stage.node.hypervisor._guests[server].ports == ()
        stage.ask("POST", f"{SERVERS}/{server}/os-interface", {"interfaceAttachment": {"net_id": made}})
    stage.settle()
    assert len(stage.node.hypervisor._guests[server].ports) == 1
    stage.ask("DELETE", f"{SERVERS}/{server}")
    stage.settle()


def test_a_suspended_guest_that_was_started_behind_our_back(stage: Stage, server: str) -> None:
    assert act(stage, server, {"suspend": None}) == 202
    stage.settle()
    assert state(stage, server)[0] == states.SUSPENDED
    stage.node.hypervisor.ensure_power(server, "running", Deadline(5))
    stage.settle()
    assert state(stage, server) == (states.ACTIVE, None)
