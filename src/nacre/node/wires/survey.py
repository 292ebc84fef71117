"""How a host's wires differ from what is wanted, for `nacre doctor`: the same plans that `apply` carries out, only told.

Told apart are what is ours by name or mark, guests' taps (libvirt's, so never taken away by `apply`), and what others made.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nacre.node.commands import CommandFailed
from nacre.node.wires import netns, ports
from nacre.node.wires.layout import Room
from nacre.node.wires.ovsdb import Switch
from nacre.node.wires.rooms import Rooms

TAP = "tap"


def finding(kind: str, name: str, cause: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "cause": cause}


def switch(changes: ports.Changes) -> list[dict[str, str]]:
    found = [finding("bridge-missing", name, "the switch lost it") for name in changes.bridges]
    found += [finding("switch-port-missing", name, "the switch lost it" if name not in changes.removed else "it was changed in the switch")
              for name in changes.added]  # fmt: skip
    found += [finding("switch-port-stray", name, "it has our mark and no document wants it") for name in changes.removed if name not in changes.added]
    found += [finding("switch-port-tag", name, f"its VLAN tag is not {tag}") for name, tag in changes.tags.items()]
    return found + ([finding("switch-vlans", ports.INTEGRATION, "its record of local VLANs is not ours")] if changes.vlans is not None else [])


def flows(missing: Mapping[str, int]) -> list[dict[str, str]]:
    return [finding("flows", bridge, f"{abs(count)} of our flows are {'missing' if count > 0 else 'more than we put'}")
            for bridge, count in missing.items()]  # fmt: skip


def namespaces(rooms: Sequence[Room], kept: Iterable[str], present: Iterable[str]) -> list[dict[str, str]]:
    there, keep = set(present), set(kept)
    found = [finding("namespace-stray", name, "no document wants it") for name in sorted(there - keep)]
    for room in rooms:
        if room.namespace not in there:
            found.append(finding("namespace-missing", room.namespace, "it was taken away"))
            continue
        try:
            batch = netns.plan(room, netns.look(room.namespace)).batch
        except (CommandFailed, OSError, ValueError) as error:
            found.append(finding("namespace-differs", room.namespace, f"it cannot be looked at: {error}"))
        else:
            found += [finding("namespace-differs", room.namespace, f"it lacks: {batch[0]}")] if batch else []
    return found


def servers(rooms: Rooms, wanted: Iterable[Room], kept: Iterable[str]) -> list[dict[str, str]]:
    """dnsmasq and radvd."""
    keep, alive = set(kept), {server.namespace for server in rooms.servers() if server.pid() is not None}
    found = [finding("dhcp-missing", room.namespace, "its dnsmasq does not run") for room in wanted
             if room.owner[0] == "dhcp" and room.namespace not in alive]  # fmt: skip
    found += [finding("server-stray", f"{server.folder}", "no document wants its room") for server in rooms.servers() if server.namespace not in keep]
    return found + [finding("server-stray", f"pid {pid} of {room}", "its pid file names another") for pid, room in sorted(rooms.strangers().items())]


def taps(now: Switch, devices: Iterable[str], legs: Iterable[str]) -> list[dict[str, str]]:
    """Guests' ports in the switch, and tap devices that are in no switch."""
    found = [{"name": name, "port_id": port.external_ids.get("iface-id", "")} for name, port in sorted(now.ports.items())
             if name.startswith(TAP) and ports.MARK not in port.external_ids]  # fmt: skip
    known = {*now.ports, *legs}
    return found + [{"name": name, "port_id": ""} for name in sorted(devices) if name.startswith(TAP) and name not in known]


def others(now: Switch, bridges: Iterable[str], rooms: Iterable[str]) -> list[dict[str, Any]]:
    own = set(bridges)
    found = [{"kind": "bridge", "name": name} for name in sorted(now.bridges) if name not in own]
    found += [{"kind": "switch-port", "name": name} for name, port in sorted(now.ports.items())
              if ports.MARK not in port.external_ids and not name.startswith(TAP) and name not in now.bridges and port.bridge in own]  # fmt: skip
    there = {path.name for path in netns.FOLDER.iterdir()} if netns.FOLDER.is_dir() else set()
    return found + [{"kind": "namespace", "name": name} for name in sorted(there - set(rooms)) if not name.startswith(netns.PREFIXES)]
