"""Networks, subnets, ports, routers, floating IPs and security groups: the Networking API v2.0 and what nodes make of it.

It owns the rows of its tables and the documents of every kind but `server`. A change writes rows and bumps, in the same transaction,
just the documents that the change alters (`service/wiring.py`); nodes fetch, apply and report, and what they report is what a port's
status says. What has to run somewhere without being asked for (a network's DHCP server, a router) has binding rows too, chosen in the
transaction where a host is alive and by a loop where none was.

What other services call, all as the system (no policy, no commit; `tx` is the caller's open transaction):

    servers       ports_for_server  bind_ports  unbind_ports  release_ports  release_port  ports_of  seen_of  wires_of  unwired
                  server_at  subnets_of  security_groups_of  add_security_group  remove_security_group
                  add_fixed_ip  remove_fixed_ip  add_floating_ip  remove_floating_ip
                  old_groups, old_addresses (modules: what compute shows of groups, networks, floating IPs until 2.35, for the user)
    the program   DOCUMENTS  reported  bootstrap  project_deleted
"""

from nacre.network.mechanisms.openvswitch import DOCUMENTS, reported
from nacre.network.service import old_addresses, old_groups
from nacre.network.service.projects import bootstrap, project_deleted
from nacre.network.service.server_addresses import add_fixed_ip, add_floating_ip, remove_fixed_ip, remove_floating_ip
from nacre.network.service.servers import (
    Port,
    add_security_group,
    attached,
    bind_ports,
    port_of,
    ports_for_server,
    ports_of,
    release_port,
    release_ports,
    remove_security_group,
    security_groups_of,
    seen_of,
    server_at,
    subnets_of,
    unbind_ports,
    unwired,
    wires_of,
)

__all__ = [
    "DOCUMENTS", "Port", "add_fixed_ip", "add_floating_ip", "add_security_group",
    "attached", "bind_ports", "bootstrap", "old_addresses", "old_groups", "port_of", "ports_for_server", "ports_of", "project_deleted",
    "release_port", "release_ports", "remove_fixed_ip", "remove_floating_ip", "remove_security_group",
    "reported", "security_groups_of", "seen_of", "server_at", "subnets_of", "unbind_ports", "unwired", "wires_of",
]  # fmt: skip
