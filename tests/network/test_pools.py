"""Subnet pools: what they may be, which range is cut next, and their life through HTTP."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Running
from nacre.core.errors import Error
from nacre.network.plan import pools

V2 = "/network/v2.0"
_POOL = st.integers(8, 20).flatmap(lambda length: st.just(f"10.0.0.0/{length}"))


@given(_POOL, st.lists(st.integers(16, 30), max_size=40))
def test_what_is_cut_never_overlaps_and_the_pool_is_used_up(pool: str, lengths: list[int]) -> None:
    taken: list[str] = []
    for length in lengths:
        try:
            found = pools.free([pool], taken, length)
        except Error:
            room = ipaddress.ip_network(pool)
            if length >= room.prefixlen:
                busy = [ipaddress.ip_network(one) for one in taken]
                assert all(any(part.overlaps(one) for one in busy) for part in room.subnets(new_prefix=length)) if length < 24 else busy
            continue
        cut = ipaddress.ip_network(found)
        assert cut.prefixlen == length and cut.subnet_of(ipaddress.ip_network(pool))  # type: ignore[arg-type]
        assert not any(cut.overlaps(ipaddress.ip_network(one)) for one in taken)
        taken.append(found)


@pytest.mark.parametrize(
    ("said", "kind"),
    [({"min_prefixlen": 30, "max_prefixlen": 20}, "IllegalSubnetPoolPrefixBounds"), ({"default_prefixlen": 4}, "IllegalSubnetPoolPrefixBounds"),
     ({"max_prefixlen": 33}, "InvalidSubnetPoolPrefix")],
)  # fmt: skip
def test_lengths_that_cannot_be(said: dict[str, int], kind: str) -> None:
    with pytest.raises(Error) as refused:
        pools.lengths(4, said)
    assert refused.value.name == kind


def test_prefixes_are_joined_and_only_grow() -> None:
    assert pools.prefixes(["10.0.1.0/24", "10.0.0.0/24", "10.9.0.1/16"]) == ["10.0.0.0/23", "10.9.0.0/16"]
    pools.grown(["10.0.0.0/24"], ["10.0.0.0/16"])
    with pytest.raises(Error, match="subset"):
        pools.grown(["10.0.0.0/16"], ["10.0.0.0/24"])
    for wrong in ([], ["10.0.0.0/8", "fd00::/8"]):
        with pytest.raises(Error, match="prefix"):
            pools.prefixes(wrong)


@pytest.fixture(scope="module")
def demo(running: Running) -> Iterator[httpx.Client]:
    with running.http("demo") as client:
        yield client


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as client:
        yield client


def pool(client: httpx.Client, **said: Any) -> httpx.Response:
    return client.post(f"{V2}/subnetpools", json={"subnetpool": {"name": "p", **said}})


def subnet(client: httpx.Client, network: str, **said: Any) -> httpx.Response:
    return client.post(f"{V2}/subnets", json={"subnet": {"network_id": network, "ip_version": 4, **said}})


def test_subnets_are_cut_of_a_pool(demo: httpx.Client) -> None:
    made = pool(demo, prefixes=["10.50.0.0/16"], default_prefixlen=24, min_prefixlen=20).json()["subnetpool"]
    assert (made["ip_version"], made["max_prefixlen"], made["is_default"], made["default_quota"]) == (4, 32, False, None)
    network = demo.post(f"{V2}/networks", json={"network": {}}).json()["network"]["id"]
    first = subnet(demo, network, subnetpool_id=made["id"]).json()["subnet"]
    second = subnet(demo, network, subnetpool_id=made["id"], prefixlen=28).json()["subnet"]
    assert [(one["cidr"], one["subnetpool_id"]) for one in (first, second)] == [("10.50.0.0/24", made["id"]), ("10.50.1.0/28", made["id"])]
    third = subnet(demo, network, subnetpool_id=made["id"], cidr="10.50.9.0/24")
    assert third.status_code == 201, third.text
    for wrong in ({"cidr": "10.50.9.128/25"}, {"cidr": "10.51.0.0/24"}, {"prefixlen": 8}, {"prefixlen": 33}):
        assert subnet(demo, network, subnetpool_id=made["id"], **wrong).status_code == 400
    listed = demo.get(f"{V2}/subnets", params={"subnetpool_id": made["id"], "cidr": "10.50.0.0/24"}).json()["subnets"]
    assert [one["id"] for one in listed] == [first["id"]]
    at = f"{V2}/subnetpools/{made['id']}"
    refused = demo.delete(at)
    assert (refused.status_code, refused.json()["NeutronError"]["type"]) == (400, "SubnetPoolDeleteError")
    assert demo.put(at, json={"subnetpool": {"prefixes": ["10.60.0.0/16"]}}).status_code == 400
    changed = demo.put(at, json={"subnetpool": {"name": "q", "prefixes": ["10.50.0.0/15"], "default_quota": 700}})
    assert changed.json()["subnetpool"]["prefixes"] == ["10.50.0.0/15"] and changed.json()["subnetpool"]["name"] == "q"
    over = subnet(demo, network, subnetpool_id=made["id"])
    assert (over.status_code, over.json()["NeutronError"]["type"]) == (409, "SubnetPoolQuotaExceeded")
    demo.delete(f"{V2}/networks/{network}")
    assert demo.delete(at).status_code == 204 and demo.get(at).status_code == 404


def test_who_sees_a_pool_and_which_is_the_default(demo: httpx.Client, admin: httpx.Client) -> None:
    assert pool(demo, prefixes=["10.0.0.0/8"], shared=True).status_code == 403
    own = pool(admin, prefixes=["10.0.0.0/8"]).json()["subnetpool"]["id"]
    assert demo.get(f"{V2}/subnetpools/{own}").status_code == 404
    network = demo.post(f"{V2}/networks", json={"network": {}}).json()["network"]["id"]
    assert subnet(demo, network, use_default_subnetpool=True).status_code == 400
    everybody = pool(admin, prefixes=["192.168.0.0/16"], shared=True, is_default=True, default_prefixlen=26).json()["subnetpool"]["id"]
    assert pool(admin, prefixes=["172.16.0.0/12"], is_default=True).status_code == 400
    assert everybody in {one["id"] for one in demo.get(f"{V2}/subnetpools").json()["subnetpools"]}
    assert demo.put(f"{V2}/subnetpools/{everybody}", json={"subnetpool": {"name": "mine"}}).status_code == 403
    assert subnet(demo, network, use_default_subnetpool=True).json()["subnet"]["cidr"] == "192.168.0.0/26"
    six = subnet(demo, network, use_default_subnetpool=True, ip_version=6)
    assert six.status_code == 400 and "IPv6" in six.json()["NeutronError"]["message"]
