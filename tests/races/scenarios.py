"""Many writers at once: limits hold, nothing is given twice, who loses is told so in upstream's words, nothing fails.

Collected by the modules that say what `cloud` is: threads in one process (test_threads), two api processes on one PostgreSQL
(services/test_races). It has `clients` that are signed in as administrator, their `project`, and `at_once`.
"""

import ipaddress
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fake_node import FakeNode, until
from nacre.core import ids
from services.processes import HEADERS, addresses, made, servers

Cloud = Any
WRITERS = 24
Ask = Callable[[httpx.Client, int], httpx.Response]


def statuses(cloud: Cloud, ask: Ask, number: int = WRITERS) -> Counter[int]:
    """How the answers to callers that began together were; none may be a 5xx."""
    answers = cloud.at_once(number, ask)
    bad = [answer.text for answer in answers if answer.status_code >= 500]
    assert not bad, bad[:3]
    return Counter(answer.status_code for answer in answers)


def external(cloud: Cloud, cidr: str, **subnet: Any) -> tuple[str, str]:
    """An external network of its own segment and its subnet."""
    client = cloud.clients[0]
    body = {"name": cidr, "router:external": True, "provider:network_type": "vxlan"}
    network_id = made(client.post("/network/v2.0/networks", json={"network": body}), "network")["id"]
    body = {"network_id": network_id, "cidr": cidr, "ip_version": 4, "enable_dhcp": False, **subnet}
    return network_id, made(client.post("/network/v2.0/subnets", json={"subnet": body}), "subnet")["id"]


def inside(cloud: Cloud, cidr: str, **wanted: Any) -> tuple[str, str]:
    client = cloud.clients[0]
    network_id = made(client.post("/network/v2.0/networks", json={"network": {"name": cidr, **wanted}}), "network")["id"]
    body = {"network_id": network_id, "cidr": cidr, "ip_version": 4}
    return network_id, made(client.post("/network/v2.0/subnets", json={"subnet": body}), "subnet")["id"]


def router(cloud: Cloud, **wanted: Any) -> str:
    return str(made(cloud.clients[0].post("/network/v2.0/routers", json={"router": {"name": "r", **wanted}}), "router")["id"])


