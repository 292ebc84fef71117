"""Handlers of networks and floating IPs until 2.35: the network's in compute's words. Fields that only nova-network filled are empty."""

from typing import Any

from nacre.compute.service import old_addresses
from nacre.core.errors import BadRequest
from nacre.core.http import Call

_EMPTY = dict.fromkeys((
    "cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6", "created_at", "updated_at", "deleted_at",
    "deleted", "injected", "bridge", "vlan", "vpn_public_address", "vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host",
    "bridge_interface", "multi_host", "priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address"))  # fmt: skip


def _network(found: dict[str, Any]) -> dict[str, Any]:
    return {**_EMPTY, "id": found["id"], "label": found["name"]}


def _tenant_network(found: dict[str, Any]) -> dict[str, Any]:
    return {"id": found["id"], "label": found["name"], "cidr": "None"}


def networks(call: Call) -> dict[str, Any]:
    return {"networks": [_network(found) for found in old_addresses.networks(call.caller)]}


def network(call: Call) -> dict[str, Any]:
    return {"network": _network(old_addresses.show_network(call.caller, call.path["id"]))}


def tenant_networks(call: Call) -> dict[str, Any]:
    return {"networks": [_tenant_network(found) for found in old_addresses.networks(call.caller)]}


def tenant_network(call: Call) -> dict[str, Any]:
    return {"network": _tenant_network(old_addresses.show_network(call.caller, call.path["id"]))}


def pools(call: Call) -> dict[str, Any]:
    return {"floating_ip_pools": [{"name": found["name"] or found["id"]} for found in old_addresses.pools(call.caller)]}


def floating_ips(call: Call) -> dict[str, Any]:
    return {"floating_ips": old_addresses.floating_ips(call.caller)}


def floating_ip(call: Call) -> dict[str, Any]:
    return {"floating_ip": old_addresses.show_floating_ip(call.caller, call.path["id"])}


def create_floating_ip(call: Call) -> dict[str, Any]:
    pool = call.body.get("pool")
    if pool is not None and not isinstance(pool, str):
        raise BadRequest(f"Invalid input for field/attribute pool. Value: {pool}. {pool} is not of type 'string', 'null'")
    return {"floating_ip": old_addresses.create_floating_ip(call.caller, pool)}


def delete_floating_ip(call: Call) -> None:
    old_addresses.delete_floating_ip(call.caller, call.path["id"])
