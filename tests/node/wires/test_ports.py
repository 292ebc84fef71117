import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.node.wires import layout, ports, underlay
from nacre.node.wires.layout import Leg, Network, Room
from nacre.node.wires.ovsdb import Bridge, Switch, SwitchPort, switch_of
from nacre.node.wires.ports import WantedBridge, WantedPort

BRIDGES = {"br-int": WantedBridge(True), "br-tun": WantedBridge(True), "br-ex": WantedBridge(False)}
ROOM = Room("qdhcp-n", ("dhcp", "n"), (Leg("tapd", "d", "n", "fa:16:3e:00:00:02", 1450, ("10.0.0.2/24",)),))


def carried_out(changes: ports.Changes, switch: Switch) -> Switch:
    """What the database holds after the changes."""
    bridges = dict(switch.bridges)
    for name in changes.bridges:
        bridges[name] = Bridge(name, f"b-{name}", "netdev", {})
    left = {name: port for name, port in switch.ports.items() if name not in changes.removed}
    for name, port in changes.added.items():
        left[name] = SwitchPort(name, f"p-{name}", port.bridge, port.tag, port.type, port.options, port.external_ids, 1)
    for name, tag in changes.tags.items():
        seen = left[name]
        left[name] = SwitchPort(name, seen.uuid, seen.bridge, tag, seen.type, seen.options, seen.external_ids, seen.ofport)
    if changes.vlans is not None:
        bridge = bridges["br-int"]
        bridges["br-int"] = Bridge("br-int", bridge.uuid, "netdev", {f"vlan-{id_}": str(vlan) for id_, vlan in changes.vlans.items()})
    return Switch(bridges, left)


def test_plan_is_nothing_the_second_time_and_takes_only_what_is_ours() -> None:
    foreign = SwitchPort("mine", "x", "br-int", None, "", {}, {}, 5)
    guest = SwitchPort("tapg", "y", "br-int", None, "", {}, {"iface-id": "g"}, 6)
    old = SwitchPort("qr-old", "z", "br-int", 3, "", {}, {"nacre": "qrouter-old"}, 7)
    spared = SwitchPort("qr-kept", "z", "br-int", 3, "", {}, {"nacre": "qrouter-kept"}, 8)
    before = Switch({}, {port.name: port for port in (foreign, guest, old, spared)})
    wanted = ports.patches(["br-ex"]) | ports.legs([ROOM], {"n": 4})
    arguments = (BRIDGES, wanted, {"tapg": 4}, {"n": 4})
    changes = ports.plan(*arguments, before, ["qrouter-kept"])
    assert changes.removed == ("qr-old",) and changes.tags == {"tapg": 4} and set(changes.added) == set(wanted)
    after = carried_out(changes, before)
    assert not ports.plan(*arguments, after, ["qrouter-kept"])
    assert {"mine", "tapg", "qr-kept"} <= after.ports.keys()


def test_a_port_of_other_options_is_made_anew_in_one_transaction() -> None:
    peers = {"n": ["192.0.2.2"]}
    network = Network("n", 1, "vxlan", 7, None, 1450, True)
    before = carried_out(ports.plan(BRIDGES, ports.tunnels([network], "192.0.2.1", peers), {}, {}, Switch()), Switch())
    changes = ports.plan(BRIDGES, ports.tunnels([network], "192.0.2.9", peers), {}, {}, before)
    assert changes.removed == ("vxlan-c0000202",) and changes.added["vxlan-c0000202"].options["local_ip"] == "192.0.2.9"
    made = ports.operations(changes, before, "root", "netdev")
    assert [operation["op"] for operation in made] == ["insert", "insert", "mutate"]
    assert made[2]["mutations"][0] == ["ports", "delete", ["set", [["uuid", "p-vxlan-c0000202"]]]]


def test_only_needed_tunnels_and_never_to_ourselves() -> None:
    networks = [Network("n", 1, "vxlan", 7, None, 1450, True), Network("m", 2, "gre", 8, None, 1450, True)]
    peers = {"n": ["192.0.2.1", "192.0.2.2"], "m": ["192.0.2.3"]}
    assert set(ports.tunnels(networks, "192.0.2.1", peers)) == {"vxlan-c0000202", "gre-c0000203"}
    assert ports.tunnels(networks, None, peers) == {}


