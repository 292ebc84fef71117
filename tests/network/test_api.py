"""The Networking API through HTTP and openstacksdk: what it refuses and in which words, lists, visibility, what must never happen twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openstack.exceptions as sdk
import pytest

from conftest import Running

V2 = "/network/v2.0"
Http = httpx.Client


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[Http]:
    with running.http("admin") as client:
        yield client


@pytest.fixture(scope="module")
def demo(running: Running) -> Iterator[Http]:
    with running.http("demo") as client:
        yield client


def post(client: Http, what: str, singular: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{V2}/{what}", json={singular: body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()[singular]
    return found


def net(client: Http, **body: Any) -> dict[str, Any]:
    return post(client, "networks", "network", **body)


def sub(client: Http, network: dict[str, Any], cidr: str, **body: Any) -> dict[str, Any]:
    return post(client, "subnets", "subnet", **{"network_id": network["id"], "cidr": cidr, "ip_version": 6 if ":" in cidr else 4, **body})


@pytest.fixture(scope="module")
def outside(admin: Http) -> dict[str, Any]:
    network = net(admin, name="outside", **{"router:external": True, "provider:network_type": "flat", "provider:physical_network": "external"})
    sub(admin, network, "172.24.4.0/24", enable_dhcp=False)
    return network


@pytest.fixture(scope="module")
def own(demo: Http) -> dict[str, Any]:
    """A network of demo's with a subnet, a router on it and a port: ids by name."""
    network = net(demo, name="own")
    subnet = sub(demo, network, "172.16.1.0/24", allocation_pools=[{"start": "172.16.1.10", "end": "172.16.1.200"}])
    router = post(demo, "routers", "router", name="r")
    answer = demo.put(f"{V2}/routers/{router['id']}/add_router_interface", json={"subnet_id": subnet["id"]})
    assert answer.status_code == 200, answer.text
    port = post(demo, "ports", "port", network_id=network["id"])
    return {"network": network["id"], "subnet": subnet["id"], "router": router["id"], "port": port["id"], "leg": answer.json()["port_id"],
            "address": port["fixed_ips"][0]["ip_address"], "mac": port["mac_address"], "group": port["security_groups"][0]}  # fmt: skip


