"""Networks with their segments, subnets, ports with their addresses, and where ports and DHCP servers are.

A segment's primary key is what makes it one network's only; an address's, one port's only. `number` is the address as 32 hexadecimal
digits, so that the text's order is the address' order in both families. Of all networks one at most is the default external one.
"""

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.network.tables import standard

networks = sa.Table(
    "networks", db.metadata, *standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("external", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("dns_domain", sa.String(255), nullable=False),
    sa.Column("availability_zone_hints", db.Json, nullable=False),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segmentation_id", sa.Integer),
    sa.Index("uq_networks_default", "is_default", unique=True, sqlite_where=sa.text("is_default"), postgresql_where=sa.text("is_default")),
)  # fmt: skip
segments = sa.Table(
    "network_segments", db.metadata,
    sa.Column("network_type", sa.String(32), primary_key=True),
    sa.Column("physical_network", sa.String(64), primary_key=True),       # "" for tunnels
    sa.Column("segmentation_id", sa.Integer, primary_key=True, autoincrement=False),  # 0 for flat
    sa.Column("network_id", sa.String(36), nullable=False, unique=True),
)  # fmt: skip
subnets = sa.Table(
    "subnets", db.metadata, *standard(),
    sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id"), nullable=False, index=True),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("cidr", sa.String(64), nullable=False),
    sa.Column("gateway_ip", sa.String(64)),
    sa.Column("allocation_pools", db.Json, nullable=False),               # [{"start", "end"}]
    sa.Column("enable_dhcp", sa.Boolean, nullable=False),
    sa.Column("dns_nameservers", db.Json, nullable=False),
    sa.Column("host_routes", db.Json, nullable=False),
    sa.Column("ipv6_ra_mode", sa.String(16)),
    sa.Column("ipv6_address_mode", sa.String(16)),
    sa.Column("service_types", db.Json, nullable=False),
    sa.Column("dns_publish_fixed_ip", sa.Boolean, nullable=False),
    sa.Column("subnetpool_id", sa.String(36), index=True),                # the pool that the cidr was cut of
)  # fmt: skip
ports = sa.Table(
    "ports", db.metadata, *standard(),
    sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id"), nullable=False),
    sa.Column("mac_address", sa.String(17), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("device_id", sa.String(255), nullable=False, index=True),
    sa.Column("device_owner", sa.String(255), nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("allowed_address_pairs", db.Json, nullable=False),
    sa.Column("extra_dhcp_opts", db.Json, nullable=False),
    sa.Column("dns_name", sa.String(255), nullable=False),
    sa.Column("vnic_type", sa.String(64), nullable=False),
    sa.Column("profile", db.Json, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),                    # asked by binding:host_id, or by compute
    sa.Column("attached", sa.Integer, nullable=False),                    # order on its server, from 1; compute's front
    sa.Column("goes_with_server", sa.Boolean, nullable=False),            # compute's front
    sa.Column("device_tag", sa.String(60)),                               # what its server's user calls the device; compute's front
    sa.UniqueConstraint("network_id", "mac_address"),
    sa.Index("ix_ports_host", "host"),
)  # fmt: skip
addresses = sa.Table(
    "port_addresses", db.metadata,
    sa.Column("subnet_id", sa.String(36), sa.ForeignKey("subnets.id"), primary_key=True),
    sa.Column("number", sa.String(32), primary_key=True),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Index("ix_port_addresses_address", "address"),
)  # fmt: skip
bindings = sa.Table(
    "port_bindings", db.metadata,
    sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("vif_type", sa.String(64), nullable=False),
    sa.Column("vif_details", db.Json, nullable=False),
    sa.Column("mechanism", sa.String(32), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),                   # ACTIVE, INACTIVE
    sa.Index("ix_port_bindings_host", "host"),
)  # fmt: skip
dhcp_servers = sa.Table(
    "dhcp_servers", db.metadata,
    sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id"), primary_key=True),
    sa.Column("host", sa.String(255), index=True),                        # None: no host was alive; verbs and the scheduling loop
)  # fmt: skip
switches = sa.Table(
    "network_hosts", db.metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("tunnel_ip", sa.String(64)),                                # reports
    sa.Column("options", db.Json, nullable=False),                        # the loop, from the configuration
)  # fmt: skip


def reported_true(kind: str, document_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """SQL: some host has reported the document (`kind`, `document_id`) true since it holds it."""
    held = nodes.holders.c
    return sa.exists().where(held.kind == kind, held.id == document_id, held.applied > 0)


def port_status() -> sa.ColumnElement[str]:
    """SQL: a port's status, from what was reported of the document that its wires are in."""
    up = sa.or_(
        sa.and_(ports.c.device_owner == "network:dhcp", reported_true("dhcp", ports.c.network_id)),
        sa.and_(ports.c.device_owner.in_(ROUTER_PORTS), reported_true("router", ports.c.device_id)),
        sa.and_(ports.c.host != "", reported_true("port", ports.c.id)),
    )
    none = ports.c.device_owner == FLOATING_PORT
    return sa.case((none, "N/A"), (sa.and_(ports.c.admin_state_up, up), "ACTIVE"), else_="DOWN")


ROUTER_INTERFACE, ROUTER_GATEWAY = "network:router_interface", "network:router_gateway"
ROUTER_PORTS = (ROUTER_INTERFACE, ROUTER_GATEWAY)
FLOATING_PORT, DHCP_PORT = "network:floatingip", "network:dhcp"
