"""Servers through openstacksdk and plain HTTP, on a fake host behind the real node API."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import openstack
import pytest
import sqlalchemy as sa

from fake_node import FakeNode, until

SERVERS = "/compute/v2.1/servers"


@pytest.fixture(scope="module")
def make(admin: Any, image: Any, flavor: Any, node: FakeNode) -> Iterator[Callable[..., Any]]:
    made: list[str] = []

    def make(**values: Any) -> Any:
        server = admin.compute.create_server(**{"name": "one", "image_id": image.id, "flavor_id": flavor.id, "networks": "none", **values})
        made.append(server.id)
        until(lambda: admin.compute.get_server(server.id).status != "BUILD")
        return admin.compute.get_server(server.id)

    yield make
    for server_id in made:
        admin.compute.delete_server(server_id, ignore_missing=True)


@pytest.fixture(scope="module")
def server(make: Callable[..., Any]) -> Any:
    found = make(name="First one", metadata={"a": "b"}, description="said", tags=["blue"], user_data=base64.b64encode(b"hello").decode())
    assert found.status == "ACTIVE", found.fault
    return found


def at(running: Any, version: str, user: str = "admin") -> Any:
    return running.http(user, **{"openstack-api-version": f"compute {version}"})


def test_what_a_server_shows(server: Any, node: FakeNode) -> None:
    assert node.hypervisor.servers()[server.id].power == "running"
    assert (server.vm_state, server.task_state, server.power_state) == ("active", None, 1)
    assert (server.compute_host, server.hypervisor_hostname, server.instance_name) == ("nacre-1", "nacre-1", "instance-00000001")
    assert (server.hostname, server.availability_zone, server.description, server.tags) == ("first-one", "nova", "said", ["blue"])
    assert server.flavor.original_name == "m1.nano" and server.metadata == {"a": "b"} and server.host_status == "UP"


def test_each_addition_came_with_its_microversion(running: Any, server: Any) -> None:
    came = {"OS-EXT-SRV-ATTR:hostname": 3, "locked": 9, "host_status": 16, "description": 19, "tags": 26, "trusted_image_certificates": 63,
            "server_groups": 71, "locked_reason": 73, "pinned_availability_zone": 96}  # fmt: skip
    for name, minor in came.items():
        before, since = (at(running, f"2.{n}").get(f"{SERVERS}/{server.id}").json()["server"] for n in (minor - 1, minor))
        assert name not in before and name in since, name
    assert "links" in at(running, "2.46").get(f"{SERVERS}/{server.id}").json()["server"]["flavor"]
    assert at(running, "2.47").get(f"{SERVERS}/{server.id}").json()["server"]["flavor"]["original_name"] == "m1.nano"
    answer = at(running, "2.50").get(f"{SERVERS}/{server.id}")
    assert answer.headers["openstack-api-version"] == "compute 2.50" and answer.headers["x-openstack-nova-api-version"] == "2.50"
    assert at(running, "2.97").get(SERVERS).status_code == 406
    assert running.http("admin").get(SERVERS).headers["x-openstack-nova-api-version"] == "2.1"


def test_a_member_sees_no_host(running: Any, server: Any) -> None:
    demo = at(running, "2.96", "demo")
    assert demo.get(f"{SERVERS}/{server.id}").status_code == 404
    assert demo.get(f"{SERVERS}?all_tenants=1").status_code == 403
    refused = demo.get("/compute/v2.1/os-services")
    assert refused.status_code == 403 and "os_compute_api:os-services:list" in refused.json()["forbidden"]["message"]
    assert demo.get(SERVERS).json() == {"servers": []}
    assert not [name for name in at(running, "2.96").get(f"{SERVERS}/detail").json()["servers"][0] if name == "server_groups"]


@pytest.mark.parametrize(("change", "says"), [
    ({"flavorRef": "no-such"}, "Flavor no-such could not be found."),
    ({"imageRef": "11111111-1111-4111-8111-111111111111"}, "could not be found"),
    ({"imageRef": "x"}, "not a 'uuid'"), ({"key_name": "none"}, "Invalid key_name provided."), ({"name": ""}, "name"),
    ({"availability_zone": "mars"}, "The requested availability zone is not available"), ({"min_count": 3, "max_count": 2}, "min_count"),
    ({"user_data": "***"}, "user_data"), ({"colour": "red"}, "colour"), ({"tags": ["a,b"]}, "tags"), ({"networks": "many"}, "networks"),
    ({"block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume", "uuid": "x"}]}, "not offered")])  # fmt: skip
def test_what_cannot_be_made(running: Any, image: Any, flavor: Any, change: dict[str, Any], says: str) -> None:
    body = {"server": {"name": "x", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none", **change}}
    answer = at(running, "2.96").post(SERVERS, json=body)
    assert answer.status_code == 400 and says in answer.json()["badRequest"]["message"], answer.text


def test_fields_that_a_microversion_has_not(running: Any, image: Any, flavor: Any) -> None:
    base = {"name": "x", "flavorRef": flavor.id, "imageRef": image.id}
    for version, extra in (("2.18", {"description": "d"}), ("2.51", {"tags": ["a"]}), ("2.57", {"personality": [], "networks": "none"}),
                           ("2.36", {"networks": "none"}), ("2.37", {}), ("2.89", {"hostname": "h", "networks": "none"})):  # fmt: skip
        assert at(running, version).post(SERVERS, json={"server": {**base, **extra}}).status_code == 400, version


def test_what_a_change_answers(running: Any, server: Any, image: Any) -> None:
    """Until 2.74 little, since 2.75 as much as a read; the server's groups since 2.71."""
    for version, more, less in (("2.70", set(), {"server_groups", "OS-EXT-STS:vm_state", "config_drive"}),
                                ("2.71", {"server_groups"}, {"host_status"}),
                                ("2.75", {"server_groups", "OS-EXT-STS:vm_state", "config_drive", "host_status"}, set())):  # fmt: skip
        shown = at(running, version).put(f"{SERVERS}/{server.id}", json={"server": {"name": "First one"}}).json()["server"]
        assert more <= shown.keys() and not less & shown.keys()
    for version, data, name in (("2.53", False, False), ("2.54", False, True), ("2.57", True, True), ("2.75", True, True)):
        rebuilt = at(running, version).post(f"{SERVERS}/{server.id}/action", json={"rebuild": {"imageRef": image.id}}).json()["server"]
        assert ("user_data" in rebuilt, "key_name" in rebuilt) == (data, name) and "OS-EXT-SRV-ATTR:user_data" not in rebuilt
        assert not data or rebuilt["user_data"] == base64.b64encode(b"hello").decode()
        until(lambda: at(running, "2.96").get(f"{SERVERS}/{server.id}").json()["server"]["status"] == "ACTIVE")


