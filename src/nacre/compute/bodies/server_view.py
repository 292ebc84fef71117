"""A server as a microversion shows it. Each addition names the version it came with; attributes that policy hides are left out."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from nacre.compute import states
from nacre.compute.bodies import flavors
from nacre.compute.bodies.common import stamp
from nacre.compute.service.listing import Detail
from nacre.core import db
from nacre.core.rendered import Rendered
from nacre.core.versions import Version

_rendered = Rendered[Detail](2000)
EXTENDED, HOST_STATUS, HOST_UNKNOWN, SPECS = "extended", "host_status", "host_unknown", "specs"
_COLUMNS = (
    "id", "name", "project_id", "user_id", "meta", "host", "created_at", "updated_at", "vm_state", "task_state", "access_ip_v4", "access_ip_v6",
    "disk_config", "config_drive", "key_name", "image_id", "flavor_id", "flavor", "availability_zone", "launched_at", "terminated_at", "fault",
    "number", "hostname", "launch_index", "reservation_id", "root_device_name", "locked_by", "locked_reason", "description", "group_id",
    "trusted_image_certificates", "pinned_availability_zone",
)
_PROGRESS = ("ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING")


def columns(version: Version, may: Collection[str]) -> tuple[str, ...]:
    """What `detail` reads of a server's row."""
    return (*_COLUMNS, "user_data") if EXTENDED in may and version >= (2, 3) else _COLUMNS


def links(url: str, server_id: str) -> list[dict[str, str]]:
    return [{"rel": "self", "href": f"{url}/v2.1/servers/{server_id}"}, {"rel": "bookmark", "href": f"{url}/servers/{server_id}"}]


def basic(row: db.Row, url: str) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "links": links(url, row.id)}


