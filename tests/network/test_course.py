"""The course's network commands, as typed, with the unmodified command line client against a cloud with one host."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import Running
from fake_node import FakeNode, until
from image.test_all_commands import Commands
from image.test_image_clients import Shell as ImageShell

pytestmark = pytest.mark.commands

Shell = Callable[..., Any]


@contextmanager
def shell(running: Running, user: str, home: Path) -> Iterator[Shell]:
    """Runs `openstack <words>` as `user`; what it printed as JSON, or its text when it has no formatter. Fails unless it exits with 0."""
    commands = Commands(ImageShell(running, user, home))

    def run(words: str, *, formatted: bool = True, fails: bool = False) -> Any:
        done = commands.run(words, *(["-f", "json"] if formatted else []))
        assert (done["code"] != 0) == fails, done
        if fails:
            return done["err"]
        return json.loads(done["out"]) if formatted else done["out"]

    yield run
    commands.close()


@pytest.fixture(scope="module")
def admin(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with shell(running, "admin", tmp_path_factory.mktemp("admin")) as made:
        yield made


@pytest.fixture(scope="module")
def demo(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with shell(running, "demo", tmp_path_factory.mktemp("demo")) as made:
        yield made


@pytest.fixture(scope="module")
def walked(node: FakeNode, admin: Shell, demo: Shell) -> dict[str, Any]:
    """The walkthrough up to the router's gateway; what its commands showed."""
    seen = {}
    seen["ext1"] = admin("network create --external --provider-network-type flat --provider-physical-network external ext1")
    seen["ext1 subnet"] = admin("subnet create --network ext1 --no-dhcp --subnet-range 172.24.4.0/24 --gateway 172.24.4.1 "
                                "--allocation-pool start=172.24.4.10,end=172.24.4.200 ext1")  # fmt: skip
    seen["selfservice"] = demo("network create selfservice")
    seen["subnet"] = demo("subnet create --network selfservice --dns-nameserver 8.8.4.4 --gateway 172.16.1.1 "
                          "--subnet-range 172.16.1.0/24 selfservice")  # fmt: skip
    seen["router"] = demo("router create router")
    demo("router add subnet router selfservice", formatted=False)
    demo("router set router --external-gateway ext1", formatted=False)
    return seen


def test_networks_are_as_typed(walked: dict[str, Any]) -> None:
    ext1, own = walked["ext1"], walked["selfservice"]
    assert (ext1["provider:network_type"], ext1["provider:physical_network"]) == ("flat", "external")
    assert (ext1["router:external"], ext1["mtu"]) == (True, 1500)
    assert (own["mtu"], own["router:external"], own["shared"], own["status"]) == (1450, False, False, "ACTIVE")
    assert own["provider:network_type"] is None, "provider attributes are the administrator's"
    subnet = walked["subnet"]
    assert (subnet["cidr"], subnet["gateway_ip"], subnet["dns_nameservers"]) == ("172.16.1.0/24", "172.16.1.1", ["8.8.4.4"])
    assert subnet["allocation_pools"] == [{"start": "172.16.1.2", "end": "172.16.1.254"}]
    assert walked["ext1 subnet"]["allocation_pools"] == [{"start": "172.24.4.10", "end": "172.24.4.200"}]


