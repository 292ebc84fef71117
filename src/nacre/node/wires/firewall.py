"""Security groups and anti-spoofing as stateful flows on br-int. Pure.

Tables, numbered as neutron numbers them (reg5: port number of the guest in question, reg6: local VLAN, which is also the conntrack zone):

| 71 | what a guest sends: only its own addresses, DHCP as a client, neighbour discovery; then conntrack to 72 |
| 72 | the rules for what it sends; allowed goes to 73 |
| 73 | for a guest on this host straight to 81 (there it is committed, so each connection has one entry), else commit and to 60 |
| 81 | what is to be delivered to a guest: ARP, ND, DHCP answers pass; the rest through conntrack to 82 |
| 82 | the rules for what it gets; allowed goes to 92 |
| 92 | commit and deliver |

Connections keep being checked by the rules in their first direction. One that no rule allows any more is marked in conntrack, and the
mark stops both directions; a rule that allows it again takes the mark off.
A rule with a remote group is a conjunction of (address in the group's set) and (port of ours with such a rule), so its cost is the sum
of both, and a change of members touches only the set's flows.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from nacre.node.wires.layout import Plug
from nacre.node.wires.matches import address_match, family_of, rule_matches
from nacre.node.wires.openflow import BASE, Flows

SWITCH, SENT, SENT_RULES, SENT_ACCEPTED, GOT, GOT_RULES, GOT_ACCEPTED = 60, 71, 72, 73, 81, 82, 92
ZONE = "zone=NXM_NX_REG6[0..15]"
_FAMILIES = ("ip", "ipv6")
_NEVER_SENT = (
    "udp,tp_src=67,tp_dst=68", "udp6,tp_src=547,tp_dst=546",
    *(f"icmp6,icmp_type={kind}" for kind in (133, 134, 135, 136, 137)),
)  # fmt: skip
"""By rules of a guest's own: to serve DHCP, to be a router, and neighbour discovery beyond the flows that let its own pass."""
Remote = tuple[str, str, str]
"""(group, direction, family) of an address set."""
_BLIND_FRAGMENTS = (
    "ipv6,ip_frag=yes,ipv6_src=fe80::/10", "icmp6,ip_frag=first,icmp_type=0", "udp6,ip_frag=first,tp_dst=0",
    *(f"ipv6,ip_frag=first,nw_proto={header}" for header in (0, 43, 44, 60)),
)  # fmt: skip
"""First fragments that hide what they carry (RFC 7112), and any from a link-local address: nobody else looks into them where
nothing is tracked."""
_STAGES = {"egress": (SENT_RULES, SENT_ACCEPTED, "dst"), "ingress": (GOT_RULES, GOT_ACCEPTED, "src")}


def base(flows: Flows) -> None:
    """The flows that are the same for all guests. What no guest may send is stopped once more after conntrack: there a frame that came in
    fragments is seen whole."""
    for never in _NEVER_SENT:
        flows.add(BASE, SENT_RULES, 120, never, "drop")
    for rules, accepted in ((SENT_RULES, SENT_ACCEPTED), (GOT_RULES, GOT_ACCEPTED)):
        flows.add(BASE, rules, 110, "ct_state=+trk+inv", "drop")
        for family in _FAMILIES:
            flows.add(BASE, rules, 105, f"ct_state=+trk+est+rpl-inv,ct_mark=0,{family}", f"resubmit(,{accepted})")
            flows.add(BASE, rules, 105, f"ct_state=+trk+rel-inv,ct_mark=0,{family}", f"resubmit(,{accepted})")
            flows.add(BASE, rules, 104, f"ct_state=+trk+est+rpl,{family}", "drop")
            flows.add(BASE, rules, 10, f"ct_state=+trk+est-rpl,ct_mark=0,{family}", f"ct(commit,{ZONE},exec(load:1->NXM_NX_CT_MARK[]))")
        flows.add(BASE, rules, 0, "", "drop")
    onward = {SENT_ACCEPTED: f"resubmit(,{SWITCH})", GOT_ACCEPTED: "output:NXM_NX_REG5[]"}
    for accepted, action in onward.items():
        for family in _FAMILIES:
            flows.add(BASE, accepted, 90, f"ct_state=+trk+new-est,{family}", f"ct(commit,{ZONE}),{action}")
            unmark = f"ct(commit,{ZONE},exec(load:0->NXM_NX_CT_MARK[]))"
            flows.add(BASE, accepted, 80, f"ct_state=+trk+est,ct_mark=1,{family}", f"{unmark},{action}")
        flows.add(BASE, accepted, 0, "", action)
    for table in (SENT, GOT):
        flows.add(BASE, table, 0, "", "drop")


def link_local(mac: str) -> str:
    """The IPv6 address that an interface makes of its MAC address."""
    octets = [int(part, 16) for part in mac.split(":")]
    number = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return str(ipaddress.IPv6Address(bytes.fromhex("fe80000000000000") + number))


