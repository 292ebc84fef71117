"""Create and delete under the harness: whatever is repeated, refused or killed, a server ends ACTIVE or cleanly ERROR, or gone."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from conftest import make_cloud
from core import durability as harness
from fake_node import SteppedNode
from nacre import identity, image, network, placement, program
from nacre.compute import loops, states, tables
from nacre.compute.service import flavors, servers
from nacre.core import ids, nodes
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud

WHO = System("req-test")


@dataclass
class World:
    cloud: Cloud
    node: SteppedNode
    stage: harness.Stage
    image_id: str
    folder: Path

    def caller(self, rule: str) -> Caller:
        project = identity.project_named(self.cloud, "admin")
        return Caller(self.cloud, ids.request_id(), user_id="u", project_id=project, roles=frozenset({"admin", "member", "reader"}),
                      service="compute",
                      rule=f"os_compute_api:{rule}")  # fmt: skip

    def create(self) -> str:
        order = servers.Order(name="s", flavor_id="1", image_id=self.image_id, networks=None)
        return servers.create(self.caller("servers:create"), order)[0][0]

    def create_whole(self) -> str:
        """From an image that no host has yet, so that no step is left out."""
        with self.cloud.db.read() as conn:
            name = f"small-{conn.execute(sa.text('SELECT count(*) FROM images')).scalar_one()}"
        image.register(self.cloud, WHO, name=name, file=self.folder / "image", project_id=identity.project_named(self.cloud, "admin"))
        with self.cloud.db.read() as conn:
            image_id = conn.execute(sa.text("SELECT id FROM images WHERE name = :name"), {"name": name}).scalar_one()
        order = servers.Order(name="s", flavor_id="1", image_id=image_id, networks=None)
        return servers.create(self.caller("servers:create"), order)[0][0]

    def delete(self, server_id: str) -> None:
        servers.delete(self.caller("servers:delete"), server_id)

    def act(self, method: str, server_id: str) -> None:
        servers.begin(self.caller("servers:stop"), server_id, method, f"compute.{method}_server")

    def row(self, server_id: str) -> Any:
        with self.cloud.db.read() as conn:
            return tables.by_id(conn, server_id, deleted=True)

    def active(self) -> str:
        made = self.create()
        harness.settle(self.stage)
        assert self.row(made).vm_state == states.ACTIVE, self.row(made).fault
        return made

    def leaves_nothing(self, server_id: str) -> None:
        assert server_id not in self.node.hypervisor.servers()
        with self.cloud.db.read() as conn:
            assert placement.allocated(conn, server_id) == {}
            assert nodes.holders_of(conn, "server", server_id) == []
            for port in network.ports_of(conn, [server_id])[server_id]:
                assert nodes.holders_of(conn, "port", port.id) == []
            assert not nodes.open_calls(conn, "nacre-1")

    def created(self, server_id: str, well: bool) -> None:
        row = self.row(server_id)
        assert row.task_state is None
        if well:
            assert (row.vm_state, row.host) == (states.ACTIVE, "nacre-1")
            assert self.node.hypervisor.servers()[server_id].power == "running"
            with self.cloud.db.read() as conn:
                assert [amounts["VCPU"] for amounts in placement.allocated(conn, server_id).values()] == [1]
                assert [nodes.holders_of(conn, "port", port.id) for port in network.ports_of(conn, [server_id])[server_id]] == [["nacre-1"]]
        else:
            assert (row.vm_state, row.host) == (states.ERROR, None)
            assert row.fault["message"]
            self.leaves_nothing(server_id)

    def deleted(self, server_id: str, well: bool) -> None:
        if not well:
            row = self.row(server_id)
            assert (row.vm_state, row.task_state, row.deleted_at) == (states.ERROR, None, None)
            self.stage.refuse = set()
            self.delete(server_id)
            harness.settle(self.stage)
        row = self.row(server_id)
        assert row.vm_state == states.DELETED and row.deleted_at is not None, row.fault
        self.leaves_nothing(server_id)
        with self.cloud.db.read() as conn:
            assert not network.ports_of(conn, [server_id]).get(server_id)

    def begin_delete(self) -> str:
        made = self.active()
        self.delete(made)
        return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("durable")
    cloud = make_cloud(folder / "cloud", database=fresh_database())
    with cloud.db.write(WHO) as tx:
        identity.bootstrap(tx, cloud, {"admin": "x", "demo": "x"}, program.SERVICES)
        network.bootstrap(tx)
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1, 0, 0)
    (folder / "image").write_bytes(header + b"\0" * (4 << 16))
    image.register(cloud, WHO, name="small", file=folder / "image", project_id=identity.project_named(cloud, "admin"))
    with cloud.db.read() as conn:
        image_id = conn.execute(sa.text("SELECT id FROM images")).scalar_one()
    node = SteppedNode(cloud, "nacre-1", folder)
    loops.offer(cloud, WHO)
    stage = harness.Stage(cloud, lambda stage: node.act(stage.repeat, stage.refuse))
    made = World(cloud, node, stage, image_id, folder)
    with cloud.db.write(WHO) as tx:
        from nacre.core import quota

        quota.set_limits(tx, identity.project_named(cloud, "admin"), "compute", {"instances": -1, "cores": -1, "ram": -1})
    flavors.create(made.caller("os-flavor-manage:create"), {"id": "1", "name": "small", "description": None, "vcpus": 1, "memory_mb": 64,
                                                            "root_gb": 1,
                                                            "ephemeral_gb": 0, "swap_mb": 0, "rxtx_factor": 1.0, "is_public": True})  # fmt: skip
    _network(cloud)
    yield made
    cloud.db.close()


def _network(cloud: Cloud) -> None:
    """The project's only network, so that every server of these tests has a port on it."""
    http = TestClient(program.app(cloud))
    identity_of = {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": "x"}}}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    token = http.post("/identity/v3/auth/tokens", json={"auth": {"identity": identity_of, "scope": scope}}).headers["x-subject-token"]
    http.headers["x-auth-token"] = token
    made = http.post("/network/v2.0/networks", json={"network": {"name": "net"}}).json()["network"]
    subnet = {"network_id": made["id"], "ip_version": 4, "cidr": "10.200.0.0/16"}
    assert http.post("/network/v2.0/subnets", json={"subnet": subnet}).status_code == 201


def test_create_survives_every_repeat(world: World) -> None:
    harness.every_step_repeated(world.stage, world.create_whole, world.created)


def test_create_survives_a_kill_at_every_boundary(world: World) -> None:
    assert harness.killed_at_every_boundary(world.stage, world.create_whole, world.created) >= 8


def test_create_takes_everything_back_when_a_step_fails(world: World) -> None:
    assert harness.every_step_failed(world.stage, world.create_whole, world.created) >= 12


def test_create_takes_everything_back_when_a_node_refuses(world: World) -> None:
    harness.every_call_refused(world.stage, world.create_whole, world.created, ("ensure_image", "ensure_server", "ensure_power"))


def test_a_guest_that_could_not_be_taken_away_gets_a_tombstone(world: World) -> None:
    world.stage.refuse = {"ensure_power"}
    made = world.create()

    def refusing(stage: harness.Stage) -> bool:
        went = world.node.act(refuse={"ensure_power", *(() if world.row(made).vm_state == states.ERROR else ("absent_server",))})
        return went

    harness.settle(harness.Stage(world.cloud, refusing))
    world.stage.refuse = set()
    world.created(made, False)


def test_delete_survives_every_repeat(world: World) -> None:
    harness.every_step_repeated(world.stage, world.begin_delete, world.deleted)


def test_delete_survives_a_kill_at_every_boundary(world: World) -> None:
    assert harness.killed_at_every_boundary(world.stage, world.begin_delete, world.deleted) >= 4


def test_delete_can_be_asked_again_when_a_step_fails(world: World) -> None:
    assert harness.every_step_failed(world.stage, world.begin_delete, world.deleted) >= 3


def test_delete_can_be_asked_again_when_the_node_refuses(world: World) -> None:
    harness.every_call_refused(world.stage, world.begin_delete, world.deleted, ("absent_server",))


def test_delete_at_every_boundary_of_create_leaves_nothing(world: World) -> None:
    boundaries = list(dict.fromkeys(harness.clean(world.stage, world.create_whole, world.created)))
    for boundary in boundaries:
        made = world.create_whole()
        plan = harness.Plan()

        def fault(when: str, step: str, at: harness.Boundary = boundary, made: str = made) -> None:
            if (when, step) == at and world.row(made).task_state != "deleting":
                world.delete(made)

        plan.__class__ = type("Deleting", (harness.Plan,), {"__call__": lambda self, when, step, fault=fault: fault(when, step)})
        harness.settle(world.stage, plan)
        world.deleted(made, True)


def test_a_server_on_a_host_that_is_down_goes_at_once_and_its_guest_later(world: World) -> None:
    made = world.active()
    with world.cloud.db.write(WHO) as tx:
        tx.update(nodes.hosts, {"name": "nacre-1"}, heard=None)
    world.delete(made)
    harness.settle(harness.Stage(world.cloud, lambda stage: False))
    assert world.row(made).vm_state == states.DELETED
    assert made in world.node.hypervisor.servers()
    world.node.report()
    harness.settle(world.stage)
    world.deleted(made, True)


@pytest.mark.parametrize(("method", "after", "power"), [("stop", "stopped", "shutdown"), ("pause", "paused", "paused")])
def test_power_verbs_under_kills(world: World, method: str, after: str, power: str) -> None:
    def begin() -> str:
        made = world.active()
        world.act(method, made)
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert row.task_state is None
        assert row.vm_state == (after if well else states.ACTIVE)
        assert world.node.hypervisor.servers()[server_id].power == (power if well else world.node.hypervisor.servers()[server_id].power)

    harness.killed_at_every_boundary(world.stage, begin, check)
    harness.every_step_repeated(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)


def test_no_valid_host_says_why(world: World) -> None:
    with world.cloud.db.write(WHO) as tx:
        tx.update(tables.compute_hosts, {"host": "nacre-1"}, disabled=True, disabled_reason="moving")
    made = world.create()
    harness.settle(world.stage)
    row = world.row(made)
    assert row.vm_state == states.ERROR
    assert row.fault["message"].startswith("No valid host was found. ")
    assert "nacre-1: its compute service is disabled (moving) (ComputeFilter)" in row.fault["message"]
    with world.cloud.db.write(WHO) as tx:
        tx.update(tables.compute_hosts, {"host": "nacre-1"}, disabled=False, disabled_reason=None)
