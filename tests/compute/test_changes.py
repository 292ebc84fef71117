"""Snapshot, rebuild, resize, rescue and interfaces under the harness: each ends done, or with the guest as it was, or in ERROR with its cause."""

import pytest

from compute.test_durability import WHO, World, world
from core import durability as harness
from nacre import network, placement
from nacre.compute import loops, states
from nacre.compute.service import flavors, life
from nacre.image import tables as image_tables

__all__ = ["world"]


@pytest.fixture(scope="module", autouse=True)
def larger(world: World) -> None:
    """A second flavor, and a host with room for every server of this file."""
    world.node.hypervisor.vcpus = 4096
    world.node.report()
    loops.offer(world.cloud, WHO)
    flavors.create(world.caller("os-flavor-manage:create"), {"id": "2", "name": "larger", "description": None, "vcpus": 2, "memory_mb": 128,
                                                             "root_gb": 2, "ephemeral_gb": 0, "swap_mb": 0, "rxtx_factor": 1.0,
                                                             "is_public": True})  # fmt: skip


def active(world: World) -> str:
    """A server that runs, whatever the host refuses in this test."""
    refused, world.stage.refuse = world.stage.refuse, set()
    try:
        return world.active()
    finally:
        world.stage.refuse = refused


def held(world: World, server_id: str) -> list[int]:
    with world.cloud.db.read() as conn:
        return [amounts["VCPU"] for amounts in placement.allocated(conn, server_id).values()]


def power(world: World, server_id: str) -> str:
    return world.node.hypervisor.servers()[server_id].power


def test_suspend_and_resume(world: World) -> None:
    made = active(world)
    for method, vm_state, seen in (("suspend", states.SUSPENDED, "suspended"), ("resume", states.ACTIVE, "running")):
        world.act(method, made)
        harness.settle(world.stage)
        assert (world.row(made).vm_state, power(world, made)) == (vm_state, seen)


def test_snapshot(world: World) -> None:
    asked: dict[str, str] = {}

    def begin() -> str:
        made = active(world)
        asked[made] = life.snapshot(world.caller("servers:create_image"), made, "shot", {"colour": "red"})
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert (row.vm_state, row.task_state) == (states.ACTIVE, None)
        with world.cloud.db.read() as conn:
            image = image_tables.by_id(conn, asked[server_id])
        assert (image is not None and image.status == "active") if well else image is None or image.status == "active"
        if well and image is not None:
            assert image.properties["base_image_ref"] == world.image_id and image.properties["image_type"] == "snapshot"
            assert image.properties["instance_uuid"] == server_id and image.properties["colour"] == "red"

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 3
    harness.every_step_repeated(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)
    harness.every_call_refused(world.stage, begin, check, ("upload_image",))


def test_backups_rotate(world: World) -> None:
    made = active(world)
    shots = []
    for name in ("one", "two", "three"):
        shots.append(life.backup(world.caller("os-create-backup"), made, life.Backup(name, "daily", 2), {}))
        assert world.row(made).task_state == "image_backup"
        harness.settle(world.stage)
        assert (world.row(made).vm_state, world.row(made).task_state) == (states.ACTIVE, None)
    shots.append(life.backup(world.caller("os-create-backup"), made, life.Backup("other", "weekly", 1), {}))
    harness.settle(world.stage)
    with world.cloud.db.read() as conn:
        found = [image_tables.by_id(conn, image_id) for image_id in shots]
    assert [image.name if image is not None and image.status == "active" else None for image in found] == [None, "two", "three", "other"]
    assert found[1] is not None and found[1].properties.items() >= {"image_type": "backup", "backup_type": "daily", "instance_uuid": made}.items()


def test_backup_at_every_step(world: World) -> None:
    asked: dict[str, str] = {}

    def begin() -> str:
        made = active(world)
        asked[made] = life.backup(world.caller("os-create-backup"), made, life.Backup("shot", "daily", 0), {})
        return made

    def check(server_id: str, well: bool) -> None:
        assert (world.row(server_id).vm_state, world.row(server_id).task_state) == (states.ACTIVE, None)
        with world.cloud.db.read() as conn:
            image = image_tables.by_id(conn, asked[server_id])
        assert image is None or image.status in (("deleted",) if well else ("deleted", "active"))

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 4
    harness.every_step_repeated(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)


