"""Where what nobody asked a place for runs: a network's DHCP server, a router. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


def choose(alive: Sequence[str], load: Mapping[str, int]) -> str | None:
    """The alive host with the fewest; the first of equals. None when no host is alive."""
    return min(alive, key=lambda host: load.get(host, 0), default=None)


@dataclass(frozen=True)
class Move:
    id: str
    old: str | None
    new: str


def moves(placed: Mapping[str, str | None], alive: Sequence[str], dead: Collection[str]) -> list[Move]:
    """What has no host, or a dead one, goes to alive hosts, evenly. `placed`: id -> host. Nothing moves off a host that lives."""
    load: dict[str, int] = dict.fromkeys(alive, 0)
    for host in placed.values():
        if host is not None:
            load[host] = load.get(host, 0) + 1
    found = []
    for id_, host in placed.items():
        if host is None or host in dead:
            new = choose(alive, load)
            if new is not None:
                load[new] += 1
                found.append(Move(id_, host, new))
    return found