def refused(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["NeutronError"]
    assert error["type"] == kind, error
    message: str = error["message"]
    return message


Case = tuple[str, str, dict[str, Any], int, str, str]
REFUSALS: list[Case] = [
    ("POST", "networks", {"network": {"nonsense": 1}}, 400, "HTTPBadRequest", "nonsense"),
    ("POST", "networks", {"network": {"mtu": "wide"}}, 400, "HTTPBadRequest", "mtu"),
    ("POST", "networks", {"network": {"mtu": 9000}}, 400, "InvalidInput", "maximum is 1450"),
    ("POST", "networks", {"network": {"mtu": -5}}, 400, "HTTPBadRequest", "mtu"),
    ("POST", "networks", {"network": {"mtu": 67}}, 400, "InvalidInput", "minimum is 68"),
    ("POST", "networks", {"network": {"name": "n" * 256}}, 400, "HTTPBadRequest", "name"),
    ("POST", "networks", {"network": {"shared": True}}, 403, "PolicyNotAuthorized", "create_network:shared"),
    ("POST", "networks", {"network": {"router:external": True}}, 403, "PolicyNotAuthorized", "create_network:router:external"),
    ("POST", "networks", {"network": {"tenant_id": "of somebody"}}, 403, "PolicyNotAuthorized", "create_network"),
    ("POST", "networks", {"network": {"tenant_id": "a", "project_id": "b"}}, 400, "HTTPBadRequest", "do not match"),
    ("POST", "networks", {"networks": []}, 400, "HTTPBadRequest", "Resources required"),
    ("GET", "networks?nonsense=1", {}, 400, "HTTPBadRequest", "nonsense"),
    ("GET", "networks?sort_key=nonsense", {}, 400, "HTTPBadRequest", "sort_key"),
    ("GET", "networks?marker=nonsense&limit=1", {}, 400, "MarkerNotFound", "nonsense"),
    ("GET", "networks/nonsense", {}, 404, "NetworkNotFound", "Network nonsense could not be found."),
    ("DELETE", "networks/{network}", {}, 409, "NetworkInUse", "{port}|{leg}"),
    ("POST", "subnets", {"subnet": {"network_id": "{network}", "ip_version": 4, "cidr": "172.16.1.128/25"}}, 400, "InvalidInput", "{subnet}"),
    ("POST", "subnets", {"subnet": {"network_id": "{network}", "ip_version": 5, "cidr": "172.16.2.0/24"}}, 400, "InvalidInput", "ip_version"),
    ("POST", "subnets", {"subnet": {"network_id": "{network}", "ip_version": 4}}, 400, "InvalidInput", "cidr"),
    ("POST", "subnets", {"subnet": {"network_id": "nonsense", "ip_version": 4, "cidr": "172.16.2.0/24"}}, 404, "NetworkNotFound", "nonsense"),
    ("PUT", "subnets/{subnet}", {"subnet": {"cidr": "172.16.9.0/24"}}, 400, "HTTPBadRequest", "cidr"),
    ("PUT", "subnets/{subnet}", {"subnet": {"gateway_ip": "172.16.1.254"}}, 409, "GatewayIpInUse", "{leg}"),
    ("PUT", "subnets/{subnet}", {"subnet": {"gateway_ip": "172.16.1.50"}}, 409, "GatewayIpInUse", "{leg}"),
    ("DELETE", "subnets/{subnet}", {}, 409, "SubnetInUse", "{port}|{leg}"),
    ("POST", "ports", {"port": {"network_id": "{network}", "mac_address": "{mac}"}}, 409, "MacAddressInUse", "{mac}"),
    ("POST", "ports", {"port": {"network_id": "{network}", "mac_address": "fa:16"}}, 400, "HTTPBadRequest", "mac_address"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"ip_address": "172.16.2.5"}]}}, 400, "InvalidIpForNetwork", "172.16.2.5"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"subnet_id": "{subnet}", "ip_address": "172.16.2.5"}]}}, 400,
     "InvalidIpForSubnet", "172.16.2.5"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"subnet_id": "{subnet}", "ip_address": "172.16.1.255"}]}}, 400,
     "InvalidIpForSubnet", "172.16.1.255"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"subnet_id": "nonsense"}]}}, 400, "InvalidInput", "nonsense"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"ip_address": "{address}"}]}}, 409,
     "IpAddressAlreadyAllocated", "{address}"),
    ("POST", "ports", {"port": {"network_id": "{network}", "fixed_ips": [{"ip_address": "nonsense"}]}}, 400, "HTTPBadRequest", "fixed_ips"),
    ("POST", "ports", {"port": {"network_id": "{network}", "security_groups": ["nonsense"]}}, 404, "SecurityGroupNotFound", "nonsense"),
    ("POST", "ports", {"port": {"network_id": "{network}", "binding:host_id": "nacre-1"}}, 403, "PolicyNotAuthorized", "create_port:binding:host_id"),
    ("POST", "ports", {"port": {"network_id": "{network}", "allowed_address_pairs": [{"ip_address": "x"}]}}, 400, "HTTPBadRequest",
     "allowed_address_pairs"),
    ("PUT", "ports/{port}", {"port": {"dns_name": "web\n1.2.3.4"}}, 400, "HTTPBadRequest", "dns_name"),
    ("PUT", "ports/{port}", {"port": {"dns_name": "web\n"}}, 400, "HTTPBadRequest", "dns_name"),
    ("PUT", "ports/{port}", {"port": {"dns_name": "-web"}}, 400, "HTTPBadRequest", "dns_name"),
    ("PUT", "ports/{port}", {"port": {"port_security_enabled": False}}, 409, "PortSecurityPortHasSecurityGroup", "security group"),
    ("PUT", "ports/{leg}", {"port": {"binding:profile": {"a": 1}}}, 403, "PolicyNotAuthorized", "update_port:binding:profile"),
    ("DELETE", "ports/{leg}", {}, 409, "ServicePortInUse", "{router}"),
    ("POST", "routers", {"router": {"ha": True}}, 403, "PolicyNotAuthorized", "create_router:ha"),
    ("POST", "routers", {"router": {"external_gateway_info": {"network_id": "{network}"}}}, 400, "BadRequest", "not an external network"),
    ("PUT", "routers/{router}", {"router": {"routes": [{"destination": "10.0.0.0/8", "nexthop": "10.9.9.9"}]}}, 400, "InvalidRoutes", "10.9.9.9"),
    ("PUT", "routers/{router}", {"router": {"routes": [{"destination": "10.0.0.0/8", "nexthop": "172.16.1.1"}]}}, 400, "InvalidRoutes", "172.16.1.1"),
    ("PUT", "routers/{router}/add_router_interface", {"subnet_id": "{subnet}"}, 400, "BadRequest", "already has a port on subnet {subnet}"),
    ("PUT", "routers/{router}/add_router_interface", {}, 400, "BadRequest", "Either subnet_id or port_id"),
    ("PUT", "routers/{router}/add_router_interface", {"subnet_id": "x", "port_id": "y"}, 400, "BadRequest", "Cannot specify both"),
    ("PUT", "routers/{router}/remove_router_interface", {"subnet_id": "nonsense"}, 404, "RouterInterfaceNotFoundForSubnet", "nonsense"),
    ("PUT", "routers/{router}/remove_router_interface", {"port_id": "nonsense"}, 404, "RouterInterfaceNotFound", "nonsense"),
    ("DELETE", "routers/{router}", {}, 409, "RouterInUse", "{leg}"),
    ("POST", "floatingips", {"floatingip": {"floating_network_id": "{network}"}}, 400, "BadRequest", "not a valid external network"),
    ("POST", "floatingips", {"floatingip": {"floating_network_id": "{outside}", "port_id": "{port}"}}, 404,
     "ExternalGatewayForFloatingIPNotFound", "{port}"),
    ("POST", "floatingips", {"floatingip": {"floating_network_id": "{outside}", "floating_ip_address": "172.24.4.9"}}, 403,
     "PolicyNotAuthorized", "create_floatingip:floating_ip_address"),
    ("POST", "security-groups", {"security_group": {"name": "Default"}}, 409, "SecurityGroupDefaultAlreadyExists", "already exists"),
    ("DELETE", "security-groups/{group}", {}, 409, "SecurityGroupCannotRemoveDefault", "default"),
    ("PUT", "security-groups/{group}", {"security_group": {"name": "other"}}, 409, "SecurityGroupCannotUpdateDefault", "default"),
    ("POST", "security-group-rules", {"security_group_rule": {"security_group_id": "{group}", "direction": "egress"}}, 409,
     "SecurityGroupRuleExists", "Rule id is"),
    ("POST", "security-group-rules", {"security_group_rule": {"security_group_id": "nonsense", "direction": "egress"}}, 404,
     "SecurityGroupNotFound", "nonsense"),
    ("POST", "security-group-rules", {"security_group_rule": {"security_group_id": "{group}"}}, 400, "HTTPBadRequest", "direction"),
    ("PUT", "quotas/somebody", {"quota": {"network": 5}}, 403, "PolicyNotAuthorized", "update_quota"),
    ("GET", "agents/nonsense", {}, 404, "AgentNotFound", "nonsense"),
    ("GET", "extensions/nonsense", {}, 404, "ExtensionsNotFound", "nonsense"),
    ("GET", "networks/{network}/tags/nonsense", {}, 404, "TagNotFound", "nonsense"),
    ("PUT", "networks/{network}/tags", {"tags": ["a,b"]}, 400, "HTTPBadRequest", "tags"),
]  # fmt: skip


