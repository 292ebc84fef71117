"""What a guest may know about itself, as files: OpenStack's metadata (openstack/<version>/...) and EC2's (<version>/meta-data/...), over HTTP
or on its config drive.

Everything is derived from the server's row and its ports, so the same guest always reads the same (random_seed too: nodes cache these
files on disk). A name that ends in a slash is the text of a folder whose listing is not the names in it (EC2's public-keys).
Source: nova/api/metadata/base.py, nova/virt/netutils.py; https://docs.openstack.org/nova/latest/user/metadata.html
"""

import base64
import binascii
import hashlib
import ipaddress
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre import network
from nacre.core import db

OPENSTACK = ("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27", "2020-10-14",
             "2025-04-04", "latest")
EC2 = ("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest")
ON_DRIVES = ("2009-04-04", "latest")
DOMAIN = "novalocal"
File = str | dict[str, str]
"""A text, or {"base64": ...} of what is none (user data that is gzip, for instance)."""
_EC2_SINCE = {"local-hostname": "2007-01-19", "public-hostname": "2007-01-19", "public-ipv4": "2007-01-19", "instance-type": "2007-08-29",
              "block-device-mapping": "2007-12-15", "placement": "2008-02-01", "instance-action": "2008-09-01"}  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """A server's row, its ports, the subnets of their addresses by id, and the operator's vendor data."""

    row: db.Row
    ports: Sequence[network.Port] = ()
    subnets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vendor: Mapping[str, Any] = field(default_factory=dict)


def files(guest: Guest) -> dict[str, File]:
    """What the guest reads at 169.254.169.254, by path."""
    found = _openstack(guest)
    user_data = _user_data(guest.row.user_data)
    for version in OPENSTACK:
        if version >= "2013-04-04":
            found[f"openstack/{version}/password"] = guest.row.guest_password or ""
    for version in EC2:
        found |= _flat(f"{version}/meta-data", _ec2(guest, version))
        if guest.row.key:
            found[f"{version}/meta-data/public-keys/"] = f"0={guest.row.key['name']}"
        if user_data is not None:
            found[f"{version}/user-data"] = user_data
    return found


def config_drive(guest: Guest) -> dict[str, File]:
    """What is on the guest's config drive, by path. Files that were injected are nowhere else."""
    injected = guest.row.injected_files or ()
    found = _openstack(guest, [file["path"] for file in injected])
    found |= {f"openstack/{_content(number)}": _decoded(file["contents"]) for number, file in enumerate(injected)}
    user_data = _user_data(guest.row.user_data)
    for version in ON_DRIVES:
        found[f"ec2/{version}/meta-data.json"] = json.dumps(_ec2(guest, version))
        if user_data is not None:
            found[f"ec2/{version}/user-data"] = user_data
    return found


def _content(number: int) -> str:
    return f"content/{number:04}"


def _openstack(guest: Guest, injected: Sequence[str] = ()) -> dict[str, File]:
    found: dict[str, File] = {}
    about = {"files": [{"path": path, "content_path": f"/{_content(number)}"} for number, path in enumerate(injected)]} if injected else {}
    user_data, wires = _user_data(guest.row.user_data), json.dumps(network_data(guest.ports, guest.subnets))
    for version in OPENSTACK:
        folder = f"openstack/{version}"
        found[f"{folder}/meta_data.json"] = json.dumps(_meta_data(guest, version) | about)
        if user_data is not None:
            found[f"{folder}/user_data"] = user_data
        if version >= "2013-10-17":
            found[f"{folder}/vendor_data.json"] = json.dumps(guest.vendor)
        if version >= "2015-10-15":
            found[f"{folder}/network_data.json"] = wires
        if version >= "2016-10-06":
            found[f"{folder}/vendor_data2.json"] = json.dumps({"static": guest.vendor})
    return found


def _user_data(text: str | None) -> File | None:
    return None if text is None else _decoded(text)


def _decoded(text: str) -> File:
    try:
        raw = base64.b64decode(text)
    except binascii.Error:
        return text
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _meta_data(guest: Guest, version: str) -> dict[str, Any]:
    row = guest.row
    found: dict[str, Any] = {"uuid": row.id, "hostname": f"{row.hostname}.{DOMAIN}", "name": row.name, "launch_index": row.launch_index,
                             "availability_zone": row.availability_zone or ""}  # fmt: skip
    if row.meta:
        found["meta"] = row.meta
    if row.key:
        found["public_keys"] = {row.key["name"]: row.key["data"]}
        found["keys"] = [row.key]
    if version >= "2013-04-04":
        found["random_seed"] = base64.b64encode(hashlib.shake_256(row.seed.encode()).digest(512)).decode()
    if version >= "2015-10-15":
        found["project_id"] = row.project_id
    if version >= "2016-06-30":
        found["devices"] = _devices(guest, version)
    if version >= "2020-10-14":
        found["dedicated_cpus"] = []
    return found


