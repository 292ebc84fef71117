"""Addresses of a server changed by compute's old actions: until 2.43 they work as the network's own, from 2.44 on they are not there."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fake_node import FakeNode, until

V = "/compute/v2.1"


@pytest.fixture(scope="module")
def made(running: Any, admin: Any, image: Any, flavor: Any, node: FakeNode) -> Iterator[SimpleNamespace]:
    """A server on a routed network, and a floating IP."""
    net = admin.network
    inside, outside = net.create_network(name="inside"), net.create_network(name="outside", is_router_external=True, provider_network_type="flat",
                                                                            provider_physical_network="external")  # fmt: skip
    subnet = net.create_subnet(network_id=inside.id, ip_version=4, cidr="172.16.1.0/24")
    net.create_subnet(network_id=outside.id, ip_version=4, cidr="198.51.100.0/24", is_dhcp_enabled=False)
    router = net.create_router(external_gateway_info={"network_id": outside.id})
    net.add_interface_to_router(router.id, subnet_id=subnet.id)
    floating = net.create_ip(floating_network_id=outside.id)
    server = admin.compute.create_server(name="s", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": inside.id}])
    until(lambda: admin.compute.get_server(server.id).status == "ACTIVE")
    http = {v: running.http("admin", **{"openstack-api-version": f"compute {v}"}) for v in ("2.1", "2.43", "2.44")}
    yield SimpleNamespace(id=server.id, network=inside.id, floating=floating.floating_ip_address, http=http)
    admin.compute.delete_server(server.id)


def act(made: SimpleNamespace, body: dict[str, Any], version: str = "2.43") -> Any:
    return made.http[version].post(f"{V}/servers/{made.id}/action", json=body)


def addresses(made: SimpleNamespace, kind: str) -> list[str]:
    shown = made.http["2.1"].get(f"{V}/servers/{made.id}").json()["server"]["addresses"]["inside"]
    return [one["addr"] for one in shown if one["OS-EXT-IPS:type"] == kind]


def test_fixed(made: SimpleNamespace, admin: Any) -> None:
    before = addresses(made, "fixed")
    assert act(made, {"addFixedIp": {"networkId": made.network}}, "2.1").status_code == 202
    added = [address for address in addresses(made, "fixed") if address not in before]
    port = next(iter(admin.network.ports(device_id=made.id)))
    assert len(added) == 1 and [fixed["ip_address"] for fixed in port.fixed_ips] == [*before, *added]
    assert act(made, {"removeFixedIp": {"address": added[0]}}).status_code == 202
    assert addresses(made, "fixed") == before
    for body, status, says in (({"removeFixedIp": {"address": added[0]}}, 400, added[0]), ({"removeFixedIp": {"address": "x"}}, 400, "address"),
                               ({"addFixedIp": {"networkId": "nowhere"}}, 404, "nowhere"), ({"addFixedIp": {}}, 400, "networkId"),
                               ({"addFixedIp": {"networkId": made.network, "x": 1}}, 400, "'x'")):  # fmt: skip
        refused = act(made, body)
        assert refused.status_code == status and says in refused.text, refused.text
    assert addresses(made, "fixed") == before


def test_floating(made: SimpleNamespace, admin: Any, running: Any) -> None:
    assert act(made, {"addFloatingIp": {"address": made.floating}}).status_code == 202
    assert addresses(made, "floating") == [made.floating]
    assert next(iter(admin.network.ips(floating_ip_address=made.floating))).router_id is not None
    assert act(made, {"removeFloatingIp": {"address": made.floating}}, "2.1").status_code == 202
    assert addresses(made, "floating") == []
    fixed = addresses(made, "fixed")[0]
    assert act(made, {"addFloatingIp": {"address": made.floating, "fixed_address": fixed}}).status_code == 202
    assert addresses(made, "floating") == [made.floating]
    act(made, {"removeFloatingIp": {"address": made.floating}})
    for body, status, says in (({"removeFloatingIp": {"address": made.floating}}, 409, "is not associated"),
                               ({"removeFloatingIp": {"address": "198.51.100.250"}}, 404, "not found"),
                               ({"addFloatingIp": {"address": "198.51.100.250"}}, 404, "not found"),
                               ({"addFloatingIp": {"address": made.floating, "fixed_address": "172.16.1.254"}}, 400, "fixed address"),
                               ({"addFloatingIp": {"address": "x"}}, 400, "address"), ({"addFloatingIp": {}}, 400, "address")):  # fmt: skip
        refused = act(made, body)
        assert refused.status_code == status and says in refused.text, refused.text
    assert addresses(made, "floating") == []
    stranger = running.http("demo", **{"openstack-api-version": "compute 2.43"})
    assert stranger.post(f"{V}/servers/{made.id}/action", json={"addFloatingIp": {"address": made.floating}}).status_code == 404


@pytest.mark.parametrize("body", [{"addFixedIp": {"networkId": "n"}}, {"removeFixedIp": {"address": "172.16.1.2"}},
                                  {"addFloatingIp": {"address": "198.51.100.9"}}, {"removeFloatingIp": {"address": "198.51.100.9"}}])  # fmt: skip
def test_gone_since_2_44(made: SimpleNamespace, body: dict[str, Any]) -> None:
    assert act(made, body, "2.44").status_code == 404