def addresses(found: Detail) -> dict[str, list[dict[str, Any]]]:
    """Network name -> addresses, floating ones after the fixed one they lead to."""
    shown: dict[str, list[dict[str, Any]]] = {}
    told = None
    for row in found.addresses:
        this = row.network_name, row.mac_address, row.address
        both = [(row.floating, "floating")] if told == this else [(row.address, "fixed"), (row.floating, "floating")]
        told = this
        shown.setdefault(row.network_name, []).extend(
            {"version": 6 if ":" in address else 4, "addr": address, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": row.mac_address}
            for address, kind in both if address)  # fmt: skip
    return shown


@lru_cache(1000)
def host_id(project_id: str, host: str | None) -> str:
    """What a project may know of the host: equal for servers on the same host."""
    return hashlib.sha224(f"{project_id}{host}".encode()).hexdigest() if host else ""


def listed(found: Iterable[Detail], url: str, version: Version, may: Collection[str]) -> list[msgspec.Raw]:
    """Each as `detail` shows it in a list."""
    seen = url, version, frozenset(may)
    return [_rendered.json((one.row.id, seen), one, lambda server: detail(server, url, version, may, one=False)) for one in found]


def detail(found: Detail, url: str, version: Version, may: Collection[str], *, one: bool = True) -> dict[str, Any]:
    """`may`: which of EXTENDED, HOST_STATUS, HOST_UNKNOWN, SPECS the caller sees; `one`: a single server, not a list."""
    row = found.row
    status = states.status(row.vm_state, row.task_state)
    shown: dict[str, Any] = {
        "id": row.id, "name": row.name, "links": links(url, row.id), "status": status, "tenant_id": row.project_id, "user_id": row.user_id,
        "metadata": row.meta, "hostId": host_id(row.project_id, row.host), "created": stamp(row.created_at), "updated": stamp(row.updated_at),
        "addresses": {} if row.vm_state == states.BUILDING else addresses(found), "accessIPv4": row.access_ip_v4 or "",
        "accessIPv6": row.access_ip_v6 or "", "OS-DCF:diskConfig": row.disk_config, "config_drive": row.config_drive, "key_name": row.key_name,
        "image": {"id": row.image_id, "links": [{"rel": "bookmark", "href": f"{url}/images/{row.image_id}"}]} if row.image_id else "",
        "flavor": _flavor(row, url, version, SPECS in may),
        "OS-EXT-AZ:availability_zone": row.availability_zone or "",
        "OS-SRV-USG:launched_at": _plain(row.launched_at), "OS-SRV-USG:terminated_at": _plain(row.terminated_at),
        "OS-EXT-STS:task_state": row.task_state, "OS-EXT-STS:vm_state": row.vm_state, "OS-EXT-STS:power_state": states.POWER.get(row.power or "", 0),
        "os-extended-volumes:volumes_attached": [],
    }  # fmt: skip
    if status in _PROGRESS:
        shown["progress"] = 0
    if row.fault and (status in ("ERROR", "DELETED") or _stands(row)):
        shown["fault"] = _fault(row, EXTENDED in may)
    groups = list(dict.fromkeys(found.groups))
    if groups:
        shown["security_groups"] = [{"name": name} for name in groups]
    if EXTENDED in may:
        shown |= _extended(found, version)
    shown |= _since(found, version, may, one)
    return shown


def changed(shown: dict[str, Any], version: Version) -> dict[str, Any]:
    """What a change answers with: since 2.75 the whole, before only what v2.0 showed and what a version said to add."""
    if version >= (2, 75):
        return shown
    hidden = ("key_name", "config_drive", "security_groups", "host_status")
    kept = {name: value for name, value in shown.items() if name not in hidden and not name.startswith(("OS-EXT", "OS-SRV", "os-ext"))}
    return kept | {"addresses": plain_addresses(shown["addresses"])}


def plain_addresses(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [{"version": item["version"], "addr": item["addr"]} for item in items] for name, items in whole.items()}


def _since(found: Detail, version: Version, may: Collection[str], one: bool) -> dict[str, Any]:
    row, shown = found.row, dict[str, Any]()
    if version >= (2, 9):
        shown["locked"] = row.locked_by is not None
    if version >= (2, 16):
        status = "" if found.host_alive is None else "UP" if found.host_alive else "UNKNOWN"
        if HOST_STATUS in may or (HOST_UNKNOWN in may and status == "UNKNOWN"):
            shown["host_status"] = status
    if version >= (2, 19):
        shown["description"] = row.description
    if version >= (2, 26):
        shown["tags"] = list(found.tags)
    if version >= (2, 63):
        shown["trusted_image_certificates"] = row.trusted_image_certificates
    if version >= (2, 71) and one:
        shown["server_groups"] = [row.group_id] if row.group_id else []
    if version >= (2, 73):
        shown["locked_reason"] = row.locked_reason
    if version >= (2, 90):
        shown["OS-EXT-SRV-ATTR:hostname"] = row.hostname
    if version >= (2, 96):
        shown["pinned_availability_zone"] = row.pinned_availability_zone
    return shown


def _extended(found: Detail, version: Version) -> dict[str, Any]:
    row = found.row
    shown = {"OS-EXT-SRV-ATTR:host": row.host, "OS-EXT-SRV-ATTR:instance_name": f"instance-{row.number:08x}",
             "OS-EXT-SRV-ATTR:hypervisor_hostname": found.hypervisor}  # fmt: skip
    if version >= (2, 3):
        shown |= {"OS-EXT-SRV-ATTR:hostname": row.hostname, "OS-EXT-SRV-ATTR:kernel_id": "", "OS-EXT-SRV-ATTR:launch_index": row.launch_index,
                  "OS-EXT-SRV-ATTR:ramdisk_id": "", "OS-EXT-SRV-ATTR:reservation_id": row.reservation_id,
                  "OS-EXT-SRV-ATTR:root_device_name": row.root_device_name, "OS-EXT-SRV-ATTR:user_data": row.user_data}  # fmt: skip
    return shown


def _flavor(row: db.Row, url: str, version: Version, specs: bool) -> dict[str, Any]:
    if version >= (2, 47):
        return flavors.embedded(row.flavor, specs)
    return {"id": row.flavor_id, "links": [{"rel": "bookmark", "href": f"{url}/flavors/{row.flavor_id}"}]}


def _stands(row: db.Row) -> bool:
    """Whether a fault still says what is wrong with a server that is not ERROR."""
    return bool(row.fault.get("stands")) and (row.launched_at is None or row.launched_at.isoformat() < row.fault["created"])


def _fault(row: db.Row, cause: bool) -> dict[str, Any]:
    message = row.fault["message"] if cause else row.fault.get("plain", row.fault["message"])
    told = {"code": row.fault["code"], "message": message, "created": row.fault["created"][:19] + "Z"}
    return told | ({"details": row.fault["details"]} if cause and row.fault.get("details") else {})


def _plain(moment: Any) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment is not None else None