def guard(flows: Flows, plug: Plug, stateful: bool) -> None:
    """What a guest may send at all, and what reaches it whatever its rules say. Raises ValueError for an impossible address."""
    owner, port = plug.owner, f"reg5={plug.number}"

    def sent(priority: int, match: str, actions: str) -> None:
        flows.add(owner, SENT, priority, match, actions)

    def got(priority: int, match: str, actions: str) -> None:
        flows.add(owner, GOT, priority, match, actions)

    away = f"resubmit(,{SWITCH})"
    for never in _NEVER_SENT:
        sent(80, f"{never},{port}", "drop")
    for fragment in _BLIND_FRAGMENTS:
        sent(80, f"{fragment},{port}", "drop")
    for mac in plug.macs:
        sent(90, f"udp,{port},dl_src={mac},nw_src=0.0.0.0,tp_src=68,tp_dst=67", away)
        sent(90, f"udp6,{port},dl_src={mac},ipv6_src={link_local(mac)},tp_src=546,tp_dst=547", away)
        for kind in (131, 132, 133, 143):
            sent(95, f"icmp6,{port},dl_src={mac},ipv6_src=::,icmp_type={kind}", away)
    link_locals = [(mac, link_local(mac)) for mac in plug.macs]
    for mac, address in [*((pair.mac, pair.address) for pair in plug.pairs), *link_locals]:
        _own_address(flows, plug, stateful, (mac, address))
    deliver = "output:NXM_NX_REG5[]"
    got(100, f"arp,{port}", deliver)
    for kind in (130, 134, 135, 136):
        got(100, f"icmp6,{port},icmp_type={kind}", deliver)
    got(95, f"udp,{port},tp_src=67,tp_dst=68", deliver)
    got(95, f"udp6,{port},tp_src=547,tp_dst=546", deliver)
    for family in _FAMILIES:
        if stateful:
            got(90, f"ct_state=-trk,{family},{port}", f"ct(table={GOT_RULES},{ZONE})")
            got(80, f"ct_state=+trk,{family},{port}", f"resubmit(,{GOT_RULES})")
        else:
            got(80, f"{family},{port}", f"ct_clear,resubmit(,{GOT_RULES})")


def _own_address(flows: Flows, plug: Plug, stateful: bool, own: tuple[str, str]) -> None:
    mac, address = own
    owner, port, away = plug.owner, f"reg5={plug.number}", f"resubmit(,{SWITCH})"
    family = family_of(address)
    source = address_match(family, "src", address)
    comma = f",{source}" if source else ""
    checked = f"ct(table={SENT_RULES},{ZONE})" if stateful else f"resubmit(,{SENT_RULES})"
    flows.add(owner, SENT, 65, f"{family},{port},dl_src={mac}{comma}", checked)
    bare = source.partition("=")[2]
    if family == "ip":
        flows.add(owner, SENT, 90, f"udp,{port},dl_src={mac}{comma},tp_src=68,tp_dst=67", away)
        spa, tpa = (f",arp_spa={bare}", f",arp_tpa={bare}") if bare else ("", "")
        flows.add(owner, SENT, 95, f"arp,{port},dl_src={mac},arp_sha={mac}{spa}", away)
        flows.add(owner, SENT, 95, f"arp,{port},dl_src={mac},arp_sha={mac},arp_spa=0.0.0.0{tpa}", away)
        return
    for kind in (131, 132, 133, 135, 143):
        flows.add(owner, SENT, 95, f"icmp6,{port},dl_src={mac}{comma},icmp_type={kind}", away)
    target = f",nd_target={bare}" if bare else ""
    flows.add(owner, SENT, 95, f"icmp6,{port},dl_src={mac},ipv6_src=::,icmp_type=135{target}", away)
    flows.add(owner, SENT, 95, f"icmp6,{port},dl_src={mac},icmp_type=136{target}", away)


def remote(rule: Mapping[str, Any]) -> Remote | None:
    """The address set that a rule needs; None for a rule without a remote group, or one that cannot be understood."""
    family = {"ipv4": "ip", "ipv6": "ipv6"}.get(str(rule.get("ethertype")).lower())
    group, direction = rule.get("remote_group_id"), rule.get("direction")
    return (group, direction, family) if group and family and direction in _STAGES else None


def conjunction_ids(sets: Iterable[Remote]) -> dict[Remote, int]:
    """Conjunction ids: the same in every run unless two collide."""
    ids: dict[Remote, int] = {}
    taken: set[int] = set()
    for needed in sorted(set(sets)):
        number = int.from_bytes(hashlib.sha256(" ".join(needed).encode()).digest()[:4]) >> 1 or 1
        while number in taken:
            number = number % 0x7FFFFFFF + 1
        taken.add(number)
        ids[needed] = number
    return ids


def allow(flows: Flows, plug: Plug, rule: Mapping[str, Any], ids: Mapping[Remote, int]) -> None:
    """What one rule allows to a guest. Raises ValueError, KeyError, having added nothing, for a rule that cannot be understood."""
    port = f"reg5={plug.number}"
    table, accepted, side = _STAGES[rule["direction"]]
    family, matches = rule_matches(rule)
    needed, prefix = remote(rule), rule.get("remote_ip_prefix")
    if prefix and family_of(prefix) != family:
        raise ValueError(f"rule {rule.get('id')}: {prefix} is not of family {family}")
    source = address_match(family, side, prefix) if prefix else ""
    clause = f"conjunction({ids[needed]},2/2)" if needed else ""
    for match in matches:
        if clause:
            flows.conjoin(plug.owner, table, 70, f"{match},{port}", clause)
        else:
            flows.add(plug.owner, table, 71, f"{match},{port}" + (f",{source}" if source else ""), f"resubmit(,{accepted})")


def address_sets(flows: Flows, sets: Mapping[str, Iterable[str]], ids: Mapping[Remote, int]) -> None:
    """The members of remote groups, for every direction in `ids`. Raises ValueError for an impossible address."""
    for (group, direction, family), number in ids.items():
        table, accepted, side = _STAGES[direction]
        owner = ("address_set", group)
        flows.add(owner, table, 70, f"conj_id={number},{family}", f"resubmit(,{accepted})")
        for address in sets.get(group, ()):
            if family_of(address) == family:
                match = address_match(family, side, address)
                flows.conjoin(owner, table, 70, family + (f",{match}" if match else ""), f"conjunction({number},1/2)")
