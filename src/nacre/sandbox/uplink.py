"""`--uplink nat`: the guests' way out of a cloud, and the closed door where it was not asked for.

What leaves the cloud comes by `ext-out`, beyond the external network. In the namespace that holds that device a *door* stands: table
`inet nacre_<mark>`, which lets nothing through, or, open, lets IPv4 out under the host's own address and only answers in.
For a sandbox there is one more step: a veth pair, `uplink` in the host and `nacre-<mark>` on the machine, with a door of the same make on
the machine. It takes a /30 of 198.18.0.0/15 that no route of the machine overlaps. On the machine itself the first door is all.

A machine that did not forward packets does so while at least one cloud has an uplink: `/run/nacre/forwarding/` holds what was before and
one file a cloud; who takes the last away puts it back. `/run/nacre` is locked while that is decided.
Doors never lead to link-local addresses (a provider's metadata service) nor, from a sandbox, to the machine itself.
"""

import fcntl
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nacre.node.commands import CommandFailed, run
from nacre.sandbox.cables import OUTSIDE

INNER = "uplink"
FORWARDING = Path("/run/nacre/forwarding")
_SYSCTL = "net.ipv4.ip_forward"
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
_KEEP_OUT = "169.254.0.0/16"


def table(mark: str) -> str:
    return f"nacre_{mark}"


def outer(mark: str) -> str:
    """The uplink's end on the machine."""
    return f"nacre-{mark}"


def door(name: str, device: str, *, way_out: str | None, is_open: bool, shield: bool = False) -> str:
    """The ruleset for what comes by `device`: out by `way_out`, or by any other device if that is None. `shield`: none of it is for the
    host itself."""
    lines = [f"table inet {name}", f"delete table inet {name}", f"table inet {name} {{"]
    out = f'oifname "{way_out}"' if way_out else f'oifname != "{device}"'
    passing = [
        f'iifname "{device}" ip daddr {_KEEP_OUT} drop',
        f'iifname "{device}" {out} meta nfproto ipv4 accept',
        f'oifname "{device}" ct state established,related accept',
    ]
    closed = [f'iifname "{device}" drop', f'oifname "{device}" drop']
    lines += _chain("forward", "type filter hook forward priority filter", [*(passing if is_open else []), *closed])
    if is_open:
        lines += _chain("postrouting", "type nat hook postrouting priority srcnat", [f'iifname "{device}" {out} masquerade'])
    if shield:
        lines += _chain("input", "type filter hook input priority filter", [f'iifname "{device}" drop'])
    return "\n".join([*lines, "}", ""])


def _chain(name: str, hook: str, rules: Sequence[str]) -> list[str]:
    return [f"    chain {name} {{", f"        {hook}; policy accept;", *(f"        {rule}" for rule in rules), "    }"]


def choose(mark: str, taken: Iterable[str]) -> ipaddress.IPv4Network:
    """A /30 that overlaps none of the networks `taken`. Raises LookupError when there is none."""
    used = [network for network in map(ipaddress.IPv4Network, taken) if network.overlaps(_RANGE)]
    count = _RANGE.num_addresses // 4
    first = int(mark, 16) % count
    for step in range(count):
        found = ipaddress.IPv4Network((int(_RANGE.network_address) + (first + step) % count * 4, 30))
        if not any(found.overlaps(network) for network in used):
            return found
    raise LookupError(f"the machine's routes leave no part of {_RANGE} for the uplink")


# The host whose door it is: None is the machine, else a network namespace file


def _in(host: Path | None, *argv: str, stdin: str | None = None) -> str:
    return run([*(["nsenter", f"--net={host}", "--"] if host else []), *argv], stdin=stdin)


def ensure(mark: str, host: Path | None, *, is_open: bool) -> None:
    """The door at the outside of host 1, and what an open one needs. Raises CommandFailed, LookupError, OSError."""
    if host:
        if is_open:
            _lay(mark, host)
        else:
            cut(mark)
        _in(host, "sysctl", "-q", "-w", f"{_SYSCTL}={int(is_open)}")
    elif is_open:
        _forward(mark)
    else:
        _forward_no_more(mark)
    _in(host, "nft", "-f", "-", stdin=door(table(mark), OUTSIDE, way_out=INNER if host else None, is_open=is_open))


def cut(mark: str) -> None:
    """The machine's end of the uplink, its door and its part in forwarding go. Raises CommandFailed, OSError."""
    end = Path("/sys/class/net") / outer(mark)
    if end.exists():
        try:
            run(["ip", "link", "delete", outer(mark)])
        except CommandFailed:
            if end.exists():  # else it went with the host's end
                raise
    with suppress(CommandFailed):  # there was none
        run(["nft", "delete", "table", "inet", table(mark)])
    _forward_no_more(mark)


def _lay(mark: str, host: Path) -> None:
    """The veth pair, its addresses, the machine's door and the host's way to it."""
    if not _whole(mark, host):
        cut(mark)
        routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
        machine, guest = list(choose(mark, (route["dst"] for route in routes if route["dst"] != "default")).hosts())
        run(["ip", "link", "add", outer(mark), "type", "veth", "peer", "name", INNER, "netns", str(host)])
        run(["ip", "address", "add", f"{machine}/30", "dev", outer(mark)])
        run(["ip", "link", "set", outer(mark), "addrgenmode", "none", "up"])
        _in(host, "ip", "address", "add", f"{guest}/30", "dev", INNER)
        _in(host, "ip", "link", "set", INNER, "addrgenmode", "none", "up")
        _in(host, "ip", "route", "replace", "default", "via", str(machine), "dev", INNER)
    run(["nft", "-f", "-"], stdin=door(table(mark), outer(mark), way_out=None, is_open=True, shield=True))
    _forward(mark)


def _whole(mark: str, host: Path) -> bool:
    """Whether the pair is there up to the last thing that is done to it, which is the host's default route."""
    if not Path(f"/sys/class/net/{outer(mark)}").exists():
        return False
    routes = json.loads(_in(host, "ip", "-json", "-4", "route", "show", "default") or "[]")
    return any(route.get("dev") == INNER for route in routes)


# Forwarding


@contextmanager
def _deciding() -> Iterator[None]:
    FORWARDING.parent.mkdir(mode=0o755, exist_ok=True)
    descriptor = os.open(FORWARDING.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _forward(mark: str) -> None:
    with _deciding():
        FORWARDING.mkdir(mode=0o755, exist_ok=True)
        before = FORWARDING / "before"
        if not before.exists():
            before.write_text(run(["sysctl", "-n", _SYSCTL]))
        (FORWARDING / mark).touch()
        run(["sysctl", "-q", "-w", f"{_SYSCTL}=1"])


def _forward_no_more(mark: str) -> None:
    if not (FORWARDING / mark).exists():
        return
    with _deciding():
        (FORWARDING / mark).unlink(missing_ok=True)
        before = FORWARDING / "before"
        if [entry for entry in FORWARDING.iterdir() if entry != before]:
            return
        if before.exists():
            run(["sysctl", "-q", "-w", f"{_SYSCTL}={before.read_text().strip()}"])
        before.unlink(missing_ok=True)
        FORWARDING.rmdir()
