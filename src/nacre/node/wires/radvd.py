"""Router advertisements of one router: what radvd is given, and the process that is given it.

A leg advertises when a subnet it has an address of says by `ipv6_ra_mode` that this cloud's routers do; a subnet with only
`ipv6_address_mode` has a router of somebody else. One radvd a router, started anew when its configuration changes: it says goodbye for
nothing then, since the new one advertises at once.
"""

import ipaddress
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.node.commands import run
from nacre.node.wires import netns
from nacre.node.wires.daemons import Daemon
from nacre.node.wires.driver import Document
from nacre.node.wires.layout import Room

_BY_DHCP = {"dhcpv6-stateless": "AdvOtherConfigFlag on", "dhcpv6-stateful": "AdvManagedFlag on"}
_LEAST_MTU = 1280


def plan(router: Document, networks: Mapping[str, Document], room: Room) -> str:
    """radvd's configuration, empty when nothing is to be advertised. Raises KeyError when a document lacks something."""
    names = {leg.port_id: leg for leg in room.legs}
    lines = []
    for interface in router.body["interfaces"]:
        on = {fixed["subnet_id"] for fixed in interface["fixed_ips"]}
        subnets = [subnet for subnet in networks[interface["network_id"]].body["subnets"] if subnet["id"] in on and subnet.get("ipv6_ra_mode")]
        leg = names[interface["port_id"]]
        lines += _interface(leg.name, leg.mtu, subnets) if subnets else []
    return "".join(f"{line}\n" for line in lines)


def _interface(name: str, mtu: int, subnets: Sequence[Mapping[str, Any]]) -> list[str]:
    modes = {subnet["ipv6_ra_mode"] for subnet in subnets}
    lines = [f"interface {name} {{", "    AdvSendAdvert on;", "    MinRtrAdvInterval 30;", "    MaxRtrAdvInterval 100;"]
    lines += [f"    AdvLinkMTU {mtu};"] if mtu >= _LEAST_MTU else []
    lines += [f"    {flag};" for mode, flag in _BY_DHCP.items() if mode in modes]
    servers = list(dict.fromkeys(server for subnet in subnets for server in subnet.get("dns_nameservers") or [] if ":" in server))
    lines += [f"    RDNSS {' '.join(servers[:3])} {{}};"] if servers else []
    for subnet in sorted(subnets, key=lambda one: str(one["cidr"])):
        alone = "off" if subnet["ipv6_ra_mode"] == "dhcpv6-stateful" else "on"
        prefix = ipaddress.IPv6Network(subnet["cidr"])
        lines += [f"    prefix {prefix} {{", "        AdvOnLink on;", f"        AdvAutonomous {alone};", "    };"]
    return [*lines, "};"]


class Radvd(Daemon):
    """The radvd of one router; its files are in `folder`."""

    def __init__(self, folder: Path, namespace: str) -> None:
        super().__init__(folder, namespace, f"--pidfile={folder}/pid")

    def ensure(self, text: str) -> None:
        """Make it advertise `text`. Raises OSError, CommandFailed."""
        self.open()
        changed = self.write("conf", text)
        pid = self.pid()
        if pid and not changed:
            return
        if pid:
            os.kill(pid, signal.SIGKILL)  # on SIGTERM it would tell guests that their router is gone
            _until(lambda: self.pid() != pid)
        (self.folder / "pid").unlink(missing_ok=True)
        argv = ["radvd", f"--config={self.folder}/conf", f"--pidfile={self.folder}/pid", "--logmethod=logfile", f"--logfile={self.folder}/log"]
        netns.inside(self.namespace, lambda: run(argv, timeout=10))
        _until(lambda: self.pid() is not None)


def _until(true: Any) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.005)