def filled(value: Any, words: dict[str, Any]) -> Any:
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if isinstance(value, dict):
        return {name: filled(one, words) for name, one in value.items()}
    return [filled(one, words) for one in value] if isinstance(value, list) else value


def everything(admin: Http) -> dict[str, Any]:
    lists = ("networks", "subnets", "ports", "routers", "floatingips", "security-groups", "security-group-rules")
    return {what: sorted(admin.get(f"{V2}/{what}").json()[what.replace("-", "_")], key=lambda one: one["id"]) for what in lists}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: f"{case[0]} {case[1]} {case[4]}")
def test_refusals(admin: Http, demo: Http, own: dict[str, Any], outside: dict[str, Any], case: Case) -> None:
    method, path, body, status, kind, words = case
    names = {**own, "outside": outside["id"]}
    before = everything(admin)
    content = filled(body, names) if method in ("POST", "PUT") else None
    message = refused(demo.request(method, f"{V2}/{filled(path, names)}", json=content), status, kind)
    assert any(word in message for word in filled(words, names).split("|")), message
    assert everything(admin) == before, "a refused request changed something"


def test_a_gateway_in_a_pool_is_refused(demo: Http) -> None:
    network = net(demo)
    body = {"network_id": network["id"], "ip_version": 4, "cidr": "172.16.3.0/24", "gateway_ip": "172.16.3.20",
            "allocation_pools": [{"start": "172.16.3.10", "end": "172.16.3.30"}]}  # fmt: skip
    message = refused(demo.post(f"{V2}/subnets", json={"subnet": body}), 409, "GatewayConflictWithAllocationPools")
    assert "172.16.3.10-172.16.3.30" in message


