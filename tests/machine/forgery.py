"""Frames as an attacker on the next port makes them, as bytes from the Ethernet header on."""

import ipaddress
import socket
import struct

EVERYBODY = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "33:33:00:00:00:01"
CUSTOMER, SERVICE = 0x8100, 0x88A8  # kinds of VLAN tags: of 802.1Q, and the outer one of 802.1ad (QinQ)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def link_local(mac: str) -> str:
    raw = octets(mac)
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ether(to: str, mac: str, kind: int, body: bytes) -> bytes:
    return octets(to) + octets(mac) + struct.pack("!H", kind) + body


def tagged(frame: bytes, *tags: tuple[int, int]) -> bytes:
    """With tags of (kind, VLAN), the outermost first."""
    return frame[:12] + b"".join(struct.pack("!HH", *tag) for tag in tags) + frame[12:]


def arp(mac: str, claimed_mac: str, claimed: str, to: str, *, answer: bool = True) -> bytes:
    """`claimed` is at `claimed_mac`, says `mac` to `to`."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if answer else 1)
    return _ether(EVERYBODY, mac, 0x0806, head + octets(claimed_mac) + socket.inet_aton(claimed) + octets(EVERYBODY) + socket.inet_aton(to))


def ip(mac: str, to_mac: str, source: str, target: str, kind: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 64, kind, 0) + socket.inet_aton(source) + socket.inet_aton(target)
    return _ether(to_mac, mac, 0x0800, head[:10] + struct.pack("!H", _sum(head)) + head[12:] + body)


def echo(mac: str, to_mac: str, source: str, target: str, number: int = 7) -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, number, 1)
    return ip(mac, to_mac, source, target, 1, body[:2] + struct.pack("!H", _sum(body)) + body[4:])


def udp(mac: str, to_mac: str, source: tuple[str, int], target: tuple[str, int], text: bytes) -> bytes:
    return ip(mac, to_mac, source[0], target[0], 17, struct.pack("!HHHH", source[1], target[1], 8 + len(text), 0) + text)


def dhcp_offer(mac: str, own: str, given: str, to_mac: str) -> bytes:
    fixed = struct.pack("!BBBBIHH", 2, 1, 6, 0, 1, 0, 0x8000) + bytes(4) + socket.inet_aton(given) + socket.inet_aton(own) + bytes(4)
    options = b"\x63\x82\x53\x63\x35\x01\x02\x36\x04" + socket.inet_aton(own) + b"\xff"
    return udp(mac, EVERYBODY, (own, 67), ("255.255.255.255", 68), fixed + octets(to_mac) + bytes(10 + 192) + options)


def ip6(mac: str, source: str, kind: int, body: bytes, at: int) -> bytes:
    """To everybody on the link; `at` is where `body` has its checksum."""
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("ff02::1").packed
    body = body[:at] + struct.pack("!H", _sum(ends + struct.pack("!II", len(body), kind) + body)) + body[at + 2 :]
    return _ether(ALL_NODES, mac, 0x86DD, struct.pack("!IHBB", 6 << 28, len(body), kind, 255) + ends + body)


def router_advertisement(mac: str) -> bytes:
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\x01\x01" + octets(mac)
    return ip6(mac, link_local(mac), 58, body, 2)


def neighbour_advertisement(mac: str, claimed: str, source: str) -> bytes:
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ipaddress.IPv6Address(claimed).packed + b"\x02\x01" + octets(mac)
    return ip6(mac, source, 58, body, 2)


def echo6(mac: str, source: str) -> bytes:
    return ip6(mac, source, 58, struct.pack("!BBHHH", 128, 0, 0, 7, 1), 2)


def dhcp6_reply(mac: str) -> bytes:
    return ip6(mac, link_local(mac), 17, struct.pack("!HHHH", 547, 546, 12, 0) + b"\x07abc", 6)
