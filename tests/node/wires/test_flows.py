"""What the flows of a host are, table by table."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.node.wires import firewall, switching
from nacre.node.wires.driver import Document
from nacre.node.wires.flowset import Compiler
from nacre.node.wires.layout import Network, network_of
from nacre.node.wires.openflow import BASE, Entry, Flows, Key, difference
from nacre.node.wires.ovsdb import Bridge, Switch, SwitchPort

NET = "net-1"
MACS = {"a": "fa:16:3e:00:00:0a", "b": "fa:16:3e:00:00:0b"}


def switch_port(name: str, number: int, port_id: str, bridge: str = "br-int") -> SwitchPort:
    return SwitchPort(name, f"uuid-{name}", bridge, None, "", {}, {"iface-id": port_id}, number)


SWITCH = Switch(
    {"br-int": Bridge("br-int", "u", "netdev", {}), "br-tun": Bridge("br-tun", "v", "netdev", {})},
    {
        port.name: port
        for port in (
            switch_port("patch-tun", 1, ""),
            switch_port("tapa", 10, "a"),
            switch_port("tapb", 11, "b"),
            switch_port("patch-int", 1, "", "br-tun"),
            switch_port("vxlan-c0000202", 7, "", "br-tun"),
        )
    },
)


def documents(*given_documents: Document) -> dict[str, dict[str, Document]]:
    found: dict[str, dict[str, Document]] = {}
    for document in given_documents:
        found.setdefault(document.kind, {})[document.id] = document
    return found


def port(id_: str, **more: Any) -> Document:
    address = {"a": "172.16.1.10", "b": "172.16.1.11"}[id_]
    body = {"network_id": NET, "mac_address": MACS[id_], "port_security": True, "security_groups": ["g"]}
    return Document("port", id_, 1, {**body, "fixed_ips": [{"ip_address": address, "subnet_id": "s"}], **more})


def group(*rules: Mapping[str, Any], version: int = 1, **more: Any) -> Document:
    return Document("security_group", "g", version, {"stateful": True, "rules": list(rules), **more})


def rule(direction: str = "ingress", **more: Any) -> dict[str, Any]:
    return {"id": "r", "direction": direction, "ethertype": "IPv4", **more}


NETWORK = Document("network", NET, 1, {"network_type": "vxlan", "segmentation_id": 1001, "mtu": 1450, "subnets": []})
NETWORKS = {NET: network_of(NETWORK, 5, {})}


def compiled(*more: Document) -> dict[Key, Entry]:
    return Compiler().compile(documents(NETWORK, *more), NETWORKS, [], SWITCH).bridges["br-int"]


def rows(entries: Mapping[Key, Entry], table: int) -> dict[str, str]:
    return {key.match: entry.actions for key, entry in entries.items() if key.table == table}


def test_a_guest_sends_only_as_itself() -> None:
    sent = rows(compiled(port("a"), group(rule("egress"))), 71)
    passed = {match for match, actions in sent.items() if actions != "drop"}
    assert all(f"dl_src={MACS['a']}" in match for match in passed), "nothing passes without its own MAC"
    for match in passed:
        if match.startswith("arp"):
            assert "arp_spa=172.16.1.10" in match or ("arp_spa=0.0.0.0" in match and "arp_tpa=172.16.1.10" in match)
        elif match.startswith(("ip,", "udp,")):
            assert "nw_src=172.16.1.10" in match or "nw_src=0.0.0.0,tp_src=68,tp_dst=67" in match
        else:
            assert re.search(r"ipv6_src=(::|fe80::f816:3eff:fe00:a)(,|$)|nd_target=fe80::f816:3eff:fe00:a", match), match
        if ("icmp_type=135" in match and "ipv6_src=::" in match) or "icmp_type=136" in match:
            assert "nd_target=fe80::f816:3eff:fe00:a" in match, "of neighbours it neither answers for others nor doubts their addresses"
    never = {"udp,tp_src=67,tp_dst=68", "udp6,tp_src=547,tp_dst=546", *(f"icmp6,icmp_type={kind}" for kind in (133, 134, 135, 136, 137))}
    assert never <= {match.replace(",reg5=10", "") for match, actions in sent.items() if actions == "drop"}
    assert "ipv6,ip_frag=first,nw_proto=60,reg5=10" in sent
    again = rows(compiled(port("a"), group(rule("egress"))), 72)
    assert never <= {match for match, actions in again.items() if actions == "drop"}, "nor in fragments"


def test_allowed_pairs_extend_what_it_is() -> None:
    pairs = [{"ip_address": "172.16.1.128/25", "mac_address": None}, {"ip_address": "172.16.1.99", "mac_address": "00:00:5E:00:01:01"}]
    entries = compiled(port("a", allowed_address_pairs=pairs), port("b"), group())
    sent = rows(entries, 71)
    assert f"ip,reg5=10,dl_src={MACS['a']},nw_src=172.16.1.128/25" in sent
    assert "arp,reg5=10,dl_src=00:00:5e:00:01:01,arp_sha=00:00:5e:00:01:01,arp_spa=172.16.1.99" in sent
    there = rows(entries, 60)["reg6=5,dl_dst=00:00:5e:00:01:01"]
    assert "resubmit(,81)" in there and "output:1" in there, "it may be here or elsewhere"


def test_rules_become_one_flow_each_and_remote_groups_a_conjunction() -> None:
    members = Document("address_set", "g", 1, {"addresses": ["172.16.1.10", "172.16.1.11", "2001:db8::1"]})
    web = rule(protocol="tcp", port_range_min=80, port_range_max=80)
    entries = compiled(port("a"), port("b"), group(web, rule(remote_group_id="g"), rule("egress", remote_ip_prefix="10.0.0.0/8")), members)
    got = rows(entries, 82)
    assert got["tcp,tp_dst=80,reg5=10"] == got["tcp,tp_dst=80,reg5=11"] == "resubmit(,92)"
    number = re.fullmatch(r"conjunction\((\d+),1/2\)", got["ip,nw_src=172.16.1.10"])
    assert number and got["ip,reg5=10"] == got["ip,reg5=11"] == f"conjunction({number[1]},2/2)"
    assert got[f"conj_id={number[1]},ip"] == "resubmit(,92)"
    assert rows(entries, 72)["ip,reg5=10,nw_dst=10.0.0.0/8"] == "resubmit(,73)"


def test_the_cost_of_a_remote_group_is_a_sum() -> None:
    members = Document("address_set", "g", 1, {"addresses": [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]})
    rules = [rule(remote_group_id="g", protocol="tcp", port_range_min=n, port_range_max=n) for n in range(1, 21)]
    few = len(compiled(port("a"), group(*rules)))
    assert len(compiled(port("a"), group(*rules), members)) == few + 1000


def test_same_match_of_two_remote_groups_is_one_flow_with_both() -> None:
    two = [rule(remote_group_id="g"), rule(remote_group_id="h")]
    sets = [Document("address_set", name, 1, {"addresses": ["10.0.0.1"]}) for name in ("g", "h")]
    got = rows(compiled(port("a"), group(*two), *sets), 82)
    assert len(got["ip,reg5=10"].split("),")) == len(got["ip,nw_src=10.0.0.1"].split("),")) == 2


def test_without_port_security_nothing_is_checked() -> None:
    entries = compiled(port("a", port_security=False, security_groups=[]))
    assert not [key for key in entries if "reg5=10" in key.match]
    assert rows(entries, 0)["in_port=10,vlan_tci=0x0000/0x1fff"] == "load:5->NXM_NX_REG6[],resubmit(,60)"


@pytest.mark.parametrize("down", [{"admin_state_up": False}])
def test_a_port_that_is_down_gets_and_sends_nothing(down: dict[str, Any]) -> None:
    entries = compiled(port("a", **down), group(rule(), rule("egress")))
    assert rows(entries, 0)["in_port=10,vlan_tci=0x0000/0x1fff"] == "drop"
    assert not [key for key, entry in entries.items() if (key.table in (60, 73) and "0a" in key.match) or ":10," in entry.actions]


def test_stateless_groups_keep_no_connections() -> None:
    entries = compiled(port("a"), group(rule(), rule("egress"), stateful=False))
    assert not [key for key, entry in entries.items() if "reg5=10" in key.match and "ct(" in entry.actions]
    assert rows(entries, 81)["ip,reg5=10"] == "ct_clear,resubmit(,82)"
    assert f"reg6=5,dl_dst={MACS['a']}" not in rows(entries, 73), "who sends to it commits"


def test_an_impossible_rule_allows_nothing_and_harms_nobody() -> None:
    bad = rule(protocol="tcp", port_range_min=9, port_range_max=3)
    made = Compiler().compile(documents(NETWORK, port("a"), group(bad, rule(protocol="icmp"))), NETWORKS, [], SWITCH)
    assert list(made.failed) == [("security_group", "g")] and made.wired == {("port", "a")}
    assert "icmp,reg5=10" in rows(made.bridges["br-int"], 82)


def test_an_impossible_port_is_left_out_alone() -> None:
    made = Compiler().compile(documents(NETWORK, port("a", fixed_ips=[{"ip_address": "x"}]), port("b"), group()), NETWORKS, [], SWITCH)
    assert list(made.failed) == [("port", "a")] and made.wired == {("port", "b")}


def test_a_group_that_has_not_come_keeps_the_port_from_being_reported() -> None:
    assert not Compiler().compile(documents(NETWORK, port("a")), NETWORKS, [], SWITCH).wired


def test_what_is_remembered_is_what_would_be_compiled() -> None:
    compiler = Compiler()
    states = [
        documents(NETWORK, port("a"), port("b"), group(rule())),
        documents(NETWORK, port("a"), port("b"), group(rule(), rule(protocol="udp"), version=2)),
        documents(NETWORK, port("b"), group(rule(remote_group_id="g"), version=3)),
        documents(NETWORK, port("a"), port("b"), group(rule(remote_group_id="g"), version=3)),
    ]
    for state in states:
        assert compiler.compile(state, NETWORKS, [], SWITCH).bridges == Compiler().compile(state, NETWORKS, [], SWITCH).bridges


def tunnel_flows(*entries: Mapping[str, Any]) -> dict[Key, Entry]:
    trunks = switching.Trunks(1, 1, tunnels={("vxlan", "192.0.2.2"): 7, ("vxlan", "192.0.2.3"): 8})
    return switching.tunnelling(NETWORKS.values(), {NET: entries}, trunks).entries()


def test_other_hosts_ports_are_known_and_the_rest_flooded_to_hosts_of_the_network() -> None:
    one = {"mac_address": "FA:16:3E:00:00:0C", "ip_addresses": [], "tunnel_ip": "192.0.2.2", "host": "two"}
    flows = tunnel_flows(one)
    assert rows(flows, 20)["dl_vlan=5,dl_dst=fa:16:3e:00:00:0c"] == "pop_vlan,set_field:0x3e9->tun_id,output:7"
    assert rows(flows, 22)["dl_vlan=5"] == "pop_vlan,set_field:0x3e9->tun_id,output:7", "not to a host without the network"
    assert rows(flows, 4)["tun_id=0x3e9"].endswith("resubmit(,10)")
    assert "dl_vlan=5" not in rows(tunnel_flows(), 22)


@pytest.mark.parametrize(("kind", "segment", "entry", "leave"), [
    ("flat", None, "in_port=3,vlan_tci=0x0000/0x1fff", "pop_vlan,NORMAL"),
    ("vlan", 200, "in_port=3,dl_vlan=200", "set_field:4296->vlan_vid,NORMAL"),
])  # fmt: skip
def test_provider_networks_cross_only_where_mapped(kind: str, segment: int | None, entry: str, leave: str) -> None:
    network = Network("n", 6, kind, segment, "br-ex", 1500, True)
    trunks = switching.Trunks(1, 1, {"br-ex": 3}, {"br-ex": 4})
    assert entry in rows(switching.integration([network], [], {}, trunks).entries(), 0)
    outer = rows(switching.physical("br-ex", [network], trunks).entries(), 0)
    assert outer["in_port=4,dl_vlan=6"] == leave and outer["in_port=4"] == "drop"
    assert rows(switching.physical("br-ex", [], trunks).entries(), 0) == {"": "NORMAL", "in_port=4": "drop"}


def test_conjunction_ids_are_distinct_and_the_same_again() -> None:
    groups = [(f"group-{n}", direction, family) for n in range(500) for direction in ("ingress", "egress") for family in ("ip", "ipv6")]
    ids = firewall.conjunction_ids(groups)
    assert len(set(ids.values())) == len(ids) == 2000 and ids == firewall.conjunction_ids(reversed(groups))
    assert all(0 < number < 1 << 32 for number in ids.values())


flow_sets = st.dictionaries(
    st.builds(Key, st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", "ip", "arp"])), st.sampled_from(["drop", "NORMAL"]), max_size=9
)


@given(flow_sets, flow_sets)
def test_a_difference_turns_one_set_into_the_other_and_is_then_nothing(before: dict[Key, str], after: dict[Key, str]) -> None:
    wanted = {key: Entry(actions, BASE) for key, actions in after.items()}
    state = {key.text(): actions for key, actions in before.items()}
    for line in difference(before, wanted, 1):
        if line.startswith("delete_strict "):
            del state[line.removeprefix("delete_strict ")]
        else:
            text, _, actions = line.removeprefix("add cookie=0x1,").partition(",actions=")
            assert state.get(text) != actions, "what is right is not touched"
            state[text] = actions
    assert state == {key.text(): actions for key, actions in after.items()}
    assert difference(after, wanted, 1) == []


def test_merging_keeps_conjunctions_of_both() -> None:
    one, other = Flows(), Flows()
    one.conjoin(BASE, 82, 70, "ip", "conjunction(1,1/2)")
    other.conjoin(BASE, 82, 70, "ip", "conjunction(2,1/2)")
    one.merge(other)
    assert one.entries() == {Key(82, 70, "ip"): Entry("conjunction(1,1/2),conjunction(2,1/2)", BASE)}