def test_start_stop_reboot_pause(server: Any, admin: Any, node: FakeNode, running: Any) -> None:
    def status() -> str:
        return str(admin.compute.get_server(server.id).status)

    for verb, after, power in ((admin.compute.stop_server, "SHUTOFF", "shutdown"), (admin.compute.start_server, "ACTIVE", "running"),
                               (admin.compute.pause_server, "PAUSED", "paused"), (admin.compute.unpause_server, "ACTIVE", "running")):  # fmt: skip
        verb(server.id)
        until(lambda after=after: status() == after)  # type: ignore[misc]
        assert node.hypervisor.servers()[server.id].power == power
    with pytest.raises(openstack.exceptions.ConflictException, match=r"Cannot 'start' instance .* while it is in vm_state active"):
        admin.compute.start_server(server.id)
    for kind in ("SOFT", "HARD"):
        before = node.hypervisor.incarnation(server.id)
        admin.compute.reboot_server(server.id, kind)
        until(lambda: status() == "ACTIVE")
        assert node.hypervisor.incarnation(server.id) != before
    actions = [action.action for action in admin.compute.server_actions(server.id)]
    assert actions[:3] == ["reboot", "reboot", "unpause"] and actions[-1] == "create"
    created = next(action for action in admin.compute.server_actions(server.id) if action.action == "create")
    events = admin.compute.get_server_action(created.request_id, server.id).events
    assert [event.event for event in events] == ["compute__do_build_and_run_instance"]
    assert {event.result for event in events} == {"Success"}
    assert "start" in admin.compute.get_server_console_output(server.id)["output"]


def test_a_guest_changed_behind_our_back(server: Any, admin: Any, node: FakeNode) -> None:
    node.hypervisor.turn_off(server.id)
    until(lambda: admin.compute.get_server(server.id).status == "SHUTOFF")
    with node.hypervisor._lock:
        node.hypervisor._move(node.hypervisor._guests[server.id], "running")
    until(lambda: admin.compute.get_server(server.id).status == "ACTIVE")
    assert admin.compute.get_server(server.id).power_state == 1


