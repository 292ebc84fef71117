"""Handlers of services, hypervisors and availability zones."""

import re
from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies.common import flag, micro
from nacre.compute.service import hosts
from nacre.compute.service.hosts import ComputeService, Hypervisor
from nacre.core import clock, paging
from nacre.core.errors import BadRequest, NotFound
from nacre.core.http import Call

_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


def _service(call: Call, s: ComputeService) -> dict[str, Any]:
    shown = {"id": s.id if call.version >= (2, 53) else s.number, "binary": s.binary, "host": s.host, "zone": s.zone, "status": "disabled"
             if s.disabled else "enabled",
             "state": "up" if s.up else "down", "updated_at": micro(s.updated_at), "disabled_reason": s.disabled_reason}  # fmt: skip
    return shown | ({"forced_down": s.forced_down} if call.version >= (2, 11) else {})


def services(call: Call) -> dict[str, Any]:
    common.strict_query(call, ("host", "binary"))
    return {"services": [_service(call, s) for s in hosts.services(call.caller, call.query.get("host"), call.query.get("binary"))]}


def update_service(call: Call) -> dict[str, Any]:
    """By id, since 2.53."""
    if not _UUID.fullmatch(call.path["id"]):
        raise BadRequest(f"Invalid uuid {call.path['id']}")
    body, values = call.body, dict[str, Any]()
    unknown = body.keys() - {"status", "disabled_reason", "forced_down"}
    if unknown or not body:
        raise BadRequest(f"Invalid input for field/attribute body. Additional properties are not allowed ({sorted(unknown)} was unexpected)")
    if "status" in body:
        if body["status"] not in ("enabled", "disabled"):
            raise BadRequest(f"Invalid input for field/attribute status. Value: {body['status']}. It is not one of ['enabled', 'disabled']")
        values |= {"disabled": body["status"] == "disabled", "disabled_reason": None}
    if body.get("disabled_reason") is not None:
        if body.get("status") != "disabled":
            raise BadRequest("Specifying disabled_reason requires that status is disabled.")
        reason = values["disabled_reason"] = body["disabled_reason"]
        if not isinstance(reason, str) or not 1 <= len(reason) <= 255:
            raise BadRequest(f"Invalid input for field/attribute disabled_reason. Value: {reason}. A string of 1 to 255 characters is expected")
    if "forced_down" in body:
        values["forced_down"] = flag("forced_down", body["forced_down"])
    return {"service": _service(call, hosts.update_service(call.caller, values, service_id=call.path["id"]))}


def old_update_service(call: Call) -> dict[str, Any]:
    """enable, disable, disable-log-reason, force-down, before 2.53."""
    body, verb = call.body, call.path["verb"]
    host, binary = str(body.get("host", "")), str(body.get("binary", ""))
    shown: dict[str, Any] = {"host": host, "binary": binary}
    match verb:
        case "enable":
            values: dict[str, Any] = {"disabled": False, "disabled_reason": None}
        case "disable":
            values = {"disabled": True, "disabled_reason": None}
        case "disable-log-reason":
            if not body.get("disabled_reason"):
                raise BadRequest("Missing disabled reason field")
            values = {"disabled": True, "disabled_reason": str(body["disabled_reason"])}
        case "force-down" if call.version >= (2, 11):
            values = {"forced_down": flag("forced_down", body.get("forced_down"))}
        case _:
            call.caller.require({})
            raise NotFound("Unknown action")
    hosts.update_service(call.caller, values, host=host, binary=binary)
    if "disabled" in values:
        shown["status"] = "disabled" if values.pop("disabled") else "enabled"
    return {"service": shown | {name: value for name, value in values.items() if value is not None}}


def delete_service(call: Call) -> None:
    hosts.delete_service(call.caller, call.path["id"])


def _hypervisor(call: Call, h: Hypervisor, detail: bool, servers: bool = False) -> dict[str, Any]:
    uuids = call.version >= (2, 53)
    shown: dict[str, Any] = {"id": h.row.id if uuids else h.row.number, "hypervisor_hostname": h.name, "state": "up" if h.service.up else "down",
                             "status": "disabled" if h.service.disabled else "enabled"}  # fmt: skip
    if detail:
        seen = h.resources
        shown |= {"hypervisor_type": seen.get("hypervisor_type", ""), "hypervisor_version": seen.get("hypervisor_version", 0),
                  "host_ip": h.row.address or "127.0.0.1",
                  "service": {"id": h.service.id if uuids else h.service.number, "host": h.row.name,
                              "disabled_reason": h.service.disabled_reason}}  # fmt: skip
        shown |= _room(call, h) if call.version < (2, 88) else {"uptime": _uptime(h)}
    if servers and (h.servers or call.version >= (2, 75)):
        shown["servers"] = [{"name": name, "uuid": server_id} for server_id, name in h.servers]
    return shown


def _uptime(h: Hypervisor) -> str | None:
    """As its host told last, while it reports."""
    return h.resources.get("uptime") if h.service.up else None