def test_subnets_of_one_router_do_not_overlap(demo: Http, own: dict[str, Any]) -> None:
    other = sub(demo, net(demo), "172.16.0.0/16")
    answer = demo.put(f"{V2}/routers/{own['router']}/add_router_interface", json={"subnet_id": other["id"]})
    assert own["subnet"] in refused(answer, 400, "BadRequest")


def test_segments_are_one_networks_only(admin: Http, outside: dict[str, Any]) -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": "external"}
    refused(admin.post(f"{V2}/networks", json={"network": flat}), 409, "FlatNetworkInUse")
    for kind, error in (("vxlan", "TunnelIdInUse"), ("vlan", "VlanIdInUse")):
        named = {"provider:network_type": kind, "provider:segmentation_id": 77}
        if kind == "vlan":
            named["provider:physical_network"] = "external"
        first = net(admin, **named)
        assert "77" in refused(admin.post(f"{V2}/networks", json={"network": named}), 409, error)
        assert admin.delete(f"{V2}/networks/{first['id']}").status_code == 204
        assert admin.delete(f"{V2}/networks/{net(admin, **named)['id']}").status_code == 204


def test_a_network_inside_is_not_the_default_for_outside(admin: Http) -> None:
    inner = net(admin, is_default=True)
    outer = net(admin, is_default=True, **{"router:external": True, "provider:network_type": "vxlan"})
    assert (inner["is_default"], outer["is_default"]) == (False, True)
    for network in (inner, outer):
        admin.delete(f"{V2}/networks/{network['id']}")


@pytest.mark.parametrize(("kind", "mtu"), [("vxlan", 1450), ("gre", 1458), ("geneve", 1450), ("local", 1500), ("vlan", 1500)])
def test_mtu_is_what_fits(admin: Http, kind: str, mtu: int) -> None:
    network = net(admin, **{"provider:network_type": kind, **({"provider:physical_network": "external", "provider:segmentation_id": 500}
                                                              if kind == "vlan" else {})})  # fmt: skip
    assert network["mtu"] == mtu
    admin.delete(f"{V2}/networks/{network['id']}")


# Floating IPs


