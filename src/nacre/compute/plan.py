"""Where a server goes: a pure decision over a snapshot of hosts.

A filter says why a host cannot take the server, or None; every host's first refusal is kept, so that "no valid host" explains itself.
A weigher gives a number, the highest sum (each normalised over the hosts that are left) is tried first. Which filters count is
configured (`[filter_scheduler] enabled_filters`, upstream's names).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_CANDIDATES, MAX_TOLD = 5, 20


@dataclass(frozen=True)
class Host:
    """A host as it was seen. `missing`: what it lacks of the wanted resources, a sentence each (placement's words)."""

    name: str
    provider_id: str
    generation: int
    alive: bool
    disabled: bool = False
    disabled_reason: str | None = None
    zone: str = "nova"
    missing: tuple[str, ...] = ()
    free: Mapping[str, float] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    servers: int = 0


@dataclass(frozen=True)
class Request:
    """What is to be placed. `image`: its properties; `zone`, `host`: asked for by name, None: any; `left`: host -> (filter, reason) that
    is known already."""

    resources: Mapping[str, int]
    image: Mapping[str, Any] = field(default_factory=dict)
    zone: str | None = None
    host: str | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    hosts_of: Mapping[str, str] = field(default_factory=dict)
    group: "Group | None" = None
    left: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """The server group it is in: how many of the others are on each host."""

    policy: str
    most: int
    others: Mapping[str, int]


@dataclass(frozen=True)
class Choice:
    """`candidates`, best first; `refused`: host -> (filter, reason)."""

    candidates: tuple[Host, ...]
    refused: Mapping[str, tuple[str, str]]


Filter = Callable[[Host, Request], str | None]
Weigher = Callable[[Host, Request], float]
_X86 = {"x86_64": "x86_64", "amd64": "x86_64", "i686": "i686", "i386": "i686", "aarch64": "aarch64", "arm64": "aarch64"}


def _compute(host: Host, request: Request) -> str | None:
    if host.disabled:
        return "its compute service is disabled" + (f" ({host.disabled_reason})" if host.disabled_reason else "")
    return None if host.alive else "its compute service is down"


def _resources(host: Host, request: Request) -> str | None:
    return "; ".join(host.missing) or None


def _image(host: Host, request: Request) -> str | None:
    arch = request.image.get("hw_architecture") or request.image.get("architecture")
    mine = _X86.get(str(host.resources.get("cpu_arch", "")), host.resources.get("cpu_arch"))
    if arch and mine and _X86.get(str(arch), arch) != mine:
        return f"the image is for {arch}, this host is {mine}"
    kind = request.image.get("img_hv_type") or request.image.get("hypervisor_type")
    mine = str(host.resources.get("hypervisor_type", "")).lower()
    if kind and mine and str(kind).lower() not in (mine, "kvm" if mine == "qemu" else mine):
        return f"the image is for hypervisor {kind}, this host has {mine}"
    return None


def _zone(host: Host, request: Request) -> str | None:
    return f"it is in availability zone {host.zone}, not {request.zone}" if request.zone and host.zone != request.zone else None


def words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value or ()]


def _same_host(host: Host, request: Request) -> str | None:
    wanted = words(request.hints.get("same_host"))
    return "no server of same_host is on it" if wanted and not any(request.hosts_of.get(i) == host.name for i in wanted) else None


def _different_host(host: Host, request: Request) -> str | None:
    there = [i for i in words(request.hints.get("different_host")) if request.hosts_of.get(i) == host.name]
    return f"server {there[0]} of different_host is on it" if there else None


def _affinity(host: Host, request: Request) -> str | None:
    group = request.group
    wrong = group is not None and group.policy == "affinity" and group.others and not group.others.get(host.name)
    return "the other servers of its group are elsewhere" if wrong else None


def _anti_affinity(host: Host, request: Request) -> str | None:
    group = request.group
    if group is None or group.policy != "anti-affinity" or group.others.get(host.name, 0) < group.most:
        return None
    return f"{group.others[host.name]} of its group are on it, at most {group.most} may be"


def _together(host: Host, request: Request) -> float:
    group = request.group
    if group is None or not group.policy.startswith("soft-"):
        return 0.0
    return float(group.others.get(host.name, 0) * (1 if group.policy == "soft-affinity" else -1))