def test_bridge_and_port_in_one_transaction() -> None:
    changes = ports.Changes({"br-ex": WantedBridge(False, "fa:16:3e:00:00:01")}, {"eth-ext": WantedPort("br-ex", external_ids={"nacre": "external"})})
    made = ports.operations(changes, Switch(), "root", "netdev")
    bridge = next(operation for operation in made if operation.get("table") == "Bridge")
    assert bridge["row"]["ports"] == ["set", [["named-uuid", "pbr_2d_ex"], ["named-uuid", "peth_2d_ext"]]]
    assert bridge["row"]["fail_mode"] == "standalone" and bridge["row"]["datapath_type"] == "netdev"


def test_vlans_are_remembered_and_forgotten() -> None:
    switch = Switch({"br-int": Bridge("br-int", "u", "netdev", {"vlan-old": "1", "vlan-same": "2", "other": "x"})})
    assert ports.kept_vlans(switch) == {"old": 1, "same": 2}
    (made,) = ports.operations(ports.Changes(vlans={"same": 2, "new": 3}), switch, "root", "netdev")
    assert made["mutations"] == [["external_ids", "delete", ["set", ["vlan-old"]]], ["external_ids", "insert", ["map", [["vlan-new", "3"]]]]]


@given(st.sets(st.text("abc", min_size=1, max_size=3)), st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 4094), max_size=4))
def test_local_vlans_stay_and_are_distinct(networks: set[str], remembered: dict[str, int]) -> None:
    kept = {id_: vlan for vlan, id_ in {vlan: id_ for id_, vlan in remembered.items()}.items()}
    vlans = layout.allocate(networks, kept)
    assert set(vlans) == networks and len(set(vlans.values())) == len(vlans)
    assert all(vlans[id_] == kept[id_] for id_ in networks & kept.keys())
    assert all(1 <= vlan <= 4094 for vlan in vlans.values())
    assert layout.allocate(networks, vlans) == vlans


def test_a_number_rests_before_it_is_used_again() -> None:
    assert layout.allocate(["new"], {"old": 4}) == {"new": 5}
    assert layout.allocate(["new"], {"old": 4094}) == {"new": 1}


@pytest.mark.parametrize("ofport", [None, ["set", []], -1])
def test_a_port_without_a_number_is_not_numbered(ofport: object) -> None:
    interface = {"name": "tapx", "type": "", "options": ["map", []], "external_ids": ["map", [["iface-id", "x"]]], "ofport": ofport}
    tables = {
        "Bridge": {"b": {"name": "br-int", "ports": ["uuid", "p"], "datapath_type": "netdev", "external_ids": ["map", []]}},
        "Port": {"p": {"name": "tapx", "interfaces": ["uuid", "i"], "tag": ["set", []]}},
        "Interface": {"i": interface},
    }
    switch = switch_of(tables)
    assert switch.ports["tapx"].tag is None and switch.numbered("tapx") is None and layout.taps(switch) == {}
    interface["ofport"] = 4
    assert layout.taps(switch_of(tables)) == {"x": "tapx"}


def test_of_two_taps_of_a_port_the_one_named_after_it_counts() -> None:
    there = {name: SwitchPort(name, name, "br-int", None, "", {}, {"iface-id": "0123456789abc"}, 1) for name in ("aaa", "tap0123456789a", "zzz")}
    assert layout.taps(Switch({}, there)) == {"0123456789abc": "tap0123456789a"}


def test_the_tunnel_address_moves_once() -> None:
    def link(name: str, *addresses: str) -> dict[str, object]:
        info = [{"family": "inet", "local": address, "prefixlen": 24} for address in addresses]
        return {"ifname": name, "address": "02:00:00:00:00:01", "addr_info": info}

    default = [{"dst": "default", "gateway": "192.0.2.254", "dev": "eth0"}]
    move = underlay.plan("192.0.2.1", [link("lo", "127.0.0.1"), link("eth0", "192.0.2.1")], default)
    assert move == underlay.Move("eth0", "02:00:00:00:00:01", ("192.0.2.1/24",), "192.0.2.254")
    assert underlay.lines(move)[0] == "address replace 192.0.2.1/24 dev br-phy", "it is there before it goes"
    assert underlay.plan("192.0.2.1", [link("eth0"), link("br-phy", "192.0.2.1")], []) is None
    assert underlay.plan("192.0.2.1", [link("eth0", "192.0.2.1"), link("br-phy", "192.0.2.1")], []) is not None, "half done"
    assert underlay.plan(None, [link("eth0", "192.0.2.1")], []) is None


def test_shields_follow_devices() -> None:
    script = underlay.shield_script({"tapa", "qr-b"}, {"in_tapa", "in_gone"})
    assert "delete chain netdev nacre in_gone" in script and 'device "qr-b"' in script and "tapa" not in script
    assert underlay.shield_script({"tapa"}, {"in_tapa"}) == ""
