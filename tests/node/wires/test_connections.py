from nacre.node.wires.connections import Held, held, plan
from nacre.node.wires.driver import Document
from nacre.node.wires.layout import Network

NETWORK = Network("n", 5, "vxlan", 1, None, 1450, True)


def test_ports_hold_their_addresses_in_their_networks_zone() -> None:
    fixed = [{"ip_address": "172.16.1.10"}, {"ip_address": "2001:DB8::0A"}, {"ip_address": "nonsense"}, {}]
    ports = {
        "p": Document("port", "p", 1, {"network_id": "n", "fixed_ips": fixed}),
        "q": Document("port", "q", 1, {"network_id": "unknown", "fixed_ips": fixed}),
    }
    assert held({"port": ports}, {"n": NETWORK}) == Held(frozenset({5}), frozenset({(5, "172.16.1.10"), (5, "2001:db8::a")}))


def test_what_goes_is_forgotten_and_nothing_else() -> None:
    before = Held(frozenset({5, 6}), frozenset({(5, "172.16.1.10"), (5, "2001:db8::a"), (5, "172.16.1.11"), (6, "172.16.1.10")}))
    now = Held(frozenset({5, 7}), frozenset({(5, "172.16.1.11"), (7, "172.16.1.12")}))
    assert plan(before, now)[:3] == [("zone=6",), ("zone=5", "ct_nw_src=172.16.1.10"), ("zone=5", "ct_nw_dst=172.16.1.10")]
    assert plan(before, now)[3:] == [("zone=5", f"ct_ipv6_{side}=2001:db8::a,ct_nw_proto={kind}") for side in ("src", "dst") for kind in (6, 17, 132)]
    assert plan(Held(), now) == plan(now, now) == []