def test_rebuild(world: World) -> None:
    def begin() -> str:
        made = active(world)
        life.rebuild(world.caller("servers:rebuild"), made, world.image_id, {"name": "again"})
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert (row.vm_state, row.task_state, row.name) == (states.ACTIVE if well else states.ERROR, None, "again")
        assert (power(world, server_id) == "running") if well else row.fault["message"]
        assert held(world, server_id) == [1]

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 6
    harness.every_step_repeated(world.stage, begin, check)
    harness.every_call_refused(world.stage, begin, check, ("ensure_image", "ensure_power", "absent_disks", "ensure_server"))


def resized(world: World) -> str:
    made = active(world)
    life.resize(world.caller("servers:resize"), made, "2", None)
    return made


def test_resize_or_all_as_before(world: World) -> None:
    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert (row.vm_state, row.task_state) == (states.RESIZED if well else states.ACTIVE, None)
        assert held(world, server_id) == [2 if well else 1] and row.vcpus == (2 if well else 1)
        assert power(world, server_id) == "running"
        assert world.node.hypervisor._guests[server_id].spec.vcpus == row.vcpus
        assert (world.node.hypervisor._guests[server_id].backup is not None) == well
        assert well or row.fault["message"]

    assert harness.killed_at_every_boundary(world.stage, lambda: resized(world), check) >= 6
    harness.every_step_repeated(world.stage, lambda: resized(world), check)
    assert harness.every_step_failed(world.stage, lambda: resized(world), check) >= 6
    harness.every_call_refused(world.stage, lambda: resized(world), check, ("ensure_backup",))


@pytest.mark.parametrize(("method", "vcpus"), [("confirm_resize", 2), ("revert_resize", 1)])
def test_confirm_and_revert(world: World, method: str, vcpus: int) -> None:
    def begin() -> str:
        made = resized(world)
        harness.settle(world.stage)
        getattr(life, method)(world.caller(f"servers:{method}"), made)
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert (row.vm_state, row.task_state, row.vcpus, row.resized_from) == (states.ACTIVE, None, vcpus, None)
        assert held(world, server_id) == [vcpus]
        guest = world.node.hypervisor._guests[server_id]
        assert (guest.power, guest.spec.vcpus, guest.backup) == ("running", vcpus, None)

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 3
    harness.every_step_repeated(world.stage, begin, check)


def test_rescue_and_back(world: World) -> None:
    def begin() -> str:
        made = active(world)
        life.rescue(world.caller("os-rescue"), made, None)
        return made

    def check(server_id: str, well: bool) -> None:
        row = world.row(server_id)
        assert (row.vm_state, row.task_state) == (states.RESCUED if well else states.ACTIVE, None)
        guest = world.node.hypervisor._guests[server_id]
        assert guest.power == "running" and (guest.spec.rescue is not None) == well == (row.rescued_with is not None)

    assert harness.killed_at_every_boundary(world.stage, begin, check) >= 6
    harness.every_step_failed(world.stage, begin, check)
    made = begin()
    harness.settle(world.stage)
    world.act("unrescue", made)
    harness.settle(world.stage)
    assert world.row(made).vm_state == states.ACTIVE and world.node.hypervisor._guests[made].spec.rescue is None


def test_interfaces(world: World) -> None:
    def ports(server_id: str) -> list[network.Port]:
        with world.cloud.db.read() as conn:
            return network.ports_of(conn, [server_id])[server_id]

    def begin() -> str:
        made = active(world)
        life.attach(world.caller("os-attach-interfaces:create"), made, None)
        return made

    def check(server_id: str, well: bool) -> None:
        assert len(ports(server_id)) == (2 if well else 1)
        assert set(world.node.hypervisor._guests[server_id].ports) == {port.mac_address for port in ports(server_id)}

    harness.killed_at_every_boundary(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)
    harness.every_call_refused(world.stage, begin, check, ("ensure_interface",))
    made = begin()
    harness.settle(world.stage)
    life.detach(world.caller("os-attach-interfaces:delete"), made, ports(made)[1].id)
    harness.settle(world.stage)
    check(made, False)