def test_floating_ips_lead_to_one_address_each(demo: Http, outside: dict[str, Any]) -> None:
    network = net(demo)
    subnet = sub(demo, network, "172.16.5.0/24")
    router = post(demo, "routers", "router", external_gateway_info={"network_id": outside["id"]})
    demo.put(f"{V2}/routers/{router['id']}/add_router_interface", json={"subnet_id": subnet["id"]})
    port = post(demo, "ports", "port", network_id=network["id"], fixed_ips=[{"subnet_id": subnet["id"]}] * 2)
    addresses = [fixed["ip_address"] for fixed in port["fixed_ips"]]
    wanted = {"floating_network_id": outside["id"], "port_id": port["id"]}
    assert "multiple fixed IPv4 addresses" in refused(demo.post(f"{V2}/floatingips", json={"floatingip": wanted}), 400, "BadRequest")
    first = post(demo, "floatingips", "floatingip", **wanted, fixed_ip_address=addresses[1])
    assert (first["fixed_ip_address"], first["router_id"], first["port_details"]["network_id"]) == (addresses[1], router["id"], network["id"])
    again = demo.post(f"{V2}/floatingips", json={"floatingip": {**wanted, "fixed_ip_address": addresses[1]}})
    assert first["floating_network_id"] in refused(again, 409, "FloatingIPPortAlreadyAssociated")
    second = post(demo, "floatingips", "floatingip", **wanted, fixed_ip_address=addresses[0])
    leg = demo.put(f"{V2}/routers/{router['id']}/remove_router_interface", json={"subnet_id": subnet["id"]})
    refused(leg, 409, "RouterInterfaceInUseByFloatingIP")
    gone = demo.put(f"{V2}/routers/{router['id']}", json={"router": {"external_gateway_info": None}})
    refused(gone, 409, "RouterExternalGatewayInUseByFloatingIp")
    assert demo.delete(f"{V2}/ports/{port['id']}").status_code == 204
    left = demo.get(f"{V2}/floatingips/{second['id']}").json()["floatingip"]
    assert (left["port_id"], left["fixed_ip_address"], left["router_id"], left["status"]) == (None, None, None, "DOWN")
    for floating in (first, second):
        assert demo.delete(f"{V2}/floatingips/{floating['id']}").status_code == 204
    assert demo.put(f"{V2}/routers/{router['id']}", json={"router": {"external_gateway_info": {}}}).json()["router"]["external_gateway_info"] is None


# Lists


def test_lists_filter_by_any_attribute(running: Running, demo: Http) -> None:
    found = [net(demo, name=name, description=text) for name, text in (("a1", "x"), ("a2", "x"), ("a3", ""))]
    client = running.connect("demo").network
    assert {network.id for network in client.networks(description="x")} == {found[0]["id"], found[1]["id"]}
    both = demo.get(f"{V2}/networks?name=a1&name=a3&fields=name").json()["networks"]
    assert sorted(both, key=lambda one: one["name"]) == [{"name": "a1"}, {"name": "a3"}]
    assert demo.get(f"{V2}/networks?description=&name=a1&name=a3&fields=name").json()["networks"] == [{"name": "a3"}]
    assert demo.get(f"{V2}/networks?name=a1&shared=true").json()["networks"] == []
    demo.put(f"{V2}/networks/{found[0]['id']}/tags", json={"tags": ["red", "blue"]})
    assert demo.put(f"{V2}/networks/{found[1]['id']}/tags/red").status_code == 201
    for query, names in (("tags=red,blue", ["a1"]), ("tags-any=red,blue", ["a1", "a2"]), ("not-tags=blue&tags=red", ["a2"])):
        assert [one["name"] for one in demo.get(f"{V2}/networks?{query}&sort_key=name").json()["networks"]] == names
    for network in found:
        demo.delete(f"{V2}/networks/{network['id']}")


def test_ports_by_address_and_group(demo: Http, own: dict[str, Any]) -> None:
    def ids(query: str) -> list[str]:
        return [port["id"] for port in demo.get(f"{V2}/ports?{query}").json()["ports"]]

    assert ids(f"fixed_ips=ip_address={own['address']}&network_id={own['network']}") == [own["port"]]
    assert set(ids(f"fixed_ips=subnet_id={own['subnet']}")) >= {own["port"], own["leg"]}
    assert own["port"] in ids(f"security_groups={own['group']}")
    assert ids(f"device_id={own['router']}&device_owner=network:router_interface") == [own["leg"]]
    assert own["port"] in ids("status=DOWN") and own["port"] not in ids("status=ACTIVE")