def test_lock(server: Any, admin: Any, running: Any) -> None:
    admin.compute.lock_server(server.id, locked_reason="mine")
    found = admin.compute.get_server(server.id)
    assert (found.is_locked, at(running, "2.96").get(f"{SERVERS}/{server.id}").json()["server"]["locked_reason"]) == (True, "mine")
    assert [s.id for s in admin.compute.servers(locked=True)] == [server.id]
    admin.compute.unlock_server(server.id)
    assert not admin.compute.get_server(server.id).is_locked


def test_metadata_and_tags(server: Any, admin: Any, running: Any) -> None:
    admin.compute.set_server_metadata(server.id, c="d")
    assert admin.compute.get_server(server.id).metadata == {"a": "b", "c": "d"}
    admin.compute.delete_server_metadata(server.id, ["c"])
    http = at(running, "2.96")
    assert http.get(f"{SERVERS}/{server.id}/metadata/c").status_code == 404
    assert http.put(f"{SERVERS}/{server.id}/metadata/x", json={"meta": {"y": "z"}}).status_code == 400
    assert http.put(f"{SERVERS}/{server.id}/tags/green").status_code == 201
    assert http.put(f"{SERVERS}/{server.id}/tags/green").status_code == 204
    for query, count in (("tags=blue,green", 1), ("tags=blue,red", 0), ("tags-any=red,green", 1), ("not-tags=blue", 0)):
        assert len(http.get(f"{SERVERS}?{query}").json()["servers"]) == count, query
    assert http.delete(f"{SERVERS}/{server.id}/tags/green").status_code == 204
    assert http.delete(f"{SERVERS}/{server.id}/tags/green").status_code == 404


def test_update(server: Any, admin: Any, running: Any) -> None:
    found = admin.compute.update_server(server.id, name="Renamed", description=None)
    assert (found.name, found.description) == ("Renamed", None)
    old = at(running, "2.1").put(f"{SERVERS}/{server.id}", json={"server": {"name": "First one"}}).json()["server"]
    assert old["name"] == "First one" and "OS-EXT-STS:vm_state" not in old
    assert at(running, "2.90").put(f"{SERVERS}/{server.id}", json={"server": {"hostname": "not valid"}}).status_code == 400


def test_many_at_once_filters_and_pages(make: Callable[..., Any], admin: Any, running: Any, image: Any) -> None:
    make(name="herd", min_count=3, max_count=3)
    until(lambda: len([s for s in admin.compute.servers(name="herd") if s.status == "ACTIVE"]) == 3)
    http = at(running, "2.96")
    assert sorted(s["name"] for s in http.get(f"{SERVERS}?name=^herd").json()["servers"]) == ["herd-1", "herd-2", "herd-3"]
    first = http.get(f"{SERVERS}?limit=2&sort_key=display_name&sort_dir=asc&name=herd").json()
    assert [s["name"] for s in first["servers"]] == ["herd-1", "herd-2"]
    following = http.get(first["servers_links"][0]["href"]).json()
    assert [s["name"] for s in following["servers"]] == ["herd-3"] and "servers_links" not in following
    for query in ("status=nonsense", "name=[", "name=(a%2B)%2B$", "ip=(1*)*", "marker=nobody", "sort_key=nonsense", "colour=red", "limit=x",
                  "changes-since=yesterday"):  # fmt: skip
        assert http.get(f"{SERVERS}?{query}").status_code == 400, query
    assert at(running, "2.1").get(f"{SERVERS}?status=nonsense").json() == {"servers": []}
    for query in ("status=ACTIVE", f"image={image.id}", "flavor=42", "host=nacre-1", "vm_state=active", "power_state=1", "availability_zone=nova"):
        assert len(http.get(f"{SERVERS}?{query}&name=herd").json()["servers"]) == 3, query
    for query in ("status=SHUTOFF", "host=elsewhere", "deleted=true", "key_name=x", "ip=10"):
        assert http.get(f"{SERVERS}?{query}&name=herd").json()["servers"] == [], query
    for s in admin.compute.servers(name="herd"):
        admin.compute.delete_server(s.id)
    until(lambda: not list(admin.compute.servers(name="herd")))
    assert len(http.get(f"{SERVERS}/detail?deleted=true&name=herd").json()["servers"]) == 3
    gone = http.get(f"{SERVERS}/detail?changes-since=2020-01-01T00:00:00Z&name=herd").json()["servers"]
    assert {s["status"] for s in gone} == {"DELETED"}
    assert http.get(f"{SERVERS}/{gone[0]['id']}").status_code == 404
    assert http.get(f"{SERVERS}/{gone[0]['id']}/os-instance-actions").json()["instanceActions"][0]["action"] == "delete"


