"""A host that cannot make a guest is left for the next best one, under the harness: nothing stays on the first, whatever is killed."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from compute.test_durability import WHO, World, world
from core import durability as harness
from fake_node import SteppedNode
from nacre import network, placement
from nacre.compute import loops, states, tables
from nacre.core import node_api, nodes
from nacre.node.deadline import Deadline
from nacre.node.hypervisor.driver import ServerSpec

__all__ = ["world"]
BEST = "nacre-1"


@pytest.fixture(scope="module")
def others(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[SteppedNode]:
    """Six further hosts, all smaller than the first, which is therefore tried first as long as nothing is on it."""
    made = []
    for number in range(2, 8):
        node = SteppedNode(world.cloud, f"nacre-{number}", tmp_path_factory.mktemp("node"))
        node.hypervisor.vcpus, node.hypervisor.memory_mb, node.hypervisor.disk_gb = 32, 131072, 2048
        node.report()
        made.append(node)
    loops.offer(world.cloud, WHO)
    return made


@pytest.fixture
def refusing(world: World, others: list[SteppedNode]) -> Iterator[dict[str, set[str]]]:
    """host -> the verbs that it refuses; the stage of `world` is all hosts meanwhile."""
    refused: dict[str, set[str]] = {BEST: {"ensure_server"}}
    before = world.stage

    def act(stage: harness.Stage) -> bool:
        acted = [node.act(stage.repeat, {*stage.refuse, *refused.get(node.host, ())}) for node in (world.node, *others)]
        return any(acted)

    world.stage = harness.Stage(world.cloud, act)
    yield refused
    world.stage = before


def create(world: World) -> str:
    world.node.done.clear()
    return world.create_whole()


def holds_nothing(world: World, node: SteppedNode, server_id: str) -> None:
    assert server_id not in node.hypervisor.servers()
    with world.cloud.db.read() as conn:
        row = nodes.host_named(conn, node.host)
        assert row is not None and row.id not in placement.allocated(conn, server_id)
        assert node.host not in nodes.holders_of(conn, "server", server_id)
        for port in network.ports_of(conn, [server_id])[server_id]:
            assert node.host not in nodes.holders_of(conn, "port", port.id)
        assert not nodes.open_calls(conn, node.host)


def test_five_hosts_at_most(world: World, others: list[SteppedNode], refusing: dict[str, set[str]]) -> None:
    refusing |= {node.host: {"ensure_server"} for node in others}
    for node in others:
        node.done.clear()
    made = create(world)
    harness.settle(world.stage)
    asked = [node.host for node in (world.node, *others) if "ensure_server" in node.done]
    assert len(asked) == 5 and BEST in asked
    row = world.row(made)
    assert (row.vm_state, row.host) == (states.ERROR, None) and "ensure_server was refused" in row.fault["message"]
    for node in (world.node, *others):
        holds_nothing(world, node, made)


def test_a_host_that_cannot_take_it_back_is_told_again(world: World, others: list[SteppedNode], refusing: dict[str, set[str]]) -> None:
    """It made half of the guest and cannot take that away now: it is told once more, while the server runs elsewhere."""
    refusing[BEST] = {"ensure_server", "absent_server"}
    made, act = create(world), world.stage.act

    def half_made(stage: harness.Stage) -> bool:
        with world.cloud.db.read() as conn:
            wanted = [call.args["spec"] for call in nodes.open_calls(conn, BEST) if call.verb == "ensure_server"]
        for spec in wanted:
            world.node.hypervisor.ensure_server(msgspec.convert(spec, ServerSpec), "paused", Deadline(60))
        if world.row(made).host != BEST:
            refusing[BEST] = {"ensure_server"}
        return act(stage)

    harness.settle(harness.Stage(world.cloud, half_made))
    assert world.row(made).vm_state == states.ACTIVE and world.node.done.count("absent_server") == 2
    holds_nothing(world, world.node, made)


def silent(world: World, host: str) -> None:
    """As long as it takes until it counts as dead."""
    with world.cloud.db.write(WHO) as tx:
        nodes.heard_of(tx, [host], nodes.DEAD_AFTER + 1)
    world.cloud.memory["silent hosts"] = {host: time.monotonic() - node_api.GRACE}
    node_api.expire_calls(world.cloud, WHO)


@pytest.mark.parametrize("killed", [None, ("before", "elsewhere:1"), ("after", "elsewhere:1"), ("after", "tombstone:1"), ("after", "unschedule:1")])
def test_a_host_that_dies_under_a_new_guest(
    world: World, others: list[SteppedNode], refusing: dict[str, set[str]], killed: harness.Boundary | None
) -> None:
    """The guest is there, paused, and its wires are not reported yet: the server runs elsewhere, and the dead host finds a tombstone."""
    refusing.clear()
    made, act = create(world), world.stage.act

    def dying(stage: harness.Stage) -> bool:
        if world.row(made).host == BEST and "ensure_server" not in world.node.done:
            return world.node.act(wires=False)
        if world.row(made).vm_state == states.BUILDING:
            silent(world, BEST)
            for node in others:
                node.act()
            return True
        world.node._live()
        return act(stage)

    passed = harness.settle(harness.Stage(world.cloud, dying), harness.Plan(kill=killed))
    row = world.row(made)
    assert row.vm_state == states.ACTIVE and row.host != BEST, row.fault
    assert killed is None or killed in passed
    assert world.node.done.count("ensure_server") == world.node.done.count("absent_server") == 1
    holds_nothing(world, world.node, made)


def test_every_host_was_tried(world: World, others: list[SteppedNode], refusing: dict[str, set[str]]) -> None:
    """Fewer hosts than attempts: the last refusal is the fault, and the loop ends."""
    with world.cloud.db.write(WHO) as tx:
        for node in others[1:]:
            tx.update(tables.compute_hosts, {"host": node.host}, disabled=True)
    refusing[others[0].host] = {"ensure_image"}
    made = create(world)
    harness.settle(world.stage)
    row = world.row(made)
    assert row.vm_state == states.ERROR and "ensure_image was refused" in row.fault["message"]
    for node in (world.node, *others):
        holds_nothing(world, node, made)


@pytest.mark.long
def test_the_next_host_makes_it(world: World, others: list[SteppedNode], refusing: dict[str, set[str]]) -> None:
    """With two hosts left, of which the best refuses."""
    left = (world.node, others[0])

    def act(stage: harness.Stage) -> bool:
        acted = [node.act(stage.repeat, {*stage.refuse, *refusing.get(node.host, ())}) for node in left]
        return any(acted)

    world.stage = harness.Stage(world.cloud, act)

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert row.task_state is None
        holds_nothing(world, world.node, server_id)
        for node in others:
            if node.host != row.host:
                holds_nothing(world, node, server_id)
        if not well:
            assert (row.vm_state, row.host) == (states.ERROR, None) and row.fault["message"]
            return
        assert row.vm_state == states.ACTIVE, row.fault
        assert "ensure_server" in world.node.done, "the best host was never asked"
        works = next(node for node in others if node.host == row.host)
        assert works.hypervisor.servers()[server_id].power == "running"
        with world.cloud.db.read() as conn:
            there = nodes.host_named(conn, works.host)
            assert there is not None
            held = placement.allocated(conn, server_id)
            assert {provider: amounts["VCPU"] for provider, amounts in held.items()} == {there.id: 1}
            assert [nodes.holders_of(conn, "port", port.id) for port in network.ports_of(conn, [server_id])[server_id]] == [[works.host]]

    def begin() -> str:
        return create(world)

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 12
    harness.every_step_repeated(world.stage, begin, check)
    assert harness.every_step_failed(world.stage, begin, check) >= 10
