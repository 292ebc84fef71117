"""Who gets a frame: the flows of br-int outside the firewall, of br-tun and of the bridges to physical networks. Pure.

br-int switches by explicit flows, never by learning: table 60 knows every local MAC address of a network (reg6 = its local VLAN);
what it does not know goes up, to br-tun or to the bridge of the physical network, and to the ports on which nothing is checked.
Frames are untagged inside and carry the local VLAN on the patch ports only. What a guest sends with a tag of its own is dropped, also
without port security: once ours is off, its own would choose a network of the physical wire. Nothing crosses a patch port for a VLAN
nobody mapped, so two hosts on one physical network cannot make a loop.

br-tun is numbered as neutron numbers it: 3/4/6 received by gre/vxlan/geneve, 10 to br-int, 20 unicast, 22 flood. Other hosts' ports
are known from `forwarding` documents; nothing is learned, so nothing learned can be wrong after a migration.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.node.wires import firewall
from nacre.node.wires.layout import TUNNELS, Network, Plug
from nacre.node.wires.openflow import BASE, Flows, Owner

_LOAD_VLAN = "load:{}->NXM_NX_REG6[]"
_LOAD_PORT = "load:{}->NXM_NX_REG5[]"
_UNTAGGED = "vlan_tci=0x0000/0x1fff"
_GROUP = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"


@dataclass(frozen=True)
class Trunks:
    """Port numbers of patch and tunnel ports. `inner` and `outer`: bridge name -> number on br-int and on that bridge.
    `tunnels`: (network type, address of the peer) -> number on br-tun."""

    patch_tun: int | None = None
    patch_int: int | None = None
    inner: Mapping[str, int] = field(default_factory=dict)
    outer: Mapping[str, int] = field(default_factory=dict)
    tunnels: Mapping[tuple[str, str], int] = field(default_factory=dict)


def _up(network: Network, trunks: Trunks) -> int | None:
    """The number on br-int of the port that leads out of this host."""
    if network.kind in TUNNELS:
        return trunks.patch_tun
    return trunks.inner.get(network.bridge) if network.bridge else None


def _tagged(vlan: int, number: int) -> str:
    return f"push_vlan:0x8100,set_field:{vlan | 0x1000}->vlan_vid,output:{number},pop_vlan"


def integration(networks: Iterable[Network], plugs: Sequence[Plug], stateful: Mapping[Owner, bool], trunks: Trunks) -> Flows:
    """Tables 0, 60 and 73 of br-int. `stateful` names the plugs that the firewall checks, and how."""
    flows = Flows()
    flows.add(BASE, 0, 0, "", "drop")
    flows.add(BASE, firewall.SWITCH, 0, "", "drop")
    firewall.base(flows)
    for network in networks:
        here = [plug for plug in plugs if plug.vlan == network.vlan and plug.up]
        _entry(flows, network, trunks)
        _deliver(flows, network, here, stateful, _up(network, trunks))
    for plug in plugs:
        load = _LOAD_VLAN.format(plug.vlan)
        onward = f"{_LOAD_PORT.format(plug.number)},{load},resubmit(,{firewall.SENT})"
        if plug.groups is None:
            onward = f"{load},resubmit(,{firewall.SWITCH})"
        flows.add(plug.owner, 0, 100, f"in_port={plug.number},{_UNTAGGED}", onward if plug.up else "drop")
    return flows


def _entry(flows: Flows, network: Network, trunks: Trunks) -> None:
    owner, load = ("network", network.id), _LOAD_VLAN.format(network.vlan)
    up = _up(network, trunks)
    if up is None or not network.up:
        return
    if network.kind in TUNNELS:
        match = f"dl_vlan={network.vlan}"
    elif network.kind == "vlan":
        match = f"dl_vlan={network.segment}"
    else:
        flows.add(owner, 0, 100, f"in_port={up},{_UNTAGGED}", f"{load},resubmit(,{firewall.SWITCH})")
        return
    flows.add(owner, 0, 100, f"in_port={up},{match}", f"pop_vlan,{load},resubmit(,{firewall.SWITCH})")


def _to(plug: Plug) -> str:
    if plug.groups is None:
        return f"output:{plug.number}"
    return f"{_LOAD_PORT.format(plug.number)},resubmit(,{firewall.GOT})"


def _deliver(flows: Flows, network: Network, here: Sequence[Plug], stateful: Mapping[Owner, bool], up: int | None) -> None:
    owner, vlan = ("network", network.id), f"reg6={network.vlan}"
    outward = [_tagged(network.vlan, up)] if up is not None and network.up else []
    unchecked = [_to(plug) for plug in here if plug.groups is None]
    checked = [_to(plug) for plug in here if plug.groups is not None]
    flows.add(owner, firewall.SWITCH, 80, f"{vlan},{_GROUP}", ",".join([*unchecked, *outward, *checked]) or "drop")
    flows.add(owner, firewall.SWITCH, 10, vlan, ",".join([*unchecked, *outward]) or "drop")
    homes: dict[str, list[Plug]] = {}
    for plug in here:
        for mac in plug.macs:
            homes.setdefault(mac, []).append(plug)
    for mac, plugs in homes.items():
        # A MAC that is a plug's own lives nowhere else; one that is only an allowed pair may be at any of several ports, or elsewhere.
        fixed = [plug for plug in plugs if plug.macs[0] == mac]
        actions = [_to(plug) for plug in fixed or plugs] + ([] if fixed else outward)
        flows.add((fixed or plugs)[0].owner, firewall.SWITCH, 90, f"{vlan},dl_dst={mac}", ",".join(actions))
        if len(fixed) == 1 and fixed[0].groups is not None and stateful.get(fixed[0].owner):
            flows.add(fixed[0].owner, firewall.SENT_ACCEPTED, 100, f"{vlan},dl_dst={mac}", _to(fixed[0]))


def tunnelling(networks: Iterable[Network], forwarding: Mapping[str, Sequence[Mapping[str, Any]]], trunks: Trunks) -> Flows:
    """br-tun. `forwarding`: network id -> the entries of its document. Raises KeyError when an entry lacks something."""
    flows = Flows()
    flows.add(BASE, 0, 0, "", "drop")
    for table in (*TUNNELS.values(), 22):
        flows.add(BASE, table, 0, "", "drop")
    flows.add(BASE, 20, 0, "", "resubmit(,22)")
    if trunks.patch_int is None:
        return flows
    flows.add(BASE, 0, 1, f"in_port={trunks.patch_int}", "resubmit(,2)")
    flows.add(BASE, 2, 0, "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00", "resubmit(,20)")
    flows.add(BASE, 2, 0, _GROUP, "resubmit(,22)")
    flows.add(BASE, 10, 1, "", f"output:{trunks.patch_int}")
    for (kind, _), number in trunks.tunnels.items():
        flows.add(BASE, 0, 1, f"in_port={number}", f"resubmit(,{TUNNELS[kind]})")
    for network in networks:
        if network.kind in TUNNELS and network.up:
            _tunnelled(flows, network, forwarding.get(network.id, ()), trunks)
    return flows


def _tunnelled(flows: Flows, network: Network, entries: Sequence[Mapping[str, Any]], trunks: Trunks) -> None:
    owner, vlan, segment = ("network", network.id), f"dl_vlan={network.vlan}", network.segment or 0
    tagged = f"push_vlan:0x8100,set_field:{network.vlan | 0x1000}->vlan_vid,resubmit(,10)"
    flows.add(owner, TUNNELS[network.kind], 1, f"tun_id={segment:#x}", tagged)
    stripped = f"pop_vlan,set_field:{segment:#x}->tun_id"
    flooded: set[int] = set()
    owner = ("forwarding", network.id)
    for entry in entries:
        number = trunks.tunnels.get((network.kind, entry["tunnel_ip"]))
        if number is None:
            continue
        flooded.add(number)
        flows.add(owner, 20, 2, f"{vlan},dl_dst={entry['mac_address'].lower()}", f"{stripped},output:{number}")
    if flooded:
        flows.add(owner, 22, 1, vlan, stripped + "".join(f",output:{number}" for number in sorted(flooded)))


def physical(bridge: str, networks: Iterable[Network], trunks: Trunks) -> Flows:
    """A bridge to a physical network: only what is mapped comes from br-int, with its physical VLAN. Otherwise an ordinary switch."""
    flows = Flows()
    flows.add(BASE, 0, 0, "", "NORMAL")
    number = trunks.outer.get(bridge)
    if number is None:
        return flows
    flows.add(BASE, 0, 2, f"in_port={number}", "drop")
    for network in networks:
        if network.bridge == bridge and network.up:
            change = "pop_vlan" if network.kind == "flat" else f"set_field:{(network.segment or 0) | 0x1000}->vlan_vid"
            flows.add(("network", network.id), 0, 4, f"in_port={number},dl_vlan={network.vlan}", f"{change},NORMAL")
    return flows
