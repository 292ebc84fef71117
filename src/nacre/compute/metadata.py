"""What a guest may know about itself, as files: OpenStack's metadata (openstack/<version>/...) and EC2's (<version>/meta-data/...).

Everything is derived from the server's row and its ports, so the same guest always reads the same (random_seed too: nodes cache these
files on disk). A name that ends in a slash is the text of a folder whose listing is not the names in it (EC2's public-keys).
Source: nova/api/metadata/base.py; https://docs.openstack.org/nova/latest/user/metadata.html
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from nacre import network
from nacre.core import db

OPENSTACK = ("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27", "2020-10-14",
             "2025-04-04", "latest")
EC2 = ("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest")
DOMAIN = "novalocal"


def files(row: db.Row, ports: Sequence[network.Port]) -> dict[str, str | dict[str, str]]:
    """path -> text, or {"base64": ...} of user data that is none (gzip, for instance)."""
    found: dict[str, str | dict[str, str]] = {}
    user_data = _user_data(row.user_data)
    for version in OPENSTACK:
        folder = f"openstack/{version}"
        found[f"{folder}/meta_data.json"] = json.dumps(_meta_data(row, ports, version))
        if user_data is not None:
            found[f"{folder}/user_data"] = user_data
        if version >= "2013-10-17":
            found[f"{folder}/vendor_data.json"] = "{}"
            found[f"{folder}/password"] = ""
        if version >= "2015-10-15":
            found[f"{folder}/network_data.json"] = json.dumps(network_data(ports))
        if version >= "2016-10-06":
            found[f"{folder}/vendor_data2.json"] = json.dumps({"static": {}})
    for version in EC2:
        found |= {f"{version}/meta-data/{name}": text for name, text in _ec2(row, ports).items()}
        if user_data is not None:
            found[f"{version}/user-data"] = user_data
    return found


def _user_data(text: str | None) -> str | dict[str, str] | None:
    if text is None:
        return None
    try:
        raw = base64.b64decode(text)
    except binascii.Error:
        return text
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _meta_data(row: db.Row, ports: Sequence[network.Port], version: str) -> dict[str, Any]:
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
        found["devices"] = []
    if version >= "2020-10-14":
        found["dedicated_cpus"] = []
    return found


def network_data(ports: Sequence[network.Port]) -> dict[str, Any]:
    """network_data.json: links and networks; addresses come by DHCP."""
    links = [{"id": port.tap, "vif_id": port.id, "type": "ovs", "mtu": port.mtu, "ethernet_mac_address": port.mac_address} for port in ports]
    networks: list[Mapping[str, Any]] = []
    for port in ports:
        for fixed in port.fixed_ips:
            kind = "ipv6_dhcp" if ":" in fixed["ip_address"] else "ipv4_dhcp"
            networks.append({"id": f"network{len(networks)}", "type": kind, "link": port.tap, "network_id": port.network_id})
    return {"links": links, "networks": networks, "services": []}


def _ec2(row: db.Row, ports: Sequence[network.Port]) -> dict[str, str]:
    fixed = next((f["ip_address"] for port in ports for f in port.fixed_ips if ":" not in f["ip_address"]), "")
    floating = next((outer for port in ports for outer in port.floating_ips.values() if outer), "")
    hostname = f"{row.hostname}.{DOMAIN}"
    groups = list(dict.fromkeys(name for port in ports for name in port.security_groups)) or ["default"]
    found = {
        "ami-id": f"ami-{zlib.crc32((row.image_id or '').encode()):08x}", "ami-launch-index": str(row.launch_index), "ami-manifest-path": "FIXME",
        "instance-id": f"i-{row.number:08x}", "instance-type": row.flavor["name"], "instance-action": "none", "hostname": hostname,
        "local-hostname": hostname, "public-hostname": hostname, "local-ipv4": fixed, "public-ipv4": floating, "reservation-id": row.reservation_id,
        "security-groups": "\n".join(groups), "placement/availability-zone": row.availability_zone or "",
        "block-device-mapping/ami": "vda", "block-device-mapping/root": row.root_device_name or "/dev/vda",
    }  # fmt: skip
    if row.key:
        found |= {"public-keys/": f"0={row.key['name']}", "public-keys/0/openssh-key": row.key["data"]}
    return found
