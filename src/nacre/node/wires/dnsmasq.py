"""DHCP and names of one network: what dnsmasq is given, and the process that is given it.

Files are replaced whole and dnsmasq told by SIGHUP; it is started anew only when its arguments change, or when an address is leased to
a machine that no longer has it (dnsmasq would refuse it to the new one). A lease of IPv6 does not tell the MAC address, so `owners`
keeps to whom each address was given. Subnets whose machines make their own addresses (SLAAC) have nothing to lease.
"""

import ipaddress
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.node.commands import run
from nacre.node.wires import netns
from nacre.node.wires.daemons import Daemon
from nacre.node.wires.driver import Document
from nacre.node.wires.layout import METADATA, Room

log = logging.getLogger(__name__)
_FILES = ("hosts", "names", "options")


@dataclass(frozen=True)
class Plan:
    """`files`: name -> text; `ranges`: arguments beyond those every dnsmasq has; `owners`: address -> MAC that may lease it."""

    files: Mapping[str, str]
    arguments: tuple[str, ...]
    owners: Mapping[str, str]


def plan(document: Document, network: Document, room: Room, lease_duration: int) -> Plan:
    """Raises KeyError when a document lacks something, ValueError for an impossible address."""
    body = document.body
    domain = body.get("dns_domain") or "openstacklocal"
    served = [subnet for subnet in network.body["subnets"] if subnet["enable_dhcp"] and _leases(subnet)]
    own = {fixed["subnet_id"]: fixed["ip_address"] for fixed in body["port"]["fixed_ips"]}
    ids = {subnet["id"] for subnet in served}
    hosts, names, owners = [], [], {}
    for host in body.get("hosts") or []:
        mac = host["mac_address"].lower()
        for fixed in host["fixed_ips"]:
            address, hostname = fixed["ip_address"], host["hostname"]
            names.append(f"{address} {hostname}.{domain} {hostname}")
            if fixed["subnet_id"] in ids:
                hosts.append(f"{mac},{hostname}.{domain}," + (f"[{address}]" if ":" in address else address))
                owners[address] = mac
    options = [*_options([subnet for subnet in served if not _is_v6(subnet)], own, network), *_options6(served, own, domain)]
    files = {"hosts": _lines(sorted(hosts)), "names": _lines(sorted(names)), "options": _lines(options)}
    arguments = [f"--interface={room.legs[0].name}", f"--domain={domain}"]
    for subnet in served:
        cidr = ipaddress.ip_network(subnet["cidr"])
        size = cidr.prefixlen if cidr.version == 6 else cidr.netmask
        lease = "infinite" if lease_duration == -1 else f"{lease_duration}s"
        arguments.append(f"--dhcp-range=set:subnet-{subnet['id']},{cidr.network_address},static,{size},{lease}")
    return Plan(files, tuple(arguments), owners)


def _is_v6(subnet: Mapping[str, Any]) -> bool:
    return bool(subnet.get("ip_version", 4) == 6)


def _leases(subnet: Mapping[str, Any]) -> bool:
    """As upstream: IPv4, DHCPv6 of either kind, and IPv6 of which nothing is said."""
    address_mode, ra_mode = subnet.get("ipv6_address_mode"), subnet.get("ipv6_ra_mode")
    return not _is_v6(subnet) or address_mode in ("dhcpv6-stateful", "dhcpv6-stateless") or not (address_mode or ra_mode)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _options(served: Sequence[Mapping[str, Any]], own: Mapping[str, str], network: Document) -> list[str]:
    lines = []
    for subnet in served:
        tag, here, gateway = f"tag:subnet-{subnet['id']}", own.get(subnet["id"]), subnet.get("gateway_ip")
        servers = [server for server in subnet.get("dns_nameservers") or [] if ":" not in server] or ([here] if here else [])
        if servers:
            lines.append(f"{tag},option:dns-server,{','.join(servers)}")
        ways = [f"{route['destination']},{route['nexthop']}" for route in subnet.get("host_routes") or []]
        if here and not any(way.startswith(f"{METADATA}/32") for way in ways):
            ways.append(f"{METADATA}/32,{here}")
        if gateway:
            ways.append(f"0.0.0.0/0,{gateway}")
        if ways:
            lines += [f"{tag},option:classless-static-route,{','.join(ways)}", f"{tag},249,{','.join(ways)}"]
        lines.append(f"{tag},option:router,{gateway}" if gateway else f"{tag},option:router")
    return [*lines, f"option:mtu,{network.body.get('mtu') or 1500}"]


