"""Why a server is where it is or nowhere: per host and filter, the smallest change that would fit, and what its owner may know of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from fake_node import FakeNode, until
from nacre import compute
from nacre.compute import explanation, plan, tables
from nacre.core.errors import NotFound

SERVERS = "/compute/v2.1/servers"
FILTERS = ("ComputeFilter", "ResourcesFilter", "ImagePropertiesFilter")


def host(name: str, **values: Any) -> plan.Host:
    return plan.Host(**{"name": name, "provider_id": name, "generation": 1, "alive": True, **values})


def smallest(hosts: list[plan.Host], request: plan.Request, rooms: explanation.Rooms, more: explanation.Refused | None = None) -> tuple[str, str]:
    return explanation.smallest(hosts, request, FILTERS, rooms, more or {})


def test_the_host_that_needs_least_is_named() -> None:
    hosts = [host("a", missing=("x",)), host("b", missing=("y",)), host("c", alive=False)]
    rooms = {"a": {"MEMORY_MB": 512, "VCPU": 8}, "b": {"MEMORY_MB": 100, "VCPU": 8}, "c": {"MEMORY_MB": 9000, "VCPU": 8}}
    owner, admin = smallest(hosts[:2], plan.Request({"MEMORY_MB": 1024, "VCPU": 2}), rooms)
    assert owner == "It would fit with a flavor with at most 512 MB of memory."
    assert admin == "It needs 512 MB more memory on host a."
    assert smallest(hosts, plan.Request({"MEMORY_MB": 1024, "VCPU": 2}), rooms)[1] == "It needs the compute service of host c up."
    both = smallest(hosts[:1], plan.Request({"MEMORY_MB": 1024, "VCPU": 9}), rooms)
    assert both[0] == "It would fit with a flavor with at most 512 MB of memory and 8 vCPUs."
    assert both[1] == "It needs 512 MB more memory on host a, 1 more vCPU on host a."


def test_what_no_flavor_can_help() -> None:
    full = [host("a", missing=("x",))]
    owner, admin = smallest(full, plan.Request({"MEMORY_MB": 64, "VCPU": 1}), {"a": {"MEMORY_MB": 0, "VCPU": -1}})
    assert owner == "" and admin == "It needs 64 MB more memory on host a, 1 more vCPU on host a."
    assert smallest([], plan.Request({"VCPU": 1}), {}) == ("", "")
    disabled = [host("a", disabled=True)]
    assert smallest(disabled, plan.Request({}), {}) == ("", "It needs the compute service of host a enabled.")


@pytest.mark.parametrize(("request_", "more", "owner", "admin"), [
    (plan.Request({}, zone="mars"), {}, "It would fit with availability zone nova.", "It needs availability zone nova."),
    (plan.Request({}, host="b"), {}, "It would fit with no host named.", "It needs no host named."),
    (plan.Request({}, group=plan.Group("affinity", 1, {"b": 1})), {}, "It would fit with no server group.", "It needs no server group."),
    (plan.Request({}), {"a": ("PortBinding", "no way")}, "It would fit with other networks.", "It needs its networks mapped on host a."),
    (plan.Request({}), {"a": ("RetryFilter", "it broke")}, "", "")])  # fmt: skip
def test_what_is_asked_for_may_be_the_reason(request_: plan.Request, more: explanation.Refused, owner: str, admin: str) -> None:
    assert smallest([host("a")], request_, {}, more) == (owner, admin)


def test_every_filter_has_its_say() -> None:
    found = explanation.verdicts(host("a", alive=False, missing=("VCPU: 2 requested, 1 of 1 free",)), plan.Request({"VCPU": 2}), FILTERS)
    assert {verdict.filter: verdict.reason for verdict in found} == {
        "ComputeFilter": "its compute service is down", "ResourcesFilter": "VCPU: 2 requested, 1 of 1 free", "ImagePropertiesFilter": None,
        "AvailabilityZoneFilter": None, "ServerGroupAffinityFilter": None, "ServerGroupAntiAffinityFilter": None}  # fmt: skip


def test_of_very_many_hosts_some_are_kept() -> None:
    refused = {f"h{number:04d}": ("ResourcesFilter", "full") for number in range(1000)}
    body = explanation.kept({"VCPU": 1}, [], refused)
    assert len(body["refused"]) == explanation.KEPT and body["more"] == 1000 - explanation.KEPT
    told = plan.no_valid_host(plan.Choice((), refused))
    assert len(told) < 600 and "and 980 more hosts" in told
    assert explanation.grouped(body["refused"]) == [{"filter": "ResourcesFilter", "reason": "full", "hosts": explanation.KEPT}]


# through the API


@pytest.fixture(scope="module")
def small(running: Any, node: FakeNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    """A second host, with little room."""
    started = FakeNode(running.cloud, "nacre-2", tmp_path_factory.mktemp("small"), size=(2, 2048, 100)).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def make(running: Any, admin: Any, image: Any, small: FakeNode) -> Iterator[Callable[..., Any]]:
    made = []

    def make(ram: int, **values: Any) -> Any:
        flavor = admin.compute.create_flavor(name=f"f{ram}", ram=ram, vcpus=1, disk=1)
        with running.http("demo", **{"openstack-api-version": "compute 2.96"}) as demo:
            body = {"name": "one", "imageRef": image.id, "flavorRef": flavor.id, "networks": "none", **values}
            answer = demo.post(SERVERS, json={"server": body})
            assert answer.status_code == 202, answer.text
            made.append(answer.json()["server"]["id"])
            until(lambda: demo.get(f"{SERVERS}/{made[-1]}").json()["server"]["status"] != "BUILD")
            return demo.get(f"{SERVERS}/{made[-1]}").json()["server"]

    yield make
    for server_id in made:
        admin.compute.delete_server(server_id, ignore_missing=True)


def explained(running: Any, server_id: str, user: str = "demo") -> Any:
    answer = running.http(user).get(f"{SERVERS}/{server_id}/explanation")
    assert answer.status_code == 200, answer.text
    return answer.json()["explanation"]


def test_why_this_host(running: Any, make: Callable[..., Any]) -> None:
    server = make(64)
    assert server["status"] == "ACTIVE", server
    found = explained(running, server["id"], "admin")
    assert found["host"] == found["decision"]["host"] == "nacre-1" and found["wanted"] == {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1}
    assert [one["host"] for one in found["decision"]["candidates"]] == ["nacre-1", "nacre-2"] and "now" not in found
    assert found["decision"]["candidates"][0]["free"]["MEMORY_MB"] > found["decision"]["candidates"][1]["free"]["MEMORY_MB"]
    mine = explained(running, server["id"])
    assert mine["decision"]["could"] == 2 and mine["decision"]["refused"] == [] and "nacre-" not in str(mine)
    assert compute.explain_all(running.cloud, server["id"]) == found


def test_why_no_host_and_what_would_fit(running: Any, make: Callable[..., Any], admin: Any) -> None:
    with running.http("admin") as http:
        project = running.connect("demo").current_project_id
        http.put(f"/compute/v2.1/os-quota-sets/{project}", json={"quota_set": {"ram": -1, "cores": -1}})
    server = make(300_000)
    assert server["status"] == "ERROR"
    fault = server["fault"]["message"]
    assert fault.startswith("No valid host was found. There are not enough hosts available. ") and "(ResourcesFilter)" in fault
    assert "nacre-" not in fault and "details" not in server["fault"], "which hosts there are is not for users"
    assert "It would fit with a flavor with at most 26" in fault and "MB of memory" in fault, fault
    whole = admin.compute.get_server(server["id"]).fault
    assert "nacre-2: MEMORY_MB: 300000 requested" in whole["message"]
    assert "nacre-1: ResourcesFilter: MEMORY_MB: 300000 requested" in whole["details"] and "MB more memory on host nacre-1." in whole["details"]
    found = explained(running, server["id"], "admin")
    assert found["host"] is None and found["decision"]["host"] is None
    assert {(row["host"], row["filter"]) for row in found["decision"]["refused"]} == {("nacre-1", "ResourcesFilter"), ("nacre-2", "ResourcesFilter")}
    verdicts = {each["filter"]: each["reason"] for each in found["now"]["verdicts"]["nacre-2"]}
    assert verdicts["ComputeFilter"] is None and "MEMORY_MB: 300000 requested" in verdicts["ResourcesFilter"]
    assert found["now"]["fits"] == 0 and found["now"]["admin_change"].endswith("MB more memory on host nacre-1.")
    mine = explained(running, server["id"])
    assert mine["now"]["change"] == found["now"]["change"] and mine["now"]["change"] in fault
    assert "nacre-" not in str(mine) and "verdicts" not in mine["now"] and "admin_change" not in mine["now"]
    assert {(one["filter"], one["hosts"]) for one in mine["now"]["refused"]} == {("ResourcesFilter", 1)}


def test_the_change_that_is_named_fits(running: Any, make: Callable[..., Any]) -> None:
    """What the explanation says is tried."""
    server = make(299_999)
    most = int(explained(running, server["id"])["now"]["change"].partition("at most ")[2].partition(" MB")[0])
    assert make(most)["status"] == "ACTIVE"


def test_unknown_and_foreign_servers(running: Any, admin: Any, image: Any, flavor: Any, small: FakeNode) -> None:
    with running.http("demo") as demo:
        for name in ("nonsense", "11111111-1111-4111-8111-111111111111"):
            refused = demo.get(f"{SERVERS}/{name}/explanation")
            assert refused.status_code == 404 and refused.json()["itemNotFound"]["message"] == f"Instance {name} could not be found."
        foreign = admin.compute.create_server(name="a", image_id=image.id, flavor_id=flavor.id, networks="none")
        assert demo.get(f"{SERVERS}/{foreign.id}/explanation").status_code == 404
        admin.compute.delete_server(foreign.id)
    with pytest.raises(NotFound, match="Instance nonsense could not be found"):
        compute.explain_all(running.cloud, "nonsense")


def test_a_decision_goes_with_its_server(running: Any, make: Callable[..., Any], admin: Any) -> None:
    server = make(65)
    admin.compute.delete_server(server["id"])
    admin.compute.wait_for_delete(admin.compute.get_server(server["id"]), interval=0.1)
    with running.cloud.db.read() as conn:
        left = sa.select(tables.server_decisions).where(tables.server_decisions.c.server_id == server["id"])
        assert conn.execute(left).first() is None