def listed(cloud: Cloud, path: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(iter(cloud.clients[1].get(f"/network/v2.0/{path}", params=params).json().values()))
    return found


def limit(cloud: Cloud, project: str, **limits: int) -> None:
    assert cloud.clients[0].put(f"/network/v2.0/quotas/{project}", json={"quota": limits}).status_code == 200


@pytest.mark.parametrize(("path", "kind", "quota"), [("routers", "router", "router"), ("networks", "network", "network"),
                                                     ("security-groups", "security_group", "security_group")])  # fmt: skip
def test_no_quota_is_passed(cloud: Cloud, path: str, kind: str, quota: str) -> None:
    project = ids.hex_id()
    limit(cloud, project, **{quota: 5})
    body = {kind: {"name": "x", "project_id": project}}
    answers = statuses(cloud, lambda client, n: client.post(f"/network/v2.0/{path}", json=body))
    own = 4 if kind == "security_group" else 5  # the project's default group is one of them
    assert answers == {201: own, 409: WRITERS - own}
    assert len(listed(cloud, path, project_id=project)) == 5


def test_one_default_network(cloud: Cloud) -> None:
    client, at = cloud.clients[0], "/network/v2.0/networks"

    def make(client: httpx.Client, n: int) -> httpx.Response:
        body = {"name": "default", "router:external": True, "provider:network_type": "vxlan", "is_default": True}
        return client.post(at, json={"network": body})

    assert statuses(cloud, make) == {201: 1, 409: WRITERS - 1}
    first = listed(cloud, "networks", is_default=True)
    assert len(first) == 1
    others = [external(cloud, f"198.51.{110 + n}.0/24")[0] for n in range(2)]
    assert client.put(f"{at}/{first[0]['id']}", json={"network": {"is_default": False}}).status_code == 200

    def become(client: httpx.Client, n: int) -> httpx.Response:
        return client.put(f"{at}/{others[n % 2]}", json={"network": {"is_default": True}})

    answers = cloud.at_once(WRITERS, become)
    winners = {answer.json()["network"]["id"] for answer in answers if answer.status_code == 200}
    lost = [answer.json()["NeutronError"] for answer in answers if answer.status_code != 200]
    (winner,) = winners
    assert [one["id"] for one in listed(cloud, "networks", is_default=True)] == [winner]
    assert {(one["type"], one["message"]) for one in lost} == {
        ("DefaultExternalNetworkExists", f"A default external network already exists: {winner}.")}  # fmt: skip
    assert not client.put(f"{at}/{winner}", json={"network": {"router:external": False}}).json()["network"]["is_default"]
    assert listed(cloud, "networks", is_default=True) == []


def test_one_default_pool_of_each_family(cloud: Cloud) -> None:
    def make(client: httpx.Client, n: int) -> httpx.Response:
        prefix = ("10.37.0.0/16", "fd37::/48")[n % 2]
        return client.post("/network/v2.0/subnetpools", json={"subnetpool": {"name": "p", "prefixes": [prefix], "is_default": True}})

    assert statuses(cloud, make) == {201: 2, 400: WRITERS - 2}
    made = listed(cloud, "subnetpools", is_default=True)
    assert sorted(one["ip_version"] for one in made) == [4, 6]
    for one in made:
        assert cloud.clients[0].delete(f"/network/v2.0/subnetpools/{one['id']}").status_code == 204


def test_floating_ips_of_a_small_pool(cloud: Cloud) -> None:
    network_id, _ = external(cloud, "198.51.100.0/28")

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        return client.post("/network/v2.0/floatingips", json={"floatingip": {"floating_network_id": network_id, "project_id": ids.hex_id()}})

    assert statuses(cloud, ask) == {201: 13, 409: WRITERS - 13}
    found = listed(cloud, "floatingips", floating_network_id=network_id)
    given = {one["floating_ip_address"] for one in found}
    assert len(given) == len(found) == 13 and {ipaddress.ip_address(one) for one in given} < set(ipaddress.ip_network("198.51.100.0/28").hosts())


def test_ports_of_a_small_pool(cloud: Cloud) -> None:
    network_id, _ = inside(cloud, "10.30.0.0/28", shared=True)

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        return client.post("/network/v2.0/ports", json={"port": {"network_id": network_id, "project_id": ids.hex_id()}})

    assert statuses(cloud, ask) == {201: 12, 409: WRITERS - 12}  # the gateway and the DHCP server have one each
    given = addresses(cloud, network_id)
    assert len(given) == len(set(given)) == 13


def test_fifty_creates_and_a_quota_of_ten(cloud: Cloud, order: dict[str, Any], node: FakeNode) -> None:
    client, path = cloud.clients[0], f"/compute/v2.1/os-quota-sets/{cloud.project}"
    assert client.put(path, json={"quota_set": {"instances": 10, "cores": -1, "ram": -1}}).status_code == 200
    answers = statuses(cloud, lambda client, n: client.post("/compute/v2.1/servers", json=order, headers=HEADERS), 50)
    assert answers == {202: 10, 403: 40}
    until(lambda: {server["status"] for server in servers(cloud)} == {"ACTIVE"}, 60, 0.1)
    assert len(servers(cloud)) == len(node.hypervisor.servers()) == 10
    settle(cloud)


def test_the_floating_ip_quota(cloud: Cloud) -> None:
    network_id, _ = external(cloud, "198.51.101.0/24")
    project = ids.hex_id()
    limit(cloud, project, floatingip=5)
    body = {"floatingip": {"floating_network_id": network_id, "project_id": project}}
    assert statuses(cloud, lambda client, n: client.post("/network/v2.0/floatingips", json=body)) == {201: 5, 409: WRITERS - 5}
    assert len(addresses(cloud, network_id)) == 5


def test_security_group_rules(cloud: Cloud) -> None:
    group = made(cloud.clients[0].post("/network/v2.0/security-groups", json={"security_group": {"name": "g"}}), "security_group")["id"]

    def rule(port: int) -> dict[str, Any]:
        return {"security_group_rule": {"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": port,
                                        "port_range_max": port}}  # fmt: skip

    assert statuses(cloud, lambda client, n: client.post("/network/v2.0/security-group-rules", json=rule(80))) == {201: 1, 409: WRITERS - 1}
    project = ids.hex_id()
    other = made(cloud.clients[0].post("/network/v2.0/security-groups", json={"security_group": {"name": "g", "project_id": project}}),
                 "security_group")["id"]  # fmt: skip
    have = len(listed(cloud, "security-group-rules", project_id=project))
    limit(cloud, project, security_group_rule=have + 5)

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        body = rule(1000 + n)
        body["security_group_rule"]["security_group_id"] = other
        return client.post("/network/v2.0/security-group-rules", json=body)

    assert statuses(cloud, ask) == {201: 5, 409: WRITERS - 5}
    assert len(listed(cloud, "security-group-rules", project_id=project)) == have + 5


def test_keypairs(cloud: Cloud) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJpWmEGFRdk0xBo0h2eq3oD8Hw3V3f0YV1sKcVmGm4nD x"

    def ask(name: str) -> Ask:
        return lambda client, n: client.post("/compute/v2.1/os-keypairs", json={"keypair": {"name": name.format(n), "public_key": key}})

    assert statuses(cloud, ask("same")) == {200: 1, 409: WRITERS - 1}
    assert cloud.clients[0].put(f"/compute/v2.1/os-quota-sets/{cloud.project}", json={"quota_set": {"key_pairs": 6}}).status_code == 200
    assert statuses(cloud, ask("key{}")) == {200: 5, 403: WRITERS - 5}
    assert len(cloud.clients[0].get("/compute/v2.1/os-keypairs").json()["keypairs"]) == 6


def test_one_gateway_and_one_leg(cloud: Cloud) -> None:
    (outer, _), (_, leg) = external(cloud, "198.51.102.0/24"), inside(cloud, "10.31.0.0/24")
    router_id = router(cloud)
    gateway = {"router": {"external_gateway_info": {"network_id": outer}}}
    assert statuses(cloud, lambda client, n: client.put(f"/network/v2.0/routers/{router_id}", json=gateway)) == {200: WRITERS}
    assert len(listed(cloud, "ports", device_id=router_id, device_owner="network:router_gateway")) == 1
    answers = statuses(cloud, lambda client, n: client.put(f"/network/v2.0/routers/{router_id}/add_router_interface", json={"subnet_id": leg}))
    assert answers[200] == 1 and set(answers) <= {200, 400, 409}, answers
    assert len(listed(cloud, "ports", device_id=router_id, device_owner="network:router_interface")) == 1
    answers = statuses(cloud, lambda client, n: client.put(f"/network/v2.0/routers/{router_id}/remove_router_interface", json={"subnet_id": leg}))
    assert answers == {200: 1, 404: WRITERS - 1}


def test_subnets_that_overlap(cloud: Cloud) -> None:
    network_id = made(cloud.clients[0].post("/network/v2.0/networks", json={"network": {"name": "overlap"}}), "network")["id"]

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        body = {"network_id": network_id, "cidr": f"10.32.{n % 4}.0/{(22, 24)[n % 2]}", "ip_version": 4, "project_id": ids.hex_id()}
        return client.post("/network/v2.0/subnets", json={"subnet": body})

    statuses(cloud, ask)
    ranges = [ipaddress.ip_network(one["cidr"]) for one in listed(cloud, "subnets", network_id=network_id)]
    assert ranges and not any(one.overlaps(other) for one in ranges for other in ranges if one is not other), ranges
    assert len(listed(cloud, "ports", network_id=network_id, device_owner="network:dhcp")) == 1


def test_subnets_cut_from_one_pool(cloud: Cloud) -> None:
    body = {"name": "p", "prefixes": ["10.40.0.0/27"], "default_prefixlen": 30, "shared": True}
    pool = made(cloud.clients[0].post("/network/v2.0/subnetpools", json={"subnetpool": body}), "subnetpool")["id"]
    nets = [made(cloud.clients[0].post("/network/v2.0/networks", json={"network": {"name": "cut"}}), "network")["id"] for _ in range(12)]

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        one = {"network_id": nets[n], "ip_version": 4, "subnetpool_id": pool, "project_id": ids.hex_id(), "enable_dhcp": False}
        return client.post("/network/v2.0/subnets", json={"subnet": one})

    answers = statuses(cloud, ask, 12)
    cut = [ipaddress.ip_network(one["cidr"]) for one in listed(cloud, "subnets", subnetpool_id=pool)]
    assert answers[201] == len(cut) == len(set(cut)) == 8, answers


def test_a_floating_ip_leads_to_one_port(cloud: Cloud) -> None:
    (outer, _), (network_id, leg) = external(cloud, "198.51.103.0/24"), inside(cloud, "10.33.0.0/24")
    client = cloud.clients[0]
    router_id = router(cloud, external_gateway_info={"network_id": outer})
    made(client.put(f"/network/v2.0/routers/{router_id}/add_router_interface", json={"subnet_id": leg}), "id")
    ports = [made(client.post("/network/v2.0/ports", json={"port": {"network_id": network_id}}), "port")["id"] for _ in range(2)]
    floating = [made(client.post("/network/v2.0/floatingips", json={"floatingip": {"floating_network_id": outer}}), "floatingip")["id"]
                for _ in range(2)]  # fmt: skip

    def lead(client: httpx.Client, floating_id: str, port_id: str | None) -> httpx.Response:
        return client.put(f"/network/v2.0/floatingips/{floating_id}", json={"floatingip": {"port_id": port_id}})

    assert statuses(cloud, lambda client, n: lead(client, floating[0], ports[n // 2 % 2])) == {200: WRITERS}
    lead(client, floating[0], None)
    answers = statuses(cloud, lambda client, n: lead(client, floating[n // 2 % 2], ports[0]))
    assert set(answers) == {200, 409} and len(listed(cloud, "floatingips", port_id=ports[0])) == 1

    def mixed(client: httpx.Client, n: int) -> httpx.Response:
        if n == 0:
            return client.delete(f"/network/v2.0/ports/{ports[1]}")
        if n == 1:
            return client.put(f"/network/v2.0/routers/{router_id}/remove_router_interface", json={"subnet_id": leg})
        return lead(client, floating[n // 2 % 2], ports[1] if n % 4 else None)

    statuses(cloud, mixed)
    left = listed(cloud, "floatingips", floating_network_id=outer)
    assert all(one["port_id"] in (None, ports[0]) for one in left), left
    legs = listed(cloud, "ports", device_id=router_id, device_owner="network:router_interface")
    assert all((one["router_id"] == router_id) == (one["port_id"] is not None) for one in left) and (legs or not any(one["port_id"] for one in left))


def test_one_port_for_two_servers(cloud: Cloud, order: dict[str, Any]) -> None:
    network_id, _ = inside(cloud, "10.34.0.0/24")
    port_id = made(cloud.clients[0].post("/network/v2.0/ports", json={"port": {"network_id": network_id}}), "port")["id"]
    body = {"server": {**order["server"], "networks": [{"port": port_id}]}}
    answers = statuses(cloud, lambda client, n: client.post("/compute/v2.1/servers", json=body, headers=HEADERS), 8)
    assert answers == {202: 1, 409: 7}
    settle(cloud)


def settle(cloud: Cloud) -> None:
    """No server is being worked on; then all go."""
    until(lambda: all(server["OS-EXT-STS:task_state"] is None for server in servers(cloud)), 60, 0.1)
    for server in servers(cloud):
        assert cloud.clients[0].delete(f"/compute/v2.1/servers/{server['id']}").status_code == 204
    until(lambda: not servers(cloud), 60, 0.1)


def test_a_network_goes_while_ports_come(cloud: Cloud) -> None:
    for turn in range(4):
        network_id, _ = inside(cloud, "10.35.0.0/24", shared=True)

        def ask(client: httpx.Client, n: int, network_id: str = network_id) -> httpx.Response:
            if n in (5, 6):
                return client.delete(f"/network/v2.0/networks/{network_id}")
            return client.post("/network/v2.0/ports", json={"port": {"network_id": network_id, "project_id": ids.hex_id()}})

        answers = statuses(cloud, ask, 12)
        ports = listed(cloud, "ports", network_id=network_id)
        if cloud.clients[0].get(f"/network/v2.0/networks/{network_id}").status_code == 404:
            assert answers[204] == 1 and not ports, turn
        else:
            assert answers[204] == 0 and answers[201] == len(ports) - 1, (answers, ports)


def test_two_deletes_and_a_stop_of_one_server(cloud: Cloud, order: dict[str, Any], node: FakeNode) -> None:
    client = cloud.clients[0]
    server_id = made(client.post("/compute/v2.1/servers", json=order, headers=HEADERS), "server")["id"]
    until(lambda: servers(cloud)[0]["status"] == "ACTIVE", 60, 0.1)

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        if n % 3 == 0:
            return client.post(f"/compute/v2.1/servers/{server_id}/action", json={"os-stop": None})
        return client.delete(f"/compute/v2.1/servers/{server_id}")

    answers = cloud.at_once(12, ask)
    assert {answer.status_code for answer in answers[::3]} <= {202, 404, 409}
    assert {answer.status_code for n, answer in enumerate(answers) if n % 3} <= {204, 404}
    lost = [answer.json()["conflictingRequest"]["message"] for answer in answers[::3] if answer.status_code == 409]
    assert all(f"Cannot 'stop' instance {server_id} while it is in " in told for told in lost), lost
    until(lambda: not servers(cloud), 60, 0.1)
    assert not node.hypervisor.servers()


def test_a_storm(cloud: Cloud) -> None:
    """Everything of the network at once, each writer by its own dice, on few shared things: no 5xx, no circle, and no row left over."""
    (outer, _), nets = external(cloud, "198.51.104.0/24"), [inside(cloud, f"10.36.{n}.0/24", shared=True) for n in range(3)]
    client = cloud.clients[0]
    routers = [router(cloud) for _ in range(2)]
    groups = [made(client.post("/network/v2.0/security-groups", json={"security_group": {"name": f"g{n}"}}), "security_group")["id"]
              for n in range(3)]  # fmt: skip
    floating = [made(client.post("/network/v2.0/floatingips", json={"floatingip": {"floating_network_id": outer}}), "floatingip")["id"]
                for _ in range(3)]  # fmt: skip

    def port(client: httpx.Client, dice: random.Random) -> httpx.Response:
        mine = listed_by(client, "ports", name="storm")
        kind = dice.randrange(4)
        if kind == 0 or not mine:
            body = {"network_id": dice.choice(nets)[0], "name": "storm", "security_groups": dice.sample(groups, 2)}
            return client.post("/network/v2.0/ports", json={"port": body})
        one = f"/network/v2.0/ports/{dice.choice(mine)['id']}"
        if kind == 1:
            return client.delete(one)
        if kind == 2:
            return client.put(one, json={"port": {"security_groups": dice.sample(groups, dice.randrange(3)), "binding:host_id": "nacre-1"}})
        to = dice.choice([None, dice.choice(mine)["id"]])
        return client.put(f"/network/v2.0/floatingips/{dice.choice(floating)}", json={"floatingip": {"port_id": to}})

    def route(client: httpx.Client, dice: random.Random) -> httpx.Response:
        one = f"/network/v2.0/routers/{dice.choice(routers)}"
        way = dice.choice(["add", "remove", "gateway"])
        if way == "gateway":
            return client.put(one, json={"router": {"external_gateway_info": dice.choice([{}, {"network_id": outer}])}})
        return client.put(f"{one}/{way}_router_interface", json={"subnet_id": dice.choice(nets)[1]})

    def secure(client: httpx.Client, dice: random.Random) -> httpx.Response:
        if dice.randrange(3):
            body = {"security_group_id": dice.choice(groups), "direction": "ingress", "remote_group_id": dice.choice(groups), "ethertype": "IPv4"}
            return client.post("/network/v2.0/security-group-rules", json={"security_group_rule": body})
        mine = [rule for rule in listed_by(client, "security-group-rules") if rule["remote_group_id"] and rule["security_group_id"] in groups]
        return client.delete(f"/network/v2.0/security-group-rules/{dice.choice(mine)['id'] if mine else ids.uuid()}")

    def write(client: httpx.Client, n: int) -> Counter[int]:
        dice = random.Random(n)
        return Counter(dice.choice([port, port, route, secure])(client, dice).status_code for _ in range(12))

    total = sum(cloud.at_once(12, write), Counter[int]())
    assert set(total) <= {200, 201, 204, 400, 404, 409}, total


def listed_by(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(iter(client.get(f"/network/v2.0/{path}", params=params).json().values()))
    return found