def _amounts(h: Hypervisor) -> dict[str, int]:
    seen = h.resources
    total = {"vcpus": int(seen.get("vcpus", 0)), "memory_mb": int(seen.get("memory_mb", 0)), "local_gb": int(seen.get("disk_gb", 0))}
    reserved = {name: offer.reserved for name, offer in h.offered.items()}
    used = {"vcpus_used": h.used.get("VCPU", 0), "memory_mb_used": h.used.get("MEMORY_MB", 0) + reserved.get("MEMORY_MB", 0),
            "local_gb_used": h.used.get("DISK_GB", 0) + reserved.get("DISK_GB", 0)}  # fmt: skip
    free = {"free_ram_mb": total["memory_mb"] - used["memory_mb_used"], "free_disk_gb": total["local_gb"] - used["local_gb_used"]}
    least = int(seen.get("disk_gb", 0)) - int(seen.get("disk_gb_used", 0))
    return {**total, **used, **free, "current_workload": 0, "running_vms": len(h.servers), "disk_available_least": least}


def _room(call: Call, h: Hypervisor) -> dict[str, Any]:
    cpu = {"arch": h.resources.get("cpu_arch", ""), "model": h.resources.get("cpu_model", ""), "vendor": "", "features": [], "topology": {}}
    import json

    return {**_amounts(h), "cpu_info": cpu if call.version >= (2, 28) else json.dumps(cpu)}


def _hypervisors(call: Call, detail: bool) -> dict[str, Any]:
    new = call.version >= (2, 53)
    common.strict_query(call, ("limit", "marker", "hypervisor_hostname_pattern", "with_servers"), since=(2, 53))
    pattern = call.query.get("hypervisor_hostname_pattern") if new else None
    paged = call.version >= (2, 33)
    if pattern is not None and ("limit" in call.query or "marker" in call.query):
        raise BadRequest("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
    found = hosts.hypervisors(call.caller, pattern=pattern)
    limit, marker = (paging.limit_of(call.query, 1000), call.query.get("marker")) if paged else (None, None)
    if marker is not None:
        at = next((n for n, h in enumerate(found) if marker in (h.row.id, str(h.row.number))), None)
        if at is None:
            raise BadRequest(f"marker [{marker}] not found")
        found = found[at + 1 :]
    page = found if limit is None else found[:limit]
    servers = new and "with_servers" in call.query and call.flag("with_servers")
    following = None
    if page and len(page) < len(found):
        last = page[-1].row
        following = paging.link(f"{call.url}/v2.1/os-hypervisors{'/detail' if detail else ''}", call.query, last.id if new else str(last.number))
    return common.page("hypervisors", [_hypervisor(call, h, detail, servers) for h in page], following)


def hypervisors(call: Call) -> dict[str, Any]:
    return _hypervisors(call, False)


def hypervisors_detail(call: Call) -> dict[str, Any]:
    return _hypervisors(call, True)


def _one(call: Call) -> Hypervisor:
    new, asked = call.version >= (2, 53), call.path["id"]
    found = hosts.hypervisors(call.caller)
    if new and not _UUID.fullmatch(asked):
        raise BadRequest(f"Invalid uuid {asked}")
    for h in found:
        if asked == (h.row.id if new else str(h.row.number)):
            return h
    raise NotFound(f"Hypervisor with ID '{asked}' could not be found.")


def hypervisor(call: Call) -> dict[str, Any]:
    common.strict_query(call, ("with_servers",), since=(2, 53))
    return {"hypervisor": _hypervisor(call, _one(call), True, call.version >= (2, 53) and "with_servers" in call.query and call.flag("with_servers"))}


def uptime(call: Call) -> dict[str, Any]:
    h = _one(call)
    told = _uptime(h)
    if told is None:
        raise BadRequest(f"Compute service of {h.row.name} is unavailable at this time.")
    return {"hypervisor": _hypervisor(call, h, False) | {"uptime": told}}


def statistics(call: Call) -> dict[str, Any]:
    found = hosts.hypervisors(call.caller)
    total: dict[str, int] = {"count": len(found)}
    for h in found:
        for name, amount in _amounts(h).items():
            total[name] = total.get(name, 0) + amount
    empty = dict.fromkeys(("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb",
                           "current_workload", "running_vms", "disk_available_least"), 0)  # fmt: skip
    return {"hypervisor_statistics": empty | total}


def search(call: Call) -> dict[str, Any]:
    return {"hypervisors": [_hypervisor(call, h, False) for h in hosts.hypervisors(call.caller, pattern=call.path["id"])]}


def servers_on(call: Call) -> dict[str, Any]:
    return {"hypervisors": [_hypervisor(call, h, False, True) for h in hosts.hypervisors(call.caller, pattern=call.path["id"])]}


def zones(call: Call) -> dict[str, Any]:
    return {"availabilityZoneInfo": [
        {"zoneName": zone, "zoneState": {"available": any(s.up and not s.disabled for s in members)}, "hosts": None}
        for zone, members in hosts.zones(call.caller, False).items()
    ]}  # fmt: skip


def zones_detail(call: Call) -> dict[str, Any]:
    shown = []
    for zone, members in hosts.zones(call.caller, True).items():
        there: dict[str, dict[str, Any]] = {}
        for s in members:
            there.setdefault(s.host, {})[s.binary] = {"available": s.up, "active": not s.disabled,
                                                      "updated_at": micro(s.updated_at or clock.utcnow())}
        shown.append({"zoneName": zone, "zoneState": {"available": any(s.up and not s.disabled for s in members)}, "hosts": there})
    return {"availabilityZoneInfo": shown}