def test_pages_have_links_both_ways(demo: Http) -> None:
    made = [net(demo, name=f"page{n}") for n in range(5)]
    names, url = [], f"{V2}/networks?sort_key=name&sort_dir=desc&limit=2&name=" + "&name=".join(network["name"] for network in made)
    while url:
        answer = demo.get(url).json()
        names.append([one["name"] for one in answer["networks"]])
        last, links = url, {link["rel"]: link["href"] for link in answer.get("networks_links", [])}
        url = links.get("next", "")
    assert [name for page in names for name in page] == ["page4", "page3", "page2", "page1", "page0"]
    assert last != url and "previous" in links
    back = demo.get(links["previous"]).json()
    assert [one["name"] for one in back["networks"]] == ["page2", "page1"]
    for network in made:
        demo.delete(f"{V2}/networks/{network['id']}")


def test_bulk_is_all_or_nothing(demo: Http, own: dict[str, Any]) -> None:
    port = {"network_id": own["network"]}
    before = len(demo.get(f"{V2}/ports").json()["ports"])
    refused(demo.post(f"{V2}/ports", json={"ports": [port, {**port, "mac_address": own["mac"]}]}), 409, "MacAddressInUse")
    assert len(demo.get(f"{V2}/ports").json()["ports"]) == before
    made = demo.post(f"{V2}/ports", json={"ports": [port, port]}).json()["ports"]
    assert len({one["fixed_ips"][0]["ip_address"] for one in made}) == 2
    for one in made:
        demo.delete(f"{V2}/ports/{one['id']}")


# Who sees what


def test_others_resources_do_not_exist(running: Running, admin: Http, demo: Http, outside: dict[str, Any]) -> None:
    theirs, shared = net(admin, name="theirs"), net(admin, name="shared", shared=True)
    port, group = post(admin, "ports", "port", network_id=theirs["id"]), post(admin, "security-groups", "security_group", name="theirs")
    router = post(admin, "routers", "router")
    for what, one in (("networks", theirs), ("ports", port), ("security-groups", group), ("routers", router)):
        for method in ("GET", "DELETE"):
            assert demo.request(method, f"{V2}/{what}/{one['id']}").status_code == 404
        assert one["id"] not in {found["id"] for found in demo.get(f"{V2}/{what}").json()[what.replace("-", "_")]}
    seen = {network["id"] for network in demo.get(f"{V2}/networks").json()["networks"]}
    assert {shared["id"], outside["id"]} <= seen
    assert demo.delete(f"{V2}/networks/{shared['id']}").status_code == 403
    assert "provider:network_type" not in demo.get(f"{V2}/networks/{shared['id']}").json()["network"]
    mine = post(demo, "ports", "port", network_id=shared["id"])
    assert refused(admin.put(f"{V2}/networks/{shared['id']}", json={"network": {"shared": False}}), 409, "InvalidSharedSetting")
    demo.delete(f"{V2}/ports/{mine['id']}")
    with pytest.raises(sdk.NotFoundException):
        running.connect("demo").network.get_network(theirs["id"])


def test_a_project_has_one_default_group_with_upstreams_rules(demo: Http) -> None:
    groups = [group for group in demo.get(f"{V2}/security-groups").json()["security_groups"] if group["name"] == "default"]
    assert len(groups) == 1
    found = {(rule["direction"], rule["ethertype"], rule["remote_group_id"]) for rule in groups[0]["security_group_rules"]}
    own = groups[0]["id"]
    assert found >= {("egress", "IPv4", None), ("egress", "IPv6", None), ("ingress", "IPv4", own), ("ingress", "IPv6", own)}
    new = post(demo, "security-groups", "security_group", name="web")
    assert {(rule["direction"], rule["ethertype"]) for rule in new["security_group_rules"]} == {("egress", "IPv4"), ("egress", "IPv6")}
    port = post(demo, "ports", "port", network_id=net(demo)["id"], security_groups=[new["id"]])
    assert port["id"] in refused(demo.delete(f"{V2}/security-groups/{new['id']}"), 409, "SecurityGroupInUse")


