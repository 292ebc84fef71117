"""What hosts are told: the bodies of documents, which host holds which, and that a change alters just the documents it changes."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from conftest import Running
from nacre import identity, network
from nacre.core import clock, ids, nodes
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.network import loops
from nacre.network.mechanisms import openvswitch
from nacre.network.tables.wires import dhcp_servers

V2 = "/network/v2.0"
AGENTS = {"openvswitch": True, "dhcp": True, "l3": True, "metadata": True}
Versions = dict[tuple[str, str], int]


class Hosts:
    """Hosts that report and hold documents, without nodes behind them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def report(self, name: str, address: str, ago: float = 0) -> None:
        with self.cloud.db.write(System(ids.request_id())) as tx:
            nodes.register(tx, name)
            tx.update(nodes.hosts, {"name": name}, agents=AGENTS, address=address)
            nodes.heard_of(tx, [name], ago)
            network.reported(tx, name, {"address": address})
        loops.configured(self.cloud, System(ids.request_id()))

    def held(self, name: str) -> Versions:
        with self.cloud.db.read() as conn:
            return {(kind, id_): version for kind, of in nodes.held_by(conn, name).items() for id_, version in of.items()}

    def body(self, kind: str, id_: str) -> Any:
        with self.cloud.db.read() as conn:
            return network.DOCUMENTS[kind](conn, [id_]).get(id_)

    def apply(self, name: str) -> None:
        """Report everything true."""
        with self.cloud.db.write(System(ids.request_id())) as tx:
            nodes.mark_applied(tx, name, nodes.held_by(tx, name))


@pytest.fixture(scope="module")
def hosts(running: Running) -> Hosts:
    found = Hosts(running.cloud)
    found.report("h1", "192.0.2.11")
    return found


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http("admin") as client:
        project = client.get("/identity/v3/projects?name=admin").json()["projects"][0]["id"]
        unlimited = dict.fromkeys(("router", "security_group", "security_group_rule"), -1)
        assert client.put(f"{V2}/quotas/{project}", json={"quota": unlimited}).status_code == 200
        yield client


