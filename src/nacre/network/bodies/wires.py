"""Networks, subnets and ports on the wire."""

from typing import Annotated, Any

import msgspec

from nacre.core.versions import UNSET, UnsetType
from nacre.network.bodies import HostName, Name, Ref, change, one_or_many, standard

_PROVIDER = {"network_type": "provider:network_type", "physical_network": "provider:physical_network",
             "segmentation_id": "provider:segmentation_id", "external": "router:external"}  # fmt: skip


class NetworkChange(msgspec.Struct, forbid_unknown_fields=True, rename=_PROVIDER):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    mtu: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    dns_domain: Name | UnsetType = UNSET
    network_type: str | UnsetType | None = UNSET
    physical_network: str | UnsetType | None = UNSET
    segmentation_id: int | UnsetType | None = UNSET


class NewNetwork(NetworkChange, forbid_unknown_fields=True, rename=_PROVIDER):
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET
    availability_zone_hints: list[str] | UnsetType = UNSET


class SubnetChange(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    gateway_ip: str | UnsetType | None = UNSET
    allocation_pools: list[dict[str, str]] | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: list[str] | UnsetType | None = UNSET
    host_routes: list[dict[str, str]] | UnsetType | None = UNSET
    service_types: list[str] | UnsetType = UNSET
    dns_publish_fixed_ip: bool | UnsetType = UNSET


class NewSubnet(SubnetChange, forbid_unknown_fields=True, kw_only=True):
    network_id: Ref
    ip_version: int
    cidr: str | UnsetType | None = UNSET
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET
    ipv6_ra_mode: str | UnsetType | None = UNSET
    ipv6_address_mode: str | UnsetType | None = UNSET
    subnetpool_id: Ref | UnsetType | None = UNSET
    use_default_subnetpool: bool | UnsetType = UNSET
    prefixlen: int | UnsetType = UNSET


_BINDING = {"host_id": "binding:host_id", "profile": "binding:profile", "vnic_type": "binding:vnic_type"}


class PortChange(msgspec.Struct, forbid_unknown_fields=True, rename=_BINDING):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    device_id: Name | UnsetType = UNSET
    device_owner: Name | UnsetType = UNSET
    mac_address: str | UnsetType | None = UNSET
    fixed_ips: list[dict[str, str]] | UnsetType | None = UNSET
    security_groups: list[str] | UnsetType | None = UNSET
    allowed_address_pairs: list[dict[str, str]] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    extra_dhcp_opts: list[dict[str, Any]] | UnsetType | None = UNSET
    dns_name: HostName | UnsetType = UNSET
    host_id: Name | UnsetType | None = UNSET
    profile: dict[str, Any] | UnsetType | None = UNSET
    vnic_type: str | UnsetType = UNSET


class NewPort(PortChange, forbid_unknown_fields=True, kw_only=True, rename=_BINDING):
    network_id: Ref
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET


NEW_NETWORK, CHANGE_NETWORK = one_or_many("network", "networks", NewNetwork), change("network", NetworkChange)
NEW_SUBNET, CHANGE_SUBNET = one_or_many("subnet", "subnets", NewSubnet), change("subnet", SubnetChange)
NEW_PORT, CHANGE_PORT = one_or_many("port", "ports", NewPort), change("port", PortChange)


def network(record: dict[str, Any]) -> dict[str, Any]:
    return {
        **standard(record), "admin_state_up": record["admin_state_up"], "status": "ACTIVE", "subnets": record["subnets"],
        "shared": record["shared"], "router:external": record["external"], "mtu": record["mtu"], "is_default": record["is_default"],
        "port_security_enabled": record["port_security_enabled"], "dns_domain": record["dns_domain"],
        "availability_zone_hints": record["availability_zone_hints"], "availability_zones": record["availability_zones"],
        "ipv4_address_scope": None, "ipv6_address_scope": None, "provider:network_type": record["network_type"],
        "provider:physical_network": record["physical_network"], "provider:segmentation_id": record["segmentation_id"],
    }  # fmt: skip


def subnet(record: dict[str, Any]) -> dict[str, Any]:
    names = ("network_id", "ip_version", "cidr", "gateway_ip", "allocation_pools", "enable_dhcp", "dns_nameservers", "host_routes",
             "ipv6_ra_mode", "ipv6_address_mode", "service_types", "dns_publish_fixed_ip", "subnetpool_id")  # fmt: skip
    return {**standard(record), **{name: record[name] for name in names}, "router:external": record["network_external"]}


def port(record: dict[str, Any]) -> dict[str, Any]:
    names = ("network_id", "mac_address", "admin_state_up", "device_id", "device_owner", "port_security_enabled", "extra_dhcp_opts",
             "fixed_ips", "security_groups", "status", "dns_name")  # fmt: skip
    binding, served = record["binding"], record["host"] and record["device_owner"].startswith("network:")
    vif = binding.vif_type if binding is not None else "ovs" if served else "unbound"
    details = binding.vif_details if binding is not None else {"port_filter": True, "connectivity": "l2"} if served else {}
    return {
        **standard(record), **{name: record[name] for name in names}, "dns_assignment": _assignment(record),
        "allowed_address_pairs": [{"ip_address": pair["ip_address"], "mac_address": pair.get("mac_address", record["mac_address"])}
                                  for pair in record["allowed_address_pairs"]],
        "binding:vnic_type": record["vnic_type"], "binding:host_id": record["host"], "binding:profile": record["profile"],
        "binding:vif_type": vif, "binding:vif_details": details,
    }  # fmt: skip


def _assignment(record: dict[str, Any]) -> list[dict[str, str]]:
    def name(address: str) -> str:
        return record["dns_name"] or "host-" + address.replace(".", "-").replace(":", "-")

    return [{"hostname": name(fixed["ip_address"]), "ip_address": fixed["ip_address"], "fqdn": f"{name(fixed['ip_address'])}.openstacklocal."}
            for fixed in record["fixed_ips"]]  # fmt: skip
