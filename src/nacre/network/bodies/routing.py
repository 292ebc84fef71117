"""Routers and floating IPs on the wire."""

from typing import Any

import msgspec

from nacre.core.versions import UNSET, Body, UnsetType
from nacre.network.bodies import Name, Ref, change, given, moment, one_or_many, standard


class Gateway(msgspec.Struct, forbid_unknown_fields=True):
    network_id: Ref | UnsetType | None = UNSET
    enable_snat: bool | UnsetType | None = UNSET
    external_fixed_ips: list[dict[str, str]] | UnsetType | None = UNSET


class RouterChange(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    external_gateway_info: Gateway | UnsetType | None = UNSET
    routes: list[dict[str, str]] | UnsetType | None = UNSET
    ha: bool | UnsetType | None = UNSET
    distributed: bool | UnsetType | None = UNSET


class NewRouter(RouterChange, forbid_unknown_fields=True):
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET
    availability_zone_hints: list[str] | UnsetType = UNSET


class Interface:
    subnet_id: Ref | UnsetType | None = UNSET
    port_id: Ref | UnsetType | None = UNSET


class FloatingChange(msgspec.Struct, forbid_unknown_fields=True):
    description: Name | UnsetType = UNSET
    port_id: Ref | UnsetType | None = UNSET
    fixed_ip_address: str | UnsetType | None = UNSET


class NewFloating(FloatingChange, forbid_unknown_fields=True, kw_only=True):
    floating_network_id: Ref
    floating_ip_address: str | UnsetType | None = UNSET
    subnet_id: Ref | UnsetType | None = UNSET
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET
    dns_name: Name | UnsetType = UNSET
    dns_domain: Name | UnsetType = UNSET


NEW_ROUTER, CHANGE_ROUTER = one_or_many("router", "routers", NewRouter), change("router", RouterChange)
INTERFACE = Body(None, Interface)
NEW_FLOATING, CHANGE_FLOATING = one_or_many("floatingip", "floatingips", NewFloating), change("floatingip", FloatingChange)


def with_gateway(said: dict[str, Any]) -> dict[str, Any]:
    """A router's request with its gateway as a plain dict."""
    if said.get("external_gateway_info") is not None:
        said["external_gateway_info"] = given(said["external_gateway_info"])
    return said


def router(record: dict[str, Any]) -> dict[str, Any]:
    gateway = None
    if record["gateway_network_id"]:
        gateway = {"network_id": record["gateway_network_id"], "external_fixed_ips": record["external_fixed_ips"],
                   "enable_snat": record["enable_snat"]}  # fmt: skip
    return {
        **standard(record), "admin_state_up": record["admin_state_up"], "status": "ACTIVE", "external_gateway_info": gateway,
        "routes": record["routes"], "distributed": False, "ha": False, "availability_zone_hints": record["availability_zone_hints"],
        "availability_zones": ["nova"] if record["host"] else [], "flavor_id": None,
    }  # fmt: skip


def floating_ip(record: dict[str, Any]) -> dict[str, Any]:
    shown = standard(record)
    del shown["name"]
    port = record["port"]
    details = {"name": port.name, "network_id": port.network_id, "mac_address": port.mac_address, "admin_state_up": port.admin_state_up,
               "status": port.status, "device_id": port.device_id, "device_owner": port.device_owner} if port is not None else None  # fmt: skip
    return {
        **shown, "floating_network_id": record["network_id"], "floating_ip_address": record["address"], "port_id": record["port_id"],
        "fixed_ip_address": record["fixed_ip_address"], "router_id": record["router_id"], "status": record["status"],
        "dns_name": record["dns_name"], "dns_domain": record["dns_domain"], "port_details": details,
        "created_at": moment(record["created_at"]),
    }  # fmt: skip