def _options6(served: Sequence[Mapping[str, Any]], own: Mapping[str, str], domain: str) -> list[str]:
    lines = []
    for subnet in served:
        if _is_v6(subnet):
            tag, here = f"tag:subnet-{subnet['id']}", own.get(subnet["id"])
            servers = [server for server in subnet.get("dns_nameservers") or [] if ":" in server] or ([here] if here else [])
            if servers:
                lines.append(f"{tag},option6:dns-server,{','.join(f'[{server}]' for server in servers)}")
            lines.append(f"{tag},option6:domain-search,{domain}")
    return lines


def stale_leases(leases: str, owners: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Whether an address that somebody owns now is leased to somebody else. `leases` is dnsmasq's file, `before` who owned each address
    when it was written."""
    for words in (line.split() for line in leases.splitlines()):
        if len(words) < 3 or words[2] not in owners:
            continue
        leased = before.get(words[2], owners[words[2]]) if ":" in words[2] else words[1].lower()
        if leased != owners[words[2]]:
            return True
    return False


class Dnsmasq(Daemon):
    """The dnsmasq of one network; its files are in `folder`, which every user must be able to walk to."""

    def __init__(self, folder: Path, namespace: str) -> None:
        super().__init__(folder, namespace, f"--pid-file={folder}/pid")

    def ensure(self, wanted: Plan) -> bool:
        """Make it serve `wanted`; True when the process is a new one. Raises OSError, CommandFailed."""
        self.open()
        changed = [name for name in _FILES if self.write(name, wanted.files[name])]
        leases, before = self.read("leases"), dict(line.split() for line in self.read("owners").splitlines())
        restart = self.write("arguments", _lines(wanted.arguments)) or stale_leases(leases, wanted.owners, before)
        pid = self.pid()
        if pid and not restart:
            self._own(before, wanted, leases)
            if changed:
                os.kill(pid, signal.SIGHUP)
            return False
        self.stop()
        kept = [line for line in leases.splitlines() if not stale_leases(line, wanted.owners, before)]
        self.write("leases", _lines(kept))
        self._own({}, wanted, "")
        self._start(wanted)
        return True

    def _own(self, before: Mapping[str, str], wanted: Plan, leases: str) -> None:
        """Remember owners of IPv6 addresses, and who had one that is nobody's now but still leased."""
        leased = {words[2] for line in leases.splitlines() if len(words := line.split()) >= 3}
        owners = {address: mac for address, mac in before.items() if address in leased} | dict(wanted.owners)
        self.write("owners", _lines(sorted(f"{address} {mac}" for address, mac in owners.items() if ":" in address)))

    def _start(self, wanted: Plan) -> None:
        path = self.folder
        argv = [
            "dnsmasq", "--conf-file=", "--no-hosts", "--no-resolv", "--bind-dynamic", "--except-interface=lo", "--dhcp-authoritative",
            "--local-service", f"--pid-file={path}/pid", f"--dhcp-hostsfile={path}/hosts", f"--addn-hosts={path}/names",
            f"--dhcp-optsfile={path}/options", f"--dhcp-leasefile={path}/leases", f"--log-facility={path}/log",
            "--dhcp-lease-max=65536", "--dhcp-match=set:ipxe,175", *wanted.arguments,
        ]  # fmt: skip
        netns.inside(self.namespace, lambda: run(argv, timeout=10))
