"""Security groups in compute's words: until 2.35 they are the network's own, from 2.36 on they are not there."""

from collections.abc import Iterator

import httpx
import pytest

from conftest import Running

V = "/compute/v2.1"
GROUPS, RULES = f"{V}/os-security-groups", f"{V}/os-security-group-rules"


@pytest.fixture(scope="module")
def demo(running: Running) -> Iterator[httpx.Client]:
    with running.http("demo") as client:
        yield client


def make(client: httpx.Client, name: str) -> dict[str, object]:
    answer = client.post(GROUPS, json={"security_group": {"name": name, "description": "d"}})
    assert answer.status_code == 200, answer.text
    return answer.json()["security_group"]


def test_groups(demo: httpx.Client) -> None:
    made = make(demo, "web")
    assert (made["name"], made["description"], made["rules"]) == ("web", "d", [])
    at = f"{GROUPS}/{made['id']}"
    assert {one["name"] for one in demo.get(GROUPS).json()["security_groups"]} >= {"default", "web"}
    assert demo.get(f"/network/v2.0/security-groups/{made['id']}").json()["security_group"]["name"] == "web"
    changed = demo.put(at, json={"security_group": {"name": "www", "description": ""}})
    assert changed.json()["security_group"] == {**made, "name": "www", "description": ""} == demo.get(at).json()["security_group"]
    assert demo.delete(at).status_code == 202
    assert demo.get(at).status_code == 404 and demo.delete(at).status_code == 404


def test_rules(demo: httpx.Client) -> None:
    group, other = make(demo, "g"), make(demo, "o")
    said = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": 22, "to_port": 23}
    made = demo.post(RULES, json={"security_group_rule": said}).json()["security_group_rule"]
    assert made == {**said, "id": made["id"], "group": {}, "ip_range": {"cidr": "0.0.0.0/0"}}
    twice = demo.post(RULES, json={"security_group_rule": said})
    assert twice.status_code == 400 and made["id"] in twice.json()["badRequest"]["message"]
    ping = {"parent_group_id": group["id"], "ip_protocol": "icmp", "from_port": -1, "to_port": -1, "cidr": "10.0.0.0/8"}
    shown = demo.post(RULES, json={"security_group_rule": ping}).json()["security_group_rule"]
    assert (shown["from_port"], shown["to_port"], shown["ip_range"]) == (-1, -1, {"cidr": "10.0.0.0/8"})
    named = demo.post(RULES, json={"security_group_rule": {**said, "group_id": other["id"], "from_port": 80, "to_port": 80}}).json()
    assert named["security_group_rule"]["group"] == {"name": "o", "tenant_id": group["tenant_id"]} and not named["security_group_rule"]["ip_range"]
    assert len(demo.get(f"{GROUPS}/{group['id']}").json()["security_group"]["rules"]) == 3
    assert demo.delete(f"{RULES}/{made['id']}").status_code == 202
    assert demo.delete(f"{RULES}/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    "wrong", [{"ip_protocol": "bad"}, {"from_port": 90}, {"cidr": "10.0.0.0/99"}, {"from_port": "x"}, {"cidr": "10.0.0.0/8", "group_id": "x"}]
)
def test_wrong_rules(demo: httpx.Client, wrong: dict[str, object]) -> None:
    group = demo.get(GROUPS).json()["security_groups"][0]["id"]
    said = {"parent_group_id": group, "ip_protocol": "tcp", "from_port": 22, "to_port": 22, **wrong}
    assert demo.post(RULES, json={"security_group_rule": said}).status_code == 400
    assert demo.post(RULES, json={"security_group_rule": {**said, **wrong, "parent_group_id": "none"}}).status_code in (400, 404)


def test_ones_own_only_and_gone_since_2_36(demo: httpx.Client, running: Running) -> None:
    with running.http() as admin:
        theirs = make(admin, "theirs")["id"]
        assert demo.get(f"{GROUPS}/{theirs}").status_code == 404
        assert theirs not in {one["id"] for one in demo.get(GROUPS, params={"all_tenants": "1"}).json()["security_groups"]}
        mine = make(demo, "mine")["id"]
        assert mine in {one["id"] for one in admin.get(GROUPS, params={"all_tenants": "1"}).json()["security_groups"]}
        assert mine not in {one["id"] for one in admin.get(GROUPS).json()["security_groups"]}
    assert demo.get(GROUPS, headers={"openstack-api-version": "compute 2.36"}).status_code == 404
