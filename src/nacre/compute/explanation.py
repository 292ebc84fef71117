"""Why a server is where it is, or nowhere: a decision as it is kept, every host's verdicts, and the smallest change that would fit.

All pure. A *decision* is what the scheduler found when it decided: the candidates, best first, with what they had free, and each other
host's first refusal. *Verdicts* are what every filter says of every host now. A *change* is what would make one host take the server:
its owner can choose a smaller flavor or ask for less, an administrator can also change hosts; of all hosts the one that needs the least
is named, where a resource counts by the share of what was asked that is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.compute import plan

KEPT = 100
NEVER = float("inf")
_UNITS = {"VCPU": "vCPU", "MEMORY_MB": "MB of memory", "DISK_GB": "GB of disk"}
Refused = Mapping[str, tuple[str, str]]
Rooms = Mapping[str, Mapping[str, int]]
"""host -> resource class -> the most that one server may take of it."""


@dataclass(frozen=True)
class Verdict:
    """What a filter says of a host; `reason` None: it passes."""

    filter: str
    reason: str | None


def kept(wanted: Mapping[str, int], candidates: Sequence[plan.Host], refused: Refused) -> dict[str, Any]:
    """A decision for the database: of very many refusals the first KEPT."""
    rows = sorted([host, name, why] for host, (name, why) in refused.items())
    return {"wanted": dict(wanted), "refused": rows[:KEPT], "more": max(0, len(rows) - KEPT),
            "candidates": [{"host": host.name, "free": dict(host.free), "servers": host.servers} for host in candidates]}  # fmt: skip


def verdicts(host: plan.Host, request: plan.Request, filters: Sequence[str]) -> list[Verdict]:
    """Every filter that counts, in their order."""
    found = [] if request.host is None else [Verdict("ForcedHost", None if host.name == request.host else f"host {request.host} was asked for")]
    return found + [Verdict(name, plan.FILTERS[name](host, request)) for name in dict.fromkeys((*filters, *plan.ALWAYS))]


@dataclass(frozen=True)
class Change:
    """`needs`: what one host would need to take the server; the sum of what each costs tells which host needs least."""

    host: str
    needs: tuple[str, ...]
    cost: float


def smallest(hosts: Sequence[plan.Host], request: plan.Request, filters: Sequence[str], rooms: Rooms, more: Refused) -> tuple[str, str]:
    """(for the owner, for the administrator) a sentence, empty when nothing would help. `more`: refusals that no filter knows of."""
    sentences = []
    failed = {host.name: [*_failed(host, request, filters), *_extra(host, more)] for host in hosts}
    for owner in (True, False):
        found = [change for host in hosts if (change := _change(host, request, failed[host.name], rooms, owner))]
        best = min(found, key=lambda change: (change.cost, change.host), default=None)
        sentences.append("" if best is None else _sentence(best, owner))
    return sentences[0], sentences[1]


def _failed(host: plan.Host, request: plan.Request, filters: Sequence[str]) -> list[Verdict]:
    return [verdict for verdict in verdicts(host, request, filters) if verdict.reason is not None]


def _extra(host: plan.Host, more: Refused) -> list[Verdict]:
    return [Verdict(*more[host.name])] if host.name in more and more[host.name][0] not in plan.FILTERS else []


def _change(host: plan.Host, request: plan.Request, failed: Iterable[Verdict], rooms: Rooms, owner: bool) -> Change | None:
    needs: list[str] = []
    cost = 0.0
    for verdict in failed:
        if verdict.filter == "ResourcesFilter":
            more, price = _resources(host, request, rooms.get(host.name, {}), owner)
        else:
            more, price = _other(verdict.filter, host, owner)
        needs += more
        cost += price
    return Change(host.name, tuple(needs), cost) if needs and cost < NEVER else None


def _resources(host: plan.Host, request: plan.Request, room: Mapping[str, int], owner: bool) -> tuple[list[str], float]:
    lacking = {name: max(0, room.get(name, 0)) for name, amount in sorted(request.resources.items()) if amount > room.get(name, 0)}
    cost = sum((request.resources[name] - there) / request.resources[name] for name, there in lacking.items())
    if not owner:
        return [f"{_amount(name, request.resources[name] - there, 'more ')} on host {host.name}" for name, there in lacking.items()], cost
    if not all(lacking.values()):
        return [], NEVER  # no flavor is that small
    return ["a flavor with at most " + " and ".join(_amount(name, there) for name, there in lacking.items())] if lacking else [], cost


def _amount(name: str, amount: int, word: str = "") -> str:
    """`512 MB of memory`; with `word` "more": `512 MB more memory`."""
    unit, _, what = _UNITS.get(name, name).partition(" of ")
    if not what:
        return f"{amount} {word}{unit}{'s' if amount != 1 else ''}"
    return f"{amount} {unit} {word or 'of '}{what}"


def _other(name: str, host: plan.Host, owner: bool) -> tuple[list[str], float]:
    match name:
        case "ForcedHost":
            return ["no host named"], 0.3
        case "AvailabilityZoneFilter":
            return [f"availability zone {host.zone}"], 0.5
        case "SameHostFilter" | "DifferentHostFilter":
            return [f"no hint {'same_host' if name.startswith('Same') else 'different_host'}"], 0.5
        case "ServerGroupAffinityFilter" | "ServerGroupAntiAffinityFilter":
            return ["no server group"], 0.5
        case "ImagePropertiesFilter":
            return [f"an image for {host.resources.get('cpu_arch', 'its kind')} hosts"], 1.0
        case "PortBinding":
            return ["other networks" if owner else f"its networks mapped on host {host.name}"], 1.0
        case "ComputeFilter" if not owner:
            return [f"the compute service of host {host.name} {'enabled' if host.disabled else 'up'}"], 0.2 if host.disabled else 0.4
    return [], NEVER


def _sentence(change: Change, owner: bool) -> str:
    told = ", ".join(change.needs)
    return f"It would fit with {told}." if owner else f"It needs {told}."


def grouped(refused: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """For who may not know the hosts: how many of them said what. What an administrator wrote about a host is theirs."""
    counts: dict[tuple[str, str], int] = {}
    for _, name, why in refused:
        reason = "its compute service is not available" if name == "ComputeFilter" else why
        counts[name, reason] = counts.get((name, reason), 0) + 1
    return [{"filter": name, "reason": reason, "hosts": count} for (name, reason), count in counts.items()]