def _devices(guest: Guest, version: str) -> list[dict[str, Any]]:
    """Those with a tag. Hosts do not say where on a bus they are."""
    trusted = {"vf_trusted": False} if version >= "2018-08-27" else {}
    nics = [{"type": "nic", "mac": port.mac_address, **trusted, "tags": [port.device_tag]} for port in guest.ports if port.device_tag]
    root = guest.row.root_device_tag
    disks = [{"type": "disk", "path": guest.row.root_device_name, "tags": [root]}] if root else []
    return [{"bus": "none", "address": "none", **device} for device in [*nics, *disks]]


# network_data.json


def network_data(ports: Sequence[network.Port], subnets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Links and networks: the first IPv4 address of each port and its IPv6 addresses, static ones with all that sets them up."""
    links = [{"id": port.tap, "vif_id": port.id, "type": "ovs", "mtu": port.mtu, "ethernet_mac_address": port.mac_address}
             for port in ports if port.fixed_ips]  # fmt: skip
    networks: list[Mapping[str, Any]] = []
    services: list[Mapping[str, str]] = []
    for port in ports:
        for fixed in _shown(port.fixed_ips):
            subnet = subnets[fixed["subnet_id"]]
            about = {"id": f"network{len(networks)}", "type": _kind(subnet), "link": port.tap}
            networks.append({**about, **_static(fixed["ip_address"], subnet), "network_id": port.network_id})
            services += [each for each in _dns(subnet) if each not in services]
    return {"links": links, "networks": networks, "services": services}


def _shown(fixed_ips: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    first = next((fixed for fixed in fixed_ips if ":" not in fixed["ip_address"]), None)
    return ([first] if first else []) + [fixed for fixed in fixed_ips if ":" in fixed["ip_address"]]


def _kind(subnet: Mapping[str, Any]) -> str:
    version = f"ipv{subnet['ip_version']}"
    if subnet["ipv6_address_mode"]:
        return f"{version}_{subnet['ipv6_address_mode']}"
    return f"{version}_dhcp" if subnet["enable_dhcp"] else version


def _static(address: str, subnet: Mapping[str, Any]) -> dict[str, Any]:
    """What a guest must set up by itself; nothing where DHCP says it."""
    if subnet["enable_dhcp"] and not subnet["ipv6_address_mode"]:
        return {}
    everything = "::" if subnet["ip_version"] == 6 else "0.0.0.0"
    routes = [{"network": everything, "netmask": everything, "gateway": subnet["gateway_ip"]}] if subnet["gateway_ip"] else []
    for route in subnet["host_routes"]:
        target = ipaddress.ip_network(route["destination"])
        routes.append({"network": str(target.network_address), "netmask": str(target.netmask), "gateway": route["nexthop"]})
    netmask = str(ipaddress.ip_network(subnet["cidr"]).netmask)
    return {"ip_address": address, "netmask": netmask, "routes": routes, "services": _dns(subnet)}


def _dns(subnet: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"type": "dns", "address": server} for server in subnet["dns_nameservers"]]


# EC2


def _ec2(guest: Guest, version: str) -> dict[str, Any]:
    """The tree below meta-data as that version had it."""
    row, ports = guest.row, guest.ports
    fixed = next((f["ip_address"] for port in ports for f in port.fixed_ips if ":" not in f["ip_address"]), "")
    floating = next((outer for port in ports for outer in port.floating_ips.values() if outer), "")
    hostname = f"{row.hostname}.{DOMAIN}"
    found: dict[str, Any] = {
        "ami-id": f"ami-{zlib.crc32((row.image_id or '').encode()):08x}", "ami-launch-index": row.launch_index, "ami-manifest-path": "FIXME",
        "instance-id": f"i-{row.number:08x}", "instance-type": row.flavor["name"], "instance-action": "none", "hostname": hostname,
        "local-hostname": hostname, "public-hostname": hostname, "local-ipv4": fixed, "public-ipv4": floating, "reservation-id": row.reservation_id,
        "security-groups": list(dict.fromkeys(name for port in ports for name in port.security_groups)) or ["default"],
        "placement": {"availability-zone": row.availability_zone or ""}, "block-device-mapping": _mapping(row),
    }  # fmt: skip
    if row.key:
        found["public-keys"] = {"0": {"openssh-key": row.key["data"]}}
    return {name: value for name, value in found.items() if version >= _EC2_SINCE.get(name, "")}


def _mapping(row: db.Row) -> dict[str, str]:
    """EC2's names of the disks -> the guest's."""
    root = row.root_device_name or "/dev/vda"
    extra = [name for name, size in (("ephemeral0", "ephemeral_gb"), ("swap", "swap_mb")) if row.flavor.get(size)]
    return {"ami": root.removeprefix("/dev/"), "root": root, **{name: f"/dev/vd{'bc'[place]}" for place, name in enumerate(extra)}}


def _flat(folder: str, tree: Mapping[str, Any]) -> dict[str, File]:
    found: dict[str, File] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(f"{folder}/{name}", value)
        else:
            found[f"{folder}/{name}"] = "\n".join(value) if isinstance(value, list) else str(value)
    return found