class Site:
    """A network with a subnet, a router with a way out, two guests on hosts, made through the API."""

    def __init__(self, client: httpx.Client, hosts: Hosts, number: int) -> None:
        self.client, self.hosts = client, hosts
        self.network = self.post("networks", "network")["id"]
        self.subnet = self.post("subnets", "subnet", network_id=self.network, ip_version=4, cidr=f"172.16.{number}.0/24")["id"]
        self.group = self.post("security-groups", "security_group", name=f"g{number}")["id"]
        self.remote = self.post("security-groups", "security_group", name=f"r{number}")["id"]
        self.rule = self.post("security-group-rules", "security_group_rule", security_group_id=self.group, direction="ingress", protocol="tcp",
                              port_range_min=22, port_range_max=22, remote_group_id=self.remote)["id"]  # fmt: skip
        self.router = self.post("routers", "router")["id"]
        self.put(f"routers/{self.router}/add_router_interface", subnet_id=self.subnet)
        self.port = self.guest([self.group], "h1")
        self.other = self.guest([self.remote], "h2")

    def guest(self, groups: list[str], host: str) -> dict[str, Any]:
        return self.post("ports", "port", network_id=self.network, security_groups=groups, device_owner="compute:nova", device_id=ids.uuid(),
                         **{"binding:host_id": host})  # fmt: skip

    def post(self, what: str, singular: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(f"{V2}/{what}", json={singular: body})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()[singular]
        return found

    def put(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.put(f"{V2}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def delete(self, path: str) -> None:
        assert self.client.delete(f"{V2}/{path}").status_code == 204


@pytest.fixture(scope="module")
def outside(admin: httpx.Client, hosts: Hosts) -> dict[str, Any]:
    body = {"router:external": True, "provider:network_type": "flat", "provider:physical_network": "external"}
    found: dict[str, Any] = admin.post(f"{V2}/networks", json={"network": body}).json()["network"]
    subnet = {"network_id": found["id"], "ip_version": 4, "cidr": "172.24.4.0/24", "gateway_ip": "172.24.4.1", "enable_dhcp": False}
    assert admin.post(f"{V2}/subnets", json={"subnet": subnet}).status_code == 201
    return found


@pytest.fixture(scope="module")
def site(admin: httpx.Client, hosts: Hosts, outside: dict[str, Any]) -> Site:
    hosts.report("h2", "192.0.2.12", ago=3600)  # takes guests that are put there, but nothing is scheduled to it
    made = Site(admin, hosts, 20)
    made.put(f"routers/{made.router}", router={"external_gateway_info": {"network_id": outside["id"]}})
    return made


def test_bodies(site: Site, hosts: Hosts, outside: dict[str, Any]) -> None:
    port, other = site.port, site.other
    address, elsewhere = port["fixed_ips"][0]["ip_address"], other["fixed_ips"][0]["ip_address"]
    assert hosts.body("host", "h1") == {"tunnel_ip": "192.0.2.11", "bridge_mappings": {"external": "br-ex"},
                                        "peers": [{"host": "h2", "tunnel_ip": "192.0.2.12"}]}  # fmt: skip
    assert hosts.body("outside", "external") == {"addresses": ["172.24.4.1/24"]}
    assert hosts.body("port", port["id"]) == {
        "network_id": site.network, "mac_address": port["mac_address"], "tap": f"tap{port['id'][:11]}", "admin_state_up": True,
        "port_security": True, "fixed_ips": [{"ip_address": address, "subnet_id": site.subnet}], "allowed_address_pairs": [],
        "security_groups": [site.group], "device_id": port["device_id"], "device_owner": "compute:nova",
    }  # fmt: skip
    body = hosts.body("network", site.network)
    assert (body["network_type"], body["physical_network"], body["mtu"], body["admin_state_up"]) == ("vxlan", None, 1450, True)
    assert body["subnets"] == [{"id": site.subnet, "cidr": "172.16.20.0/24", "ip_version": 4, "gateway_ip": "172.16.20.1", "enable_dhcp": True,
                                "dns_nameservers": [], "host_routes": [], "ipv6_ra_mode": None, "ipv6_address_mode": None}]  # fmt: skip
    dhcp = hosts.body("dhcp", site.network)
    assert dhcp["dns_domain"] == "openstacklocal" and dhcp["port"]["fixed_ips"][0]["prefixlen"] == 24
    assert {"port_id": port["id"], "mac_address": port["mac_address"], "hostname": "host-" + address.replace(".", "-"),
            "fixed_ips": [{"ip_address": address, "subnet_id": site.subnet}]} in dhcp["hosts"]  # fmt: skip
    assert {host["port_id"] for host in dhcp["hosts"]} == {port["id"], other["id"]}
    rules = hosts.body("security_group", site.group)
    assert rules["stateful"] is True
    assert {"id": site.rule, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
            "remote_ip_prefix": None, "remote_group_id": site.remote} in rules["rules"]  # fmt: skip
    assert hosts.body("address_set", site.remote) == {"addresses": [elsewhere]}


def test_body_of_a_router(site: Site, hosts: Hosts, outside: dict[str, Any]) -> None:
    address = site.port["fixed_ips"][0]["ip_address"]
    floating = site.post("floatingips", "floatingip", floating_network_id=outside["id"], port_id=site.port["id"])
    body = hosts.body("router", site.router)
    assert [leg["fixed_ips"] for leg in body["interfaces"]] == [[{"ip_address": "172.16.20.1", "prefixlen": 24, "subnet_id": site.subnet}]]
    assert (body["gateway"]["network_id"], body["gateway"]["enable_snat"], body["gateway"]["gateway_ips"]) == (outside["id"], True, ["172.24.4.1"])
    assert body["floating_ips"] == [{"id": floating["id"], "floating_ip_address": floating["floating_ip_address"], "fixed_ip_address": address}]
    assert (body["admin_state_up"], body["routes"]) == (True, [])
    site.delete(f"floatingips/{floating['id']}")
    assert hosts.body("router", site.router)["floating_ips"] == []


def test_forwarding_names_every_place_of_a_network(site: Site, hosts: Hosts) -> None:
    entries = hosts.body("forwarding", site.network)["entries"]
    assert {(entry["host"], entry["tunnel_ip"]) for entry in entries} == {("h1", "192.0.2.11"), ("h2", "192.0.2.12")}
    assert [entry["mac_address"] for entry in entries if entry["host"] == "h2"] == [site.other["mac_address"]]
    assert len([entry for entry in entries if entry["host"] == "h1"]) == 3, "a guest, the DHCP server, the router's leg"


def test_what_is_gone_has_no_body(hosts: Hosts) -> None:
    for kind in ("port", "network", "dhcp", "router", "security_group", "address_set"):
        assert hosts.body(kind, ids.uuid()) is None


def test_hosts_hold_what_is_on_them(site: Site, hosts: Hosts, outside: dict[str, Any]) -> None:
    on = {(kind, id_) for kind, id_ in hosts.held("h1")}
    assert on >= {("host", "h1"), ("outside", "external"), ("port", site.port["id"]), ("network", site.network), ("forwarding", site.network),
                  ("dhcp", site.network), ("router", site.router), ("network", outside["id"]), ("security_group", site.group),
                  ("address_set", site.remote)}  # fmt: skip
    assert ("security_group", site.remote) not in on and ("port", site.other["id"]) not in on
    there = set(hosts.held("h2"))
    assert there >= {("port", site.other["id"]), ("network", site.network), ("forwarding", site.network), ("security_group", site.remote)}
    assert not there & {("dhcp", site.network), ("router", site.router), ("address_set", site.remote), ("security_group", site.group)}


Change = Callable[[Site, dict[str, Any]], Any]
CHANGES: list[tuple[str, Change, set[str]]] = [
    ("port name", lambda s, o: s.put(f"ports/{s.port['id']}", port={"name": "other"}), set()),
    ("port DNS name", lambda s, o: s.put(f"ports/{s.port['id']}", port={"dns_name": "web"}), {"dhcp"}),
    ("port down", lambda s, o: s.put(f"ports/{s.port['id']}", port={"admin_state_up": False}), {"port"}),
    ("port address", lambda s, o: s.put(f"ports/{s.other['id']}", port={"fixed_ips": [{"ip_address": "172.16.20.222"}]}),
     {"port", "dhcp", "address_set", "forwarding"}),
    ("port allowed pair", lambda s, o: s.put(f"ports/{s.other['id']}", port={"allowed_address_pairs": [{"ip_address": "172.16.20.99"}]}),
     {"port", "address_set"}),
    ("network name", lambda s, o: s.put(f"networks/{s.network}", network={"name": "other"}), set()),
    ("network down", lambda s, o: s.put(f"networks/{s.network}", network={"admin_state_up": False}), {"network"}),
    ("nameserver", lambda s, o: s.put(f"subnets/{s.subnet}", subnet={"dns_nameservers": ["8.8.8.8"]}), {"network"}),
    ("subnet name", lambda s, o: s.put(f"subnets/{s.subnet}", subnet={"name": "other"}), set()),
    ("rule", lambda s, o: s.post("security-group-rules", "security_group_rule", security_group_id=s.group, direction="ingress", protocol="icmp"),
     {"security_group"}),
    ("rule gone", lambda s, o: s.delete(f"security-group-rules/{s.rule}"), {"security_group", "address_set"}),
    ("router down", lambda s, o: s.put(f"routers/{s.router}", router={"admin_state_up": False}), {"router"}),
    ("router name", lambda s, o: s.put(f"routers/{s.router}", router={"name": "other"}), set()),
    ("floating IP", lambda s, o: s.post("floatingips", "floatingip", floating_network_id=o["id"], port_id=s.port["id"]), {"router"}),
    ("unassociated floating IP", lambda s, o: s.post("floatingips", "floatingip", floating_network_id=o["id"]), set()),
    ("unbound port", lambda s, o: s.post("ports", "port", network_id=s.network, security_groups=[s.remote]), {"dhcp", "address_set"}),
]  # fmt: skip


@pytest.fixture
def fresh(admin: httpx.Client, hosts: Hosts, outside: dict[str, Any], request: pytest.FixtureRequest) -> Site:
    hosts.report("h1", "192.0.2.11")
    made = Site(admin, hosts, 20)
    made.put(f"routers/{made.router}", router={"external_gateway_info": {"network_id": outside["id"]}})
    return made


@pytest.mark.parametrize(("change", "kinds"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_change_bumps_only_the_documents_it_changes(site: Site, fresh: Site, hosts: Hosts, outside: dict[str, Any], change: Change,
                                                      kinds: set[str]) -> None:  # fmt: skip
    before = {host: hosts.held(host) for host in ("h1", "h2")}
    bodies = {key: hosts.body(*key) for held in before.values() for key in held}
    change(fresh, outside)
    after = {host: hosts.held(host) for host in ("h1", "h2")}
    moved = {key for host in after for key in before[host].keys() | after[host].keys() if before[host].get(key) != after[host].get(key)}
    differ = {key for key in bodies if hosts.body(*key) != bodies[key]}
    kept = {key for key in moved if any(key in before[host] and key in after[host] for host in after)}
    assert kept <= differ, "a document is told again and is the same"
    assert differ <= moved, "a document changed and nobody was told"
    assert {kind for kind, _ in moved} == kinds


def test_what_leaves_takes_its_documents_along(fresh: Site, hosts: Hosts, outside: dict[str, Any]) -> None:
    mine = {fresh.network, fresh.router, fresh.group, fresh.remote, fresh.port["id"], fresh.other["id"]}
    assert mine & {id_ for _, id_ in hosts.held("h1")}
    for port in (fresh.port, fresh.other):
        fresh.delete(f"ports/{port['id']}")
    held = {(kind, id_) for host in ("h1", "h2") for kind, id_ in hosts.held(host)}
    assert not held & {("security_group", fresh.group), ("address_set", fresh.remote), ("security_group", fresh.remote)}
    assert not {id_ for _, id_ in hosts.held("h2")} & mine
    fresh.put(f"routers/{fresh.router}/remove_router_interface", subnet_id=fresh.subnet)
    assert ("router", fresh.router) in hosts.held("h1"), "it still has a way out"
    fresh.put(f"routers/{fresh.router}", router={"external_gateway_info": {}})
    assert ("dhcp", fresh.network) in hosts.held("h1")
    fresh.delete(f"subnets/{fresh.subnet}")
    assert not {id_ for _, id_ in hosts.held("h1")} & mine


def test_status_is_what_was_reported(fresh: Site, hosts: Hosts) -> None:
    def status(port_id: str) -> str:
        return str(fresh.client.get(f"{V2}/ports/{port_id}").json()["port"]["status"])

    assert status(fresh.port["id"]) == "DOWN"
    hosts.apply("h1")
    assert status(fresh.port["id"]) == "ACTIVE"
    assert status(fresh.other["id"]) == "DOWN"
    with hosts.cloud.db.read() as conn:
        assert openvswitch.status(conn, fresh.port["id"]) == "ACTIVE"
    kinds = {port["device_owner"]: port["status"] for port in fresh.client.get(f"{V2}/ports?network_id={fresh.network}").json()["ports"]}
    assert kinds["network:dhcp"] == kinds["network:router_interface"] == "ACTIVE"


def test_a_server_is_wired_when_all_it_needs_is_true(running: Running, fresh: Site, hosts: Hosts) -> None:
    caller, server = identity.authenticate(running.cloud, running.token("admin"), ids.request_id()), ids.uuid()
    with caller.write() as tx:
        port = network.ports_for_server(tx, caller, server, [{"uuid": fresh.network}], [], "guest")[0]
        network.bind_ports(tx, server, "h2")
    address = port.fixed_ips[0]["ip_address"]

    def wired() -> bool:
        with running.cloud.db.read() as conn:
            return network.unwired(conn, "h2", server) is None

    assert not wired()
    hosts.apply("h2")
    with running.cloud.db.read() as conn:
        assert network.unwired(conn, "h2", server) == f"applied:dhcp:{fresh.network}"
    assert not wired(), "the DHCP server on h1 does not know it yet"
    hosts.apply("h1")
    assert wired()
    with running.cloud.db.read() as conn:
        assert network.server_at(conn, "network", fresh.network, address) == server
        assert network.server_at(conn, "router", fresh.router, address) == server
        assert network.server_at(conn, "network", ids.uuid(), address) is None


def test_a_dhcp_servers_port_comes_again(fresh: Site, hosts: Hosts) -> None:
    before = hosts.body("dhcp", fresh.network)["port"]["id"]
    fresh.delete(f"ports/{before}")
    after = hosts.body("dhcp", fresh.network)["port"]
    assert after["id"] != before and len(after["fixed_ips"]) == 1


def test_a_moved_port_is_held_by_its_new_host_alone(fresh: Site, hosts: Hosts) -> None:
    fresh.put(f"ports/{fresh.port['id']}", port={"binding:host_id": "h2"})
    assert ("port", fresh.port["id"]) in hosts.held("h2") and ("port", fresh.port["id"]) not in hosts.held("h1")
    assert ("security_group", fresh.group) in hosts.held("h2") and ("address_set", fresh.remote) in hosts.held("h2")
    assert ("security_group", fresh.group) not in hosts.held("h1")
    shown = fresh.client.get(f"{V2}/ports/{fresh.port['id']}").json()["port"]
    assert (shown["binding:host_id"], shown["binding:vif_type"]) == ("h2", "ovs")
    failed = fresh.put(f"ports/{fresh.port['id']}", port={"binding:host_id": "nowhere"})["port"]
    assert failed["binding:vif_type"] == "binding_failed"


def test_an_address_that_changes_is_told_to_all(site: Site, hosts: Hosts) -> None:
    before = hosts.held("h1")
    hosts.report("h2", "192.0.2.112", ago=3600)
    after = hosts.held("h1")
    assert {key for key in after if before.get(key) != after[key]} >= {("host", "h1"), ("forwarding", site.network)}
    assert {"host": "h2", "tunnel_ip": "192.0.2.112"} in hosts.body("host", "h1")["peers"]
    hosts.report("h2", "192.0.2.112", ago=3600)
    assert hosts.held("h1") == after, "an address that stays changes nothing"


def test_what_lives_on_a_dead_host_moves(running: Running, fresh: Site, hosts: Hosts) -> None:
    who, rescheduling = System(ids.request_id()), loops.Rescheduling()
    hosts.report("h1", "192.0.2.11", ago=3600)
    hosts.report("h3", "192.0.2.13")
    rescheduling.run(running.cloud, who)
    assert ("router", fresh.router) in hosts.held("h1"), "it has not watched long enough to know"
    rescheduling.since = clock.boottime() - 1000
    rescheduling.run(running.cloud, who)
    assert ("router", fresh.router) in hosts.held("h3") and ("dhcp", fresh.network) in hosts.held("h3")
    assert ("router", fresh.router) not in hosts.held("h1") and ("dhcp", fresh.network) not in hosts.held("h1")
    assert ("network", fresh.network) in hosts.held("h1"), "a guest is still there"
    agents = fresh.client.get(f"{V2}/networks/{fresh.network}/dhcp-agents").json()["agents"]
    assert [agent["host"] for agent in agents] == ["h3"]
    hosts.report("h1", "192.0.2.11")


def test_what_found_no_host_gets_one_later(running: Running, admin: httpx.Client, hosts: Hosts) -> None:
    for name, address in (("h1", "192.0.2.11"), ("h2", "192.0.2.112"), ("h3", "192.0.2.13")):
        hosts.report(name, address, ago=3600)
    made = admin.post(f"{V2}/networks", json={"network": {}}).json()["network"]["id"]
    body = {"network_id": made, "ip_version": 4, "cidr": "172.16.30.0/24"}
    assert admin.post(f"{V2}/subnets", json={"subnet": body}).status_code == 201
    with running.cloud.db.read() as conn:
        assert conn.execute(sa.select(dhcp_servers.c.host).where(dhcp_servers.c.network_id == made)).scalar() is None
    hosts.report("h1", "192.0.2.11")
    loops.Rescheduling().run(running.cloud, System(ids.request_id()))
    assert ("dhcp", made) in hosts.held("h1")