FILTERS: dict[str, Filter] = {
    "ComputeFilter": _compute, "ResourcesFilter": _resources, "ImagePropertiesFilter": _image, "AvailabilityZoneFilter": _zone,
    "SameHostFilter": _same_host, "DifferentHostFilter": _different_host, "AllHostsFilter": lambda host, request: None,
    "ServerGroupAffinityFilter": _affinity, "ServerGroupAntiAffinityFilter": _anti_affinity,
    "ComputeCapabilitiesFilter": lambda host, request: None,
}  # fmt: skip


def _free(resource: str) -> Weigher:
    return lambda host, request: float(host.free.get(resource, 0))


WEIGHERS: dict[str, Weigher] = {"RAMWeigher": _free("MEMORY_MB"), "CPUWeigher": _free("VCPU"), "DiskWeigher": _free("DISK_GB"),
                                "IoOpsWeigher": lambda host, request: -float(host.servers), "ServerGroupWeigher": _together}  # fmt: skip
_MULTIPLIERS = {"ServerGroupWeigher": 10.0}  # what was asked for by name counts more than how full hosts are
# Resources can never be switched off: the claim would refuse anyway, without a reason. A group that does nothing would be a lie.
ALWAYS = ("ResourcesFilter", "AvailabilityZoneFilter", "ServerGroupAffinityFilter", "ServerGroupAntiAffinityFilter")


def named(request: Request, filters: Sequence[str]) -> Collection[str]:
    """The hosts that the request is about: if they will not do, seldom others will."""
    if request.host is not None:
        return {request.host}
    same = words(request.hints.get("same_host")) if "SameHostFilter" in filters else []
    group = request.group
    near = group.others if group is not None and group.policy in ("affinity", "soft-affinity") else ()
    return {request.hosts_of[i] for i in same if i in request.hosts_of} or set(near)


def choose(hosts: Sequence[Host], request: Request, filters: Sequence[str], weighers: Sequence[str] = tuple(WEIGHERS)) -> Choice:
    """The hosts that could take the request, best first, and why the others cannot. Unknown filter names raise KeyError."""
    names = tuple(dict.fromkeys((*filters, *ALWAYS)))
    fits, refused = [], {}
    for host in hosts:
        if host.name in request.left:
            refused[host.name] = request.left[host.name]
            continue
        if request.host is not None and host.name != request.host:
            refused[host.name] = ("ForcedHost", f"host {request.host} was asked for")
            continue
        refusal = next(((name, why) for name in names if (why := FILTERS[name](host, request)) is not None), None)
        if refusal is None:
            fits.append(host)
        else:
            refused[host.name] = refusal
    return Choice(tuple(_ranked(fits, request, weighers)[:MAX_CANDIDATES]), refused)


def _ranked(hosts: list[Host], request: Request, weighers: Sequence[str]) -> list[Host]:
    scores = dict.fromkeys((host.name for host in hosts), 0.0)
    for weigher in weighers:
        values = {host.name: WEIGHERS[weigher](host, request) for host in hosts}
        low, span = min(values.values(), default=0.0), max(values.values(), default=0.0) - min(values.values(), default=0.0)
        for name, value in values.items():
            scores[name] += _MULTIPLIERS.get(weigher, 1.0) * (value - low) / span if span else 0.0
    return sorted(hosts, key=lambda host: (-scores[host.name], host.name))


def no_valid_host(choice: Choice) -> str:
    """Upstream's sentence, and each host's reason."""
    if not choice.refused:
        return "No valid host was found. There are not enough hosts available: no compute host has reported yet."
    alike: dict[tuple[str, str], list[str]] = {}
    for host, refusal in sorted(choice.refused.items())[:MAX_TOLD]:
        alike.setdefault(refusal, []).append(host)
    told = "; ".join(f"{', '.join(hosts)}: {why} ({name})" for (name, why), hosts in alike.items())
    more = f"; and {len(choice.refused) - MAX_TOLD} more hosts" if len(choice.refused) > MAX_TOLD else ""
    return f"No valid host was found. There are not enough hosts available. {told}{more}"
