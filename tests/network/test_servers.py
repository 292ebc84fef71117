"""What compute asks of networks: ports made and taken for servers, bound, shown, given back."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from nacre import identity, network
from nacre.core import ids, nodes
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Error

V2 = "/network/v2.0"


@pytest.fixture(scope="module")
def cloud(running: Running) -> Cloud:
    with running.cloud.db.write(System(ids.request_id())) as tx:
        for name, address in (("h1", "192.0.2.11"), ("h2", "192.0.2.12")):
            nodes.register(tx, name)
            network.reported(tx, name, {"address": address})
    return running.cloud


@pytest.fixture(scope="module")
def demo(running: Running) -> Iterator[httpx.Client]:
    with running.http("demo") as client:
        yield client


@pytest.fixture(scope="module")
def caller(running: Running, cloud: Cloud) -> Caller:
    return identity.authenticate(cloud, running.token("demo"), ids.request_id())


def post(client: httpx.Client, what: str, singular: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{V2}/{what}", json={singular: body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()[singular]
    return found


@pytest.fixture(scope="module")
def own(demo: httpx.Client, cloud: Cloud) -> str:
    found = post(demo, "networks", "network", name="own")["id"]
    pool = {"start": "172.16.1.100", "end": "172.16.1.200"}  # nobody gets 172.16.1.77 by chance
    post(demo, "subnets", "subnet", network_id=found, ip_version=4, cidr="172.16.1.0/24", allocation_pools=[pool])
    return str(found)


@pytest.fixture(scope="module")
def outside(running: Running, cloud: Cloud) -> str:
    flat = {"router:external": True, "provider:network_type": "flat", "provider:physical_network": "external"}
    with running.http("admin") as admin:
        found = post(admin, "networks", "network", **flat)["id"]
        post(admin, "subnets", "subnet", network_id=found, ip_version=4, cidr="172.24.4.0/24", enable_dhcp=False)
    return str(found)


def ask(caller: Caller, server_id: str, requested: Any, *groups: str) -> list[network.Port]:
    with caller.write() as tx:
        return network.ports_for_server(tx, caller, server_id, requested, groups, "guest")


def shown(cloud: Cloud, server_id: str) -> list[network.Port]:
    with cloud.db.read() as conn:
        return network.ports_of(conn, [server_id])[server_id]


def release(caller: Caller, server_id: str) -> None:
    with caller.write() as tx:
        network.release_ports(tx, server_id)


@pytest.mark.parametrize("requested", [None, "auto"])
def test_the_only_network_is_meant(caller: Caller, own: str, outside: str, requested: Any) -> None:
    server = ids.uuid()
    port = ask(caller, server, requested)[0]
    assert (port.network_id, port.network_name, port.mtu, port.status, port.security_groups) == (own, "own", 1450, "DOWN", ("default",))
    assert port.tap == f"tap{port.id[:11]}" and port.fixed_ips[0]["ip_address"].startswith("172.16.1.") and port.device_id == server
    release(caller, server)


def test_none_is_none(caller: Caller, own: str) -> None:
    assert ask(caller, ids.uuid(), "none") == []


def test_a_port_is_bound_and_moves_and_goes(caller: Caller, cloud: Cloud, demo: httpx.Client, own: str) -> None:
    server = ids.uuid()
    made = ask(caller, server, [{"uuid": own, "fixed_ip": "172.16.1.77"}, {"uuid": own}])
    assert made[0].fixed_ips[0]["ip_address"] == "172.16.1.77"
    for host in ("h1", "h2"):
        with caller.write() as tx:
            network.bind_ports(tx, server, host)
        with cloud.db.read() as conn:
            assert {name for port in made for name in nodes.holders_of(conn, "port", port.id)} == {host}
        bound = demo.get(f"{V2}/ports/{made[0].id}").json()["port"]
        assert bound["device_owner"] == "compute:nova" and "binding:host_id" not in bound
    assert [port.id for port in shown(cloud, server)] == [port.id for port in made]
    with caller.write() as tx:
        network.unbind_ports(tx, server)
    with cloud.db.read() as conn:
        assert nodes.holders_of(conn, "port", made[0].id) == []
    release(caller, server)
    release(caller, server)
    assert shown(cloud, server) == []
    assert demo.get(f"{V2}/ports/{made[0].id}").status_code == 404


def test_a_given_port_is_only_detached(caller: Caller, cloud: Cloud, demo: httpx.Client, own: str) -> None:
    server = ids.uuid()
    port = post(demo, "ports", "port", network_id=own)
    assert [taken.id for taken in ask(caller, server, [{"port": port["id"]}])] == [port["id"]]
    with pytest.raises(Error, match="is still in use") as refused:
        ask(caller, ids.uuid(), [{"port": port["id"]}])
    assert refused.value.code == 409
    release(caller, server)
    left = demo.get(f"{V2}/ports/{port['id']}").json()["port"]
    assert (left["device_id"], left["device_owner"], left["fixed_ips"]) == ("", "", port["fixed_ips"])


def test_nobody_makes_himself_a_servers_port(caller: Caller, cloud: Cloud, demo: httpx.Client, own: str) -> None:
    """Metadata is served by a guest's address: a port that only says it is a server's must not be taken for it."""
    victim, mine = ids.uuid(), ids.uuid()
    ask(caller, victim, [{"uuid": own}])
    liar = post(demo, "ports", "port", network_id=own, device_id=victim, device_owner="compute:nova")
    with cloud.db.read() as conn:
        assert network.server_at(conn, "network", own, liar["fixed_ips"][0]["ip_address"]) is None
    assert liar["id"] not in [port.id for port in shown(cloud, victim)]
    attached = ask(caller, mine, [{"uuid": own}])[0]
    for said in ({"device_id": victim}, {"device_owner": "compute:other"}):
        answer = demo.put(f"{V2}/ports/{attached.id}", json={"port": said})
        assert (answer.status_code, answer.json()["NeutronError"]["type"]) == (409, "PortInUse")
    with cloud.db.read() as conn:
        assert network.server_at(conn, "network", own, attached.fixed_ips[0]["ip_address"]) == mine
    for server in (victim, mine):
        release(caller, server)
    assert demo.get(f"{V2}/ports/{liar['id']}").status_code == 200, "what is not the server's does not go with it"
    demo.delete(f"{V2}/ports/{liar['id']}")


def test_groups_of_a_server(caller: Caller, cloud: Cloud, demo: httpx.Client, own: str) -> None:
    server = ids.uuid()
    web = post(demo, "security-groups", "security_group", name="web")
    ask(caller, server, [{"uuid": own}], "web")
    with caller.write() as tx:
        network.add_security_group(tx, caller, server, "default")
    with cloud.db.read() as conn:
        assert [group["name"] for group in network.security_groups_of(conn, [server])[server]] == ["default", "web"]
    with caller.write() as tx:
        network.remove_security_group(tx, caller, server, web["id"])
    assert shown(cloud, server)[0].security_groups == ("default",)
    with pytest.raises(Error) as refused, caller.write() as tx:
        network.remove_security_group(tx, caller, server, "web")
    assert refused.value.code == 404
    release(caller, server)


def test_refusals(caller: Caller, cloud: Cloud, demo: httpx.Client, own: str, outside: str) -> None:
    bare = post(demo, "networks", "network", name="bare")["id"]
    cases = [
        (None, (), 409, "Multiple possible networks found"),
        ([{"uuid": "nonsense"}], (), 400, "Network nonsense could not be found."),
        ([{"uuid": bare}], (), 400, "requires a subnet in order to boot instances on."),
        ([{"uuid": outside}], (), 403, "It is not allowed to create an interface on external network"),
        ([{"port": "nonsense"}], (), 400, "Port id nonsense could not be found."),
        ([{"uuid": own, "fixed_ip": "172.16.9.9"}], (), 400, "172.16.9.9"),
        ([{"uuid": own, "fixed_ip": "172.16.1.88"}] * 2, (), 400, "Fixed IP address 172.16.1.88 is already in use."),
        ([{"uuid": own}], ("nonsense",), 400, "Security group nonsense not found."),
    ]  # fmt: skip
    for requested, groups, status, words in cases:
        server = ids.uuid()
        with pytest.raises(Error) as refused:
            ask(caller, server, requested, *groups)
        assert (refused.value.code, words in refused.value.message) == (status, True), refused.value.message
        assert shown(cloud, server) == []
    demo.delete(f"{V2}/networks/{bare}")


def test_a_host_that_cannot_wire_is_refused(caller: Caller, own: str) -> None:
    server = ids.uuid()
    ask(caller, server, [{"uuid": own}])
    with pytest.raises(Error, match="Binding failed for port") as refused, caller.write() as tx:
        network.bind_ports(tx, server, "unheard-of")
    assert refused.value.name == "PortBindingFailed"
    release(caller, server)
