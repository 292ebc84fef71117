"""Several api and worker processes on one PostgreSQL: what they may only do once is done once, whoever is asked, and they wake each other."""

import ipaddress
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from fake_node import FakeNode, until
from nacre import program
from nacre.core import ids
from services.process import config
from services.processes import HEADERS, Processes, addresses, network, servers

pytestmark = pytest.mark.services
WRITERS = 24


def test_the_port_quota_is_never_passed(cloud: Processes) -> None:
    network_id, project = network(cloud, "10.21.0.0/24"), ids.hex_id()
    client = cloud.clients[0]
    assert client.put(f"/network/v2.0/quotas/{project}", json={"quota": {"port": 10}}).status_code == 200
    body = {"port": {"network_id": network_id, "project_id": project}}
    answers = cloud.at_once(WRITERS, lambda client, n: client.post("/network/v2.0/ports", json=body))
    assert Counter(answer.status_code for answer in answers) == {201: 10, 409: WRITERS - 10}
    assert {answer.json()["NeutronError"]["type"] for answer in answers if answer.status_code == 409} == {"OverQuota"}
    acknowledged = {answer.json()["port"]["id"] for answer in answers if answer.status_code == 201}
    listed = client.get("/network/v2.0/ports", params={"project_id": project}).json()["ports"]
    assert {port["id"] for port in listed} == acknowledged


def test_no_address_is_given_twice_and_none_is_lost(cloud: Processes) -> None:
    network_id = network(cloud, "10.22.0.0/27")
    free = 30 - 1  # the gateway

    def fill(client: httpx.Client, n: int) -> Counter[str]:
        seen, project = Counter[str](), ids.hex_id()  # a project of its own: no quota row makes them queue
        while True:
            answer = client.post("/network/v2.0/ports", json={"port": {"network_id": network_id, "project_id": project}})
            kind = "made" if answer.status_code == 201 else answer.json()["NeutronError"]["type"]
            seen[kind] += 1
            if kind not in ("made", "HTTPConflict"):
                return seen

    total = sum(cloud.at_once(WRITERS, fill), Counter[str]())
    given = addresses(cloud, network_id)
    assert len(given) == len(set(given)) == free == total["made"]
    assert total["IpAddressGenerationFailure"] == WRITERS and set(total) <= {"made", "HTTPConflict", "IpAddressGenerationFailure"}, total
    assert {ipaddress.ip_address(address) for address in given} < set(ipaddress.ip_network("10.22.0.0/27").hosts())


def test_one_address_asked_by_all_goes_to_one(cloud: Processes) -> None:
    network_id = network(cloud, "10.23.0.0/24")

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        port = {"network_id": network_id, "project_id": ids.hex_id(), "fixed_ips": [{"ip_address": "10.23.0.77"}]}
        return client.post("/network/v2.0/ports", json={"port": port})

    assert Counter(answer.status_code for answer in cloud.at_once(WRITERS, ask)) == {201: 1, 409: WRITERS - 1}
    assert addresses(cloud, network_id) == ["10.23.0.77"]


def test_the_instance_quota_is_never_passed_and_the_workers_share_the_rest(cloud: Processes, order: dict[str, Any], node: FakeNode) -> None:
    client = cloud.clients[0]
    assert client.put(f"/compute/v2.1/os-quota-sets/{cloud.project}", json={"quota_set": {"instances": 6}}).status_code == 200
    begun = time.monotonic()
    answers = cloud.at_once(WRITERS, lambda client, n: client.post("/compute/v2.1/servers", json=order, headers=HEADERS))
    assert Counter(answer.status_code for answer in answers) == {202: 6, 403: WRITERS - 6}
    acknowledged = {answer.json()["server"]["id"] for answer in answers if answer.status_code == 202}
    until(lambda: all(server["status"] != "BUILD" for server in servers(cloud)), 60, 0.1)
    took = time.monotonic() - begun
    assert {server["id"]: server["status"] for server in servers(cloud)} == dict.fromkeys(acknowledged, "ACTIVE")
    assert set(node.hypervisor.servers()) == acknowledged
    assert took < 20, "bells cross processes: without them the node would hear of a call when its feed ends, after 25 s"
    ran = cloud.cluster.sql("SELECT DISTINCT state FROM tasks WHERE kind = 'compute.create_server'", cloud.database)
    assert [row.state for row in ran] == ["done"]


def test_a_killed_worker_leaves_its_tasks_to_the_other(cloud: Processes, order: dict[str, Any], node: FakeNode) -> None:
    victim = cloud.running[3]
    for server in servers(cloud):
        assert cloud.clients[0].delete(f"/compute/v2.1/servers/{server['id']}").status_code == 204
    victim.kill()
    victim.wait(10)
    until(lambda: not servers(cloud), 60, 0.1)
    assert not node.hypervisor.servers()


def test_keys_are_rotated_while_both_apis_issue_and_check(cloud: Processes) -> None:
    """What one signs by a key that is seconds old, the other knows at once; the tokens from before go on."""
    first = cloud.clients[0]
    old, tokens = first.headers["x-auth-token"], "/identity/v3/auth/tokens"
    user = first.get(tokens, headers={"x-subject-token": old}).json()["token"]["user"]["id"]
    said = first.post(f"/identity/v3/users/{user}/application_credentials", json={"application_credential": {"name": "rotated"}}).json()
    robot = {name: said["application_credential"][name] for name in ("id", "secret")}
    body = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": robot}}}
    refused, issued, done = list[str](), Counter[int](), threading.Event()

    def work(number: int) -> None:
        here, there = cloud.clients[number % 2], cloud.clients[1 - number % 2]
        while not done.is_set():
            fresh = here.post(tokens, json=body).headers.get("x-subject-token", "")
            issued[number] += 1
            for token in (fresh, old):
                answer = there.get("/identity/v3/auth/catalog", headers={"x-auth-token": token})
                if answer.status_code != 200:
                    refused.append(answer.text)

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, number) for number in range(4)]
        numbers = [program.answer(cloud.home, config(cloud.ports[0], cloud.url), "keys", {"credentials": False})["told"]["key"] for _ in range(6)]
        time.sleep(1)
        done.set()
        for each in working:
            each.result()
    assert numbers == [2, 3, 4, 5, 6, 7] and not refused and min(issued.values()) > 1
