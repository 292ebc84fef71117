"""Server groups: what they ask of hosts, as a table; the next host when one cannot; their face at both shapes."""

from typing import Any

import pytest

from nacre.compute import plan
from nacre.compute.bodies import groups as bodies
from nacre.compute.service.groups import Group


def host(name: str) -> plan.Host:
    return plan.Host(name, name, 1, True)


@pytest.mark.parametrize(("policy", "others", "first"), [
    ("affinity", {}, {"a", "b"}), ("affinity", {"a": 1}, {"a"}), ("anti-affinity", {"a": 1}, {"b"}), ("anti-affinity", {"a": 1, "b": 1}, set()),
    ("soft-affinity", {"b": 1}, {"b", "a"}), ("soft-anti-affinity", {"a": 2, "b": 1}, {"b", "a"})])  # fmt: skip
def test_what_a_group_asks_of_hosts(policy: str, others: dict[str, int], first: set[str]) -> None:
    choice = plan.choose([host("a"), host("b")], plan.Request({}, group=plan.Group(policy, 1, others)), ())
    assert {found.name for found in choice.candidates} == first
    if policy.startswith("soft"):
        assert choice.candidates[0].name == "b"
    assert first or all(name == "ServerGroupAntiAffinityFilter" for name, _ in choice.refused.values())


def test_both_shapes() -> None:
    class Row:
        id, name, policy, rules, project_id, user_id = "i", "n", "affinity", {"x": 1}, "p", "u"

    group: Any = Group(Row(), ["s"])  # type: ignore[arg-type]
    assert bodies.view(group, (2, 1)) == {"id": "i", "name": "n", "members": ["s"], "policies": ["affinity"], "metadata": {}}
    assert bodies.view(group, (2, 64)) == {"id": "i", "name": "n", "members": ["s"], "policy": "affinity", "rules": {"x": 1}, "project_id": "p",
                                           "user_id": "u"}  # fmt: skip


def test_groups_by_the_client(admin: Any) -> None:
    admin.compute.default_microversion = "2.64"
    made = admin.compute.post("/os-server-groups", json={"server_group": {"name": "g", "policy": "anti-affinity"}}, microversion="2.64").json()
    group = made["server_group"]
    assert (group["policy"], group["members"]) == ("anti-affinity", [])
    listed = admin.compute.get("/os-server-groups", microversion="2.1").json()["server_groups"]
    assert [(each["id"], each["policies"]) for each in listed] == [(group["id"], ["anti-affinity"])]
    assert admin.compute.delete(f"/os-server-groups/{group['id']}").status_code == 204
    assert admin.compute.get(f"/os-server-groups/{group['id']}").status_code == 404
    admin.compute.default_microversion = None
