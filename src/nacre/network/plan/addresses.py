"""Which address: pools of a subnet, random choice among free ones, addresses made of a MAC. Pure.

A pool is a pair of integers, first and last. A choice is made of random candidates (the caller asks which of them are taken) and,
where a pool is so full that they all are, of a walk over taken ones in windows from a random start to the first gap.
"""

import ipaddress
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

Pool = tuple[int, int]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_AT_ONCE = 24
_WINDOW = 500


def number(address: str) -> str:
    """An address as text that sorts as the address does."""
    return f"{int(ipaddress.ip_address(address)):032x}"


def text(value: int, version: int) -> str:
    return str(ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value))


def usable(network: Network) -> Pool:
    """First and last address a machine may have: without network and broadcast address where there are such."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4:
        return (first, last) if network.prefixlen >= 31 else (first + 1, last - 1)
    return (first + 1, last) if network.prefixlen < 127 else (first, last)


def default_pools(network: Network, gateway: str | None) -> list[Pool]:
    """All of the subnet but the gateway."""
    first, last = usable(network)
    if gateway is None:
        return [(first, last)]
    at = int(ipaddress.ip_address(gateway))
    if not first <= at <= last:
        return [(first, last)]
    return [pool for pool in ((first, at - 1), (at + 1, last)) if pool[0] <= pool[1]]


def pools(written: Iterable[Mapping[str, str]]) -> list[Pool]:
    """From the wire's shape."""
    return [(int(ipaddress.ip_address(pool["start"])), int(ipaddress.ip_address(pool["end"]))) for pool in written]


def written(of: Iterable[Pool], version: int) -> list[dict[str, str]]:
    """To the wire's shape."""
    return [{"start": text(first, version), "end": text(last, version)} for first, last in of]


def candidates(of: Sequence[Pool], dice: random.Random, count: int = _AT_ONCE) -> list[int]:
    """Up to `count` different members of the pools, each member equally likely."""
    size = sum(last - first + 1 for first, last in of)
    picked = {dice.randrange(size) for _ in range(count)} if size > count else set(range(size))
    chosen = [_member(of, index) for index in picked]
    dice.shuffle(chosen)
    return chosen


def _member(of: Sequence[Pool], index: int) -> int:
    for first, last in of:
        if index <= last - first:
            return first + index
        index -= last - first + 1
    raise IndexError(index)


def first_gap(first: int, last: int, taken: Sequence[int]) -> tuple[int | None, int]:
    """The least number of first..last that is not in `taken` (ascending, all >= first), as far as `taken` goes; with the number to go
    on from when there is none."""
    for value in taken:
        if value != first:
            return (first if first <= last else None), first
        first += 1
    return None, first


def choose(of: Sequence[Pool], dice: random.Random, taken: Callable[[Sequence[int]], Collection[int]],
           following: Callable[[int, int, int], Sequence[int]]) -> int | None:  # fmt: skip
    """A free member of the pools; None when there is none. `taken(numbers)`: which of them are; `following(first, last, limit)`: taken
    ones of first..last, ascending, at most `limit`."""
    if not of:
        return None
    tried = candidates(of, dice)
    busy = set(taken(tried))
    free = [value for value in tried if value not in busy]
    if free:
        return free[0]
    start = dice.randrange(len(of))
    for first, last in [*of[start:], *of[:start]]:
        middle = dice.randint(first, last)
        for low, high in ((middle, last), (first, middle - 1)):
            found = _gap(low, high, following)
            if found is not None:
                return found
    return None


def _gap(first: int, last: int, following: Callable[[int, int, int], Sequence[int]]) -> int | None:
    while first <= last:
        window = following(first, last, _WINDOW)
        found, onward = first_gap(first, last, window)
        if found is not None:
            return found
        if len(window) < _WINDOW:
            return onward if onward <= last else None
        first = onward
    return None


def slaac(cidr: str, mac: str) -> str:
    """The address that a machine gives itself in an IPv6 range of 64 bits (modified EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    tail = int.from_bytes(bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]]), "big")
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Network(cidr).network_address) | tail))


def new_mac(dice: random.Random) -> str:
    """A MAC address of ours."""
    return "fa:16:3e:" + ":".join(f"{dice.randrange(256):02x}" for _ in range(3))


def overlapping(cidr: str, others: Iterable[str]) -> str | None:
    """The first of `others` that shares an address with `cidr`."""
    mine = ipaddress.ip_network(cidr)
    for other in others:
        network: Any = ipaddress.ip_network(other)
        if network.version == mine.version and mine.overlaps(network):
            return other
    return None