def test_ipv6_guests_give_themselves_addresses(demo: Http) -> None:
    network = net(demo)
    sub(demo, network, "172.16.7.0/24")
    before = post(demo, "ports", "port", network_id=network["id"])
    six = sub(demo, network, "fd00:7::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    after = post(demo, "ports", "port", network_id=network["id"], mac_address="fa:16:3e:00:00:01")
    assert {"subnet_id": six["id"], "ip_address": "fd00:7::f816:3eff:fe00:1"} in after["fixed_ips"]
    assert len(after["fixed_ips"]) == 2
    assert len(demo.get(f"{V2}/ports/{before['id']}").json()["port"]["fixed_ips"]) == 2
    assert demo.delete(f"{V2}/subnets/{six['id']}").status_code == 204, "addresses that guests gave themselves do not hold a subnet"
    assert len(demo.get(f"{V2}/ports/{before['id']}").json()["port"]["fixed_ips"]) == 1


def test_a_changed_port_keeps_what_was_not_said(demo: Http, own: dict[str, Any]) -> None:
    port = post(demo, "ports", "port", network_id=own["network"], name="before")
    pair = {"ip_address": "172.16.1.250"}
    changed = demo.put(f"{V2}/ports/{port['id']}", json={"port": {"name": "after", "allowed_address_pairs": [pair]}}).json()["port"]
    assert changed["allowed_address_pairs"] == [{**pair, "mac_address": port["mac_address"]}]
    assert changed["fixed_ips"] == port["fixed_ips"] and changed["name"] == "after" and changed["revision_number"] == 1
    more = [*port["fixed_ips"], {"subnet_id": own["subnet"], "ip_address": "172.16.1.7"}]
    changed = demo.put(f"{V2}/ports/{port['id']}", json={"port": {"fixed_ips": more}}).json()["port"]
    assert [fixed["ip_address"] for fixed in changed["fixed_ips"]] == [port["fixed_ips"][0]["ip_address"], "172.16.1.7"]
    bare = demo.put(f"{V2}/ports/{port['id']}", json={"port": {"security_groups": [], "port_security_enabled": False,
                                                               "allowed_address_pairs": []}}).json()["port"]  # fmt: skip
    assert bare["security_groups"] == [] and bare["port_security_enabled"] is False
    demo.delete(f"{V2}/ports/{port['id']}")


# Never twice


def at_once(times: int, do: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(do, range(times)))


def test_ports_made_at_once_share_no_address_and_stay_within_the_quota(running: Running, admin: Http) -> None:
    project = admin.get("/identity/v3/projects?name=demo").json()["projects"][0]["id"]
    network = net(admin, tenant_id=project)
    sub(admin, network, "172.16.8.0/27", enable_dhcp=False)
    used = len(admin.get(f"{V2}/ports?project_id={project}").json()["ports"])
    answer = admin.put(f"{V2}/quotas/{project}", json={"quota": {"port": used + 20}})
    assert answer.json()["quota"]["port"] == used + 20
    with running.http("demo") as client:
        answers = at_once(30, lambda _: client.post(f"{V2}/ports", json={"port": {"network_id": network["id"]}}))
    assert sorted(answer.status_code for answer in answers) == [201] * 20 + [409] * 10
    assert {answer.json()["NeutronError"]["type"] for answer in answers if answer.status_code == 409} == {"OverQuota"}
    addresses = [answer.json()["port"]["fixed_ips"][0]["ip_address"] for answer in answers if answer.status_code == 201]
    assert len(set(addresses)) == 20
    assert admin.put(f"{V2}/quotas/{project}", json={"quota": {"port": 1}}).status_code == 400
    assert admin.get(f"{V2}/quotas/{project}/details.json").json()["quota"]["port"] == {"limit": used + 20, "used": used + 20, "reserved": 0}
    assert admin.delete(f"{V2}/quotas/{project}").status_code == 204
    assert admin.get(f"{V2}/quotas/{project}").json()["quota"]["port"] == 500


def test_a_full_subnet_says_so(demo: Http) -> None:
    network = net(demo)
    sub(demo, network, "172.16.9.0/29", enable_dhcp=False)
    answers = at_once(8, lambda _: demo.post(f"{V2}/ports", json={"port": {"network_id": network["id"]}}))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 3
    full = next(answer for answer in answers if answer.status_code == 409)
    assert network["id"] in refused(full, 409, "IpAddressGenerationFailure")
    given = {answer.json()["port"]["fixed_ips"][0]["ip_address"] for answer in answers if answer.status_code == 201}
    assert given == {f"172.16.9.{n}" for n in range(2, 7)}


def test_one_request_for_many_addresses_gets_as_many(demo: Http) -> None:
    network = net(demo)
    subnet = sub(demo, network, "172.16.11.0/28", enable_dhcp=False)
    port = post(demo, "ports", "port", network_id=network["id"], fixed_ips=[{"subnet_id": subnet["id"]}] * 13)
    assert len({fixed["ip_address"] for fixed in port["fixed_ips"]}) == 13
    twice = [{"ip_address": port["fixed_ips"][0]["ip_address"]}] * 2
    refused(demo.put(f"{V2}/ports/{port['id']}", json={"port": {"fixed_ips": twice}}), 409, "IpAddressAlreadyAllocated")


def test_one_address_asked_for_at_once_is_given_once(demo: Http) -> None:
    network = net(demo)
    sub(demo, network, "172.16.10.0/24", enable_dhcp=False)
    body = {"port": {"network_id": network["id"], "fixed_ips": [{"ip_address": "172.16.10.77"}]}}
    answers = at_once(6, lambda _: demo.post(f"{V2}/ports", json=body))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


def test_an_external_network_takes_its_floating_ips_along_unless_one_leads_somewhere(admin: Http, demo: Http) -> None:
    beyond = net(admin, **{"router:external": True})
    outer, network = sub(admin, beyond, "198.51.100.0/24", enable_dhcp=False), net(demo)
    subnet = sub(demo, network, "172.16.12.0/24")
    router = post(demo, "routers", "router", external_gateway_info={"network_id": beyond["id"]})
    assert demo.put(f"{V2}/routers/{router['id']}/add_router_interface", json={"subnet_id": subnet["id"]}).status_code == 200
    port = post(demo, "ports", "port", network_id=network["id"])
    idle, used = (post(demo, "floatingips", "floatingip", floating_network_id=beyond["id"], **body) for body in ({}, {"port_id": port["id"]}))
    refused(admin.delete(f"{V2}/networks/{beyond['id']}"), 409, "NetworkInUse")
    assert demo.get(f"{V2}/floatingips/{idle['id']}").status_code == 200
    assert demo.put(f"{V2}/floatingips/{used['id']}", json={"floatingip": {"port_id": None}}).status_code == 200
    refused(admin.delete(f"{V2}/networks/{beyond['id']}"), 409, "NetworkInUse")  # the router's way out
    assert demo.put(f"{V2}/routers/{router['id']}", json={"router": {"external_gateway_info": {}}}).status_code == 200
    assert admin.delete(f"{V2}/networks/{beyond['id']}").status_code == 204
    for kind, gone in (("floatingips", idle), ("floatingips", used), ("subnets", outer)):
        assert admin.get(f"{V2}/{kind}/{gone['id']}").status_code == 404
    found = demo.get(f"{V2}/ports", params={"fixed_ips": f"ip_address_substr={port['fixed_ips'][0]['ip_address'][4:]}"}).json()["ports"]
    assert [each["id"] for each in found] == [port["id"]]