def test_quota_caps_servers(running: Any, admin: Any, image: Any, flavor: Any) -> None:
    project = admin.current_project_id
    http = at(running, "2.96")
    used = http.get(f"/compute/v2.1/os-quota-sets/{project}/detail").json()["quota_set"]["instances"]["in_use"]
    assert http.put(f"/compute/v2.1/os-quota-sets/{project}", json={"quota_set": {"instances": used, "force": True}}).status_code == 200
    body = {"server": {"name": "x", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none"}}
    refused = http.post(SERVERS, json=body)
    assert refused.status_code == 403
    assert refused.json()["forbidden"]["message"].startswith(f"Quota exceeded for instances: Requested 1, but already used {used} of {used}")
    assert http.delete(f"/compute/v2.1/os-quota-sets/{project}").status_code == 202
    assert http.get("/compute/v2.1/limits").json()["limits"]["absolute"]["maxTotalInstances"] == 10


def test_no_room_is_an_error_that_says_why(make: Callable[..., Any], admin: Any, running: Any, image: Any) -> None:
    huge = admin.compute.create_flavor(name="huge", ram=10**6, vcpus=1, disk=1)
    http = at(running, "2.96")
    http.put(f"/compute/v2.1/os-quota-sets/{admin.current_project_id}", json={"quota_set": {"ram": -1}})
    found = make(flavor_id=huge.id)
    assert found.status == "ERROR" and found.compute_host is None
    told = found.fault["message"]
    assert told.startswith("No valid host was found. ") and "nacre-1" in told and "MEMORY_MB" in told
    admin.compute.delete_server(found.id)
    until(lambda: http.get(f"{SERVERS}/{found.id}").status_code == 404)


def test_an_admin_password_is_said_once(running: Any, image: Any, flavor: Any, admin: Any) -> None:
    http = at(running, "2.96")
    body = {"name": "worded", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none"}
    made = http.post(SERVERS, json={"server": body}).json()["server"]
    address = f"{SERVERS}/{made['id']}"
    assert len(made["adminPass"]) >= 12 and set(made) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    until(lambda: http.get(address).json()["server"]["status"] == "ACTIVE")
    rebuilt = http.post(f"{address}/action", json={"rebuild": {"imageRef": image.id}}).json()["server"]["adminPass"]
    until(lambda: http.get(address).json()["server"]["status"] == "ACTIVE")
    rescued = http.post(f"{address}/action", json={"rescue": {"adminPass": "Chosen-Word"}})
    assert (rescued.status_code, rescued.json()) == (200, {"adminPass": "Chosen-Word"}) and rebuilt != made["adminPass"]
    until(lambda: http.get(address).json()["server"]["status"] == "RESCUE")
    dumped = "".join(str(row) for table in ("servers", "tasks", "journal", "node_calls", "task_steps") for row in dump(running, table))
    assert made["id"] in dumped
    assert not [word for word in (made["adminPass"], rebuilt, "Chosen-Word") if word in dumped + http.get(address).text]
    http.delete(address)
    until(lambda: http.get(address).status_code == 404)


def dump(running: Any, table: str) -> list[Any]:
    with running.cloud.db.read() as conn:
        return list(conn.execute(sa.text(f"SELECT * FROM {table}")))


def test_gone_actions(running: Any, server: Any) -> None:
    assert at(running, "2.96").post(f"{SERVERS}/{server.id}/action", json={"fly": None}).status_code == 400
    assert at(running, "2.6").post(f"{SERVERS}/{server.id}/action", json={"os-getVNCConsole": {"type": "novnc"}}).status_code == 404
    assert at(running, "2.5").post(f"{SERVERS}/{server.id}/action", json={"os-getVNCConsole": {"type": "novnc"}}).status_code == 200


def test_reset_state_abandons_what_is_being_done(server: Any, admin: Any) -> None:
    admin.compute.reset_server_state(server.id, "error")
    assert admin.compute.get_server(server.id).status == "ERROR"
    admin.compute.reset_server_state(server.id, "active")
    assert admin.compute.get_server(server.id).status == "ACTIVE"
