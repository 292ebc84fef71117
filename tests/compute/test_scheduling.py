"""A decision among a thousand hosts, as users and administrators see it: nothing is given twice, what changed a moment ago counts, groups
hold in a burst, and a refusal has every host's reason. The hosts are rows that report nothing; servers stay where they are placed."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from fake_node import until
from nacre import network, placement
from nacre.compute import loops, tables
from nacre.core import nodes
from nacre.core.caller import System

HOSTS, SERVERS = 1000, "/compute/v2.1/servers"
SEEN = {"vcpus": 4, "memory_mb": 4096, "disk_gb": 100, "cpu_arch": "x86_64", "hypervisor_type": "QEMU", "hypervisor_version": 7002000}
WHO = System("req-test")


@pytest.fixture(scope="module")
def hosts(running: Any) -> list[str]:
    """Their ids; each has 4 vCPUs for 4 servers."""
    options = running.cloud.config.DEFAULT
    offered = {**loops.inventories(SEEN, options), "VCPU": {"total": 4}}
    made = []
    with running.cloud.db.write(WHO) as tx:
        for number in range(HOSTS):
            name, host_id = f"host-{number:04}", str(uuid.uuid4())
            seen = {**SEEN, "hypervisor_hostname": name}
            tx.insert(nodes.hosts, name=name, id=host_id, seen=seen, agents={}, created_at=tx.now)
            tx.insert(tables.compute_hosts, host=name, service_id=str(uuid.uuid4()), disabled=False, forced_down=False, reported_at=tx.now,
                      reports=1, offered=loops.inventories(seen, options))  # fmt: skip
            placement.set_inventory(tx, host_id, name, offered)
            made.append(host_id)
    return made


@pytest.fixture
def alive(running: Any, hosts: list[str]) -> None:
    with running.cloud.db.write(WHO) as tx:
        nodes.heard_of(tx, [f"host-{number:04}" for number in range(HOSTS)])


@pytest.fixture(scope="module")
def admin(running: Any, hosts: list[str]) -> Iterator[httpx.Client]:
    with running.http(**{"openstack-api-version": "compute 2.90, placement 1.24"}) as client:
        project = running.connect().current_project_id
        client.put(f"/compute/v2.1/os-quota-sets/{project}", json={"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
        yield client


@pytest.fixture(scope="module")
def order(admin: httpx.Client) -> dict[str, Any]:
    """The body of a server with one vCPU."""
    image = admin.post("/image/v2/images", json={"name": "i", "disk_format": "raw", "container_format": "bare"}).json()["id"]
    assert admin.put(f"/image/v2/images/{image}/file", content=b"\0" * 512, headers={"content-type": "application/octet-stream"}).status_code == 204
    flavor = admin.post("/compute/v2.1/flavors", json={"flavor": {"name": "one", "ram": 64, "vcpus": 1, "disk": 1}}).json()["flavor"]["id"]
    return {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": "none"}


Make = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def make(running: Any, admin: httpx.Client, order: dict[str, Any], alive: None) -> Iterator[Make]:
    """Many servers asked for at once; as they are when each has a host or none."""
    made: list[str] = []

    def make(count: int, body: Mapping[str, Any] = MappingProxyType({}), **values: Any) -> list[dict[str, Any]]:
        mine: list[str] = []

        def ask() -> None:
            answer = admin.post(SERVERS, json={"server": {**order, **values}, **body})
            assert answer.status_code == 202, answer.text
            mine.append(answer.json()["server"]["id"])

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made.extend(mine)
        assert len(mine) == count
        until(lambda: all(decided(shown(admin, server_id)) for server_id in mine), 60, 0.2)
        return [shown(admin, server_id) for server_id in mine]

    yield make
    for server_id in made:
        admin.post(f"{SERVERS}/{server_id}/action", json={"forceDelete": None})
    with running.cloud.db.write(WHO) as tx:  # no host will say that the guest is gone
        for server_id in made:
            placement.release(tx, server_id)


def shown(admin: httpx.Client, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = admin.get(f"{SERVERS}/{server_id}").json()["server"]
    return found


def decided(server: dict[str, Any]) -> bool:
    return server["OS-EXT-SRV-ATTR:host"] is not None or server["status"] == "ERROR"


def host_of(server: dict[str, Any]) -> str:
    assert server["OS-EXT-SRV-ATTR:host"], server.get("fault")
    return str(server["OS-EXT-SRV-ATTR:host"])


@pytest.fixture
def full(running: Any, admin: httpx.Client, hosts: list[str]) -> Iterator[Callable[[list[str]], None]]:
    """Takes all vCPUs of hosts, until the test ends."""
    taken: list[str] = []

    def full(ids: list[str]) -> None:
        with running.cloud.db.write(WHO) as tx:
            for found in placement.candidates(tx, {"VCPU": 1}, ids):
                free = found.inventories["VCPU"].capacity - found.usages["VCPU"]
                taken.append(str(uuid.uuid4()))
                assert placement.claim(tx, taken[-1], found.provider_id, found.generation, {"VCPU": free}, project_id="p", user_id="u")

    yield full
    with running.cloud.db.write(WHO) as tx:
        for consumer in taken:
            placement.release(tx, consumer)


def used(admin: httpx.Client, host_id: str) -> int:
    return int(admin.get(f"/placement/resource_providers/{host_id}/usages").json()["usages"]["VCPU"])


def test_the_last_room_is_given_once(admin: httpx.Client, hosts: list[str], make: Make, full: Callable[[list[str]], None]) -> None:
    """24 servers at once for 24 places on six of a thousand hosts; then one more."""
    full(hosts[6:])
    servers = make(24)
    assert Counter(map(host_of, servers)) == {f"host-{number:04}": 4 for number in range(6)}
    assert [used(admin, host_id) for host_id in hosts[:6]] == [4] * 6
    (refused,) = make(1)
    assert refused["status"] == "ERROR"
    assert "VCPU: 1 requested, 0 of 4 free (ResourcesFilter)" in refused["fault"]["message"] and "and 980 more hosts" in refused["fault"]["message"]
    why = admin.get(f"{SERVERS}/{refused['id']}/explanation").json()["explanation"]
    assert len(why["decision"]["refused"]) + why["decision"]["more"] == HOSTS
    assert set(why["now"]["verdicts"]) == {f"host-{number:04}" for number in range(HOSTS)} and why["now"]["fits"] == 0


def test_what_changed_a_moment_ago_counts(admin: httpx.Client, hosts: list[str], make: Make, full: Callable[[list[str]], None]) -> None:
    full(hosts[1:])
    address = f"/placement/resource_providers/{hosts[0]}/inventories"
    before = admin.get(address).json()
    small = {**before, "inventories": {**before["inventories"], "VCPU": {**before["inventories"]["VCPU"], "reserved": 3}}}
    now = admin.put(address, json=small)
    assert now.status_code == 200, now.text
    assert {host_of(server) for server in make(1)} == {"host-0000"}
    (refused,) = make(1)
    assert "host-0000: VCPU: 1 requested, 0 of 1 free (ResourcesFilter)" in refused["fault"]["message"]
    generation = admin.get(address).json()["resource_provider_generation"]
    assert admin.put(address, json={**before, "resource_provider_generation": generation}).status_code == 200
    services = admin.get("/compute/v2.1/os-services?host=host-0000").json()["services"]
    assert admin.put(f"/compute/v2.1/os-services/{services[0]['id']}", json={"status": "disabled"}).status_code == 200
    (refused,) = make(1)
    assert "host-0000: its compute service is disabled (ComputeFilter)" in refused["fault"]["message"]
    assert admin.put(f"/compute/v2.1/os-services/{services[0]['id']}", json={"status": "enabled"}).status_code == 200
    assert {host_of(server) for server in make(1)} == {"host-0000"}


def test_a_host_by_name(admin: httpx.Client, hosts: list[str], make: Make, full: Callable[[list[str]], None]) -> None:
    assert {host_of(server) for server in make(3, availability_zone="nova:host-0700")} == {"host-0700"}
    full(hosts[700:701])
    (refused,) = make(1, availability_zone="nova:host-0700")
    assert refused["status"] == "ERROR" and "host host-0700 was asked for (ForcedHost)" in refused["fault"]["message"]
    why = admin.get(f"{SERVERS}/{refused['id']}/explanation").json()["explanation"]["decision"]["refused"]
    assert {one["host"]: one["filter"] for one in why}["host-0001"] == "ForcedHost"


def test_hosts_out_of_the_network_use_no_attempt_up(running: Any, admin: httpx.Client, hosts: list[str], make: Make,
                                                   full: Callable[[list[str]], None]) -> None:  # fmt: skip
    """Of ten hosts with room the network reaches the one that is tried last."""
    full(hosts[10:])
    net = admin.post("/network/v2.0/networks", json={"network": {"name": "n"}}).json()["network"]["id"]
    subnet = {"network_id": net, "ip_version": 4, "cidr": "10.8.0.0/24"}
    assert admin.post("/network/v2.0/subnets", json={"subnet": subnet}).status_code == 201
    (refused,) = make(1, networks=[{"uuid": net}])
    assert refused["status"] == "ERROR" and "host-0009" in refused["fault"]["message"] and "(PortBinding)" in refused["fault"]["message"]
    with running.cloud.db.write(WHO) as tx:
        network.reported(tx, "host-0009", {"address": "192.0.2.9", "agents": {"openvswitch": True}})
    assert {host_of(server) for server in make(1, networks=[{"uuid": net}])} == {"host-0009"}


@pytest.mark.parametrize("policy", ["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"])
def test_a_group_in_a_burst(admin: httpx.Client, hosts: list[str], make: Make, full: Callable[[list[str]], None], policy: str) -> None:
    """Its members want the same four hosts."""
    full(hosts[4:])
    group = admin.post("/compute/v2.1/os-server-groups", json={"server_group": {"name": "g", "policy": policy}}).json()["server_group"]["id"]
    hints = {"os:scheduler_hints": {"group": group}}
    placed = Counter(host_of(server) for server in make(4, hints))
    assert len(placed) == (1 if policy.endswith("soft-affinity") or policy == "affinity" else 4), placed


def test_servers_spread(make: Make) -> None:
    """By chance among the emptiest: 40 servers hardly meet on a thousand hosts."""
    placed = Counter(host_of(server) for server in make(40))
    assert len(placed) >= 30, placed