def test_the_router_has_its_legs(walked: dict[str, Any], admin: Shell, demo: Shell) -> None:
    ports = demo("port list --router router")
    assert [one["ip_address"] for port in ports for one in port["Fixed IP Addresses"]] == ["172.16.1.1"]
    everything = admin(f"port list --router {walked['router']['id']}")
    assert len(everything) == 2
    shown = demo("router show router")
    outside = shown["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]
    assert outside.startswith("172.24.4.") and 10 <= int(outside.rpartition(".")[2]) <= 200
    assert shown["external_gateway_info"]["enable_snat"] is True
    assert shown["interfaces_info"][0]["ip_address"] == "172.16.1.1"


def test_rules_open_the_default_group(walked: dict[str, Any], demo: Shell) -> None:
    demo("security group rule create --proto icmp default")
    demo("security group rule create --proto tcp --dst-port 22 default")
    rules = demo("security group rule list default")
    assert ("tcp", "22:22") in {(rule["IP Protocol"], rule["Port Range"]) for rule in rules}
    assert len(rules) == 6
    assert "Security group rule already exists" in demo("security group rule create --proto icmp default", fails=True, formatted=False)


def test_a_floating_ip_leads_to_a_port(walked: dict[str, Any], demo: Shell) -> None:
    floating = demo("floating ip create ext1")
    assert floating["floating_ip_address"].startswith("172.24.4.") and floating["status"] == "DOWN"
    port = demo("port create --network selfservice guest")
    demo(f"floating ip set --port guest {floating['floating_ip_address']}", formatted=False)
    until(lambda: demo(f"floating ip show {floating['id']}")["status"] == "ACTIVE")
    shown = demo(f"floating ip show {floating['floating_ip_address']}")
    assert (shown["port_id"], shown["router_id"]) == (port["id"], walked["router"]["id"])
    assert "required by one or more floating IPs" in demo("router remove subnet router selfservice", fails=True, formatted=False)
    assert "required by one or more floating IPs" in demo("router unset router --external-gateway", fails=True, formatted=False)
    demo(f"floating ip unset --port {floating['id']}", formatted=False)
    demo(f"floating ip delete {floating['id']}", formatted=False)
    demo("port delete guest", formatted=False)


def test_agents_are_shown(walked: dict[str, Any], admin: Shell, demo: Shell) -> None:
    agents = admin("network agent list")
    kinds = {(agent["Agent Type"], agent["Binary"]) for agent in agents}
    assert kinds == {("Open vSwitch agent", "neutron-openvswitch-agent"), ("DHCP agent", "neutron-dhcp-agent"),
                     ("L3 agent", "neutron-l3-agent"), ("Metadata agent", "neutron-metadata-agent")}  # fmt: skip
    assert all(agent["Alive"] is True and agent["Host"] == "nacre-1" for agent in agents)
    assert [agent["Host"] for agent in admin("network agent list --network selfservice")] == ["nacre-1"]
    assert [agent["Agent Type"] for agent in admin(f"network agent list --router {walked['router']['id']}")] == ["L3 agent"]
    shown = next(agent for agent in agents if agent["Agent Type"] == "L3 agent")
    assert admin(f"network agent show {shown['ID']}")["configuration"]["routers"] == 1
    assert demo("network agent list") == []
    assert "No Agent found" in demo(f"network agent show {shown['ID']}", fails=True, formatted=False)


def test_extensions_are_shown(admin: Shell) -> None:
    aliases = {extension["Alias"] for extension in admin("extension list --network")}
    assert {"router", "security-group", "external-net", "provider", "agent"} <= aliases
    assert "trunk" not in aliases
    assert admin("extension show router")["alias"] == "router"


def test_everything_goes_again(walked: dict[str, Any], admin: Shell, demo: Shell) -> None:
    assert "still has ports" in demo("router delete router", fails=True, formatted=False)
    assert "one or more ports still in use" in demo("network delete selfservice", fails=True, formatted=False)
    demo("router remove subnet router selfservice", formatted=False)
    demo("router unset router --external-gateway", formatted=False)
    demo("router delete router", formatted=False)
    demo("subnet delete selfservice", formatted=False)
    demo("network delete selfservice", formatted=False)
    admin("network delete ext1", formatted=False)
    assert admin("port list") == []


def test_a_member_makes_nothing_of_the_administrators(demo: Shell) -> None:
    refused = demo("network create --share nothing", fails=True, formatted=False)
    assert "create_network:shared" in refused and "403" in refused
    assert "create_network:provider:network_type" in demo("network create --provider-network-type vlan nothing", fails=True, formatted=False)
    assert demo("network list") == []
