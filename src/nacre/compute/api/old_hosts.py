"""Handlers of os-hosts (until 2.42): hosts by their services, and what is used of each."""

from typing import Any

from nacre.compute.service import hosts
from nacre.core.errors import BadRequest
from nacre.core.http import Call

_STATUS = {"enable": False, "disable": True}


def index(call: Call) -> dict[str, Any]:
    zone = call.query.get("zone")
    return {"hosts": [{"host_name": s.host, "service": s.binary.removeprefix("nova-"), "zone": s.zone}
                      for s in hosts.services(call.caller) if not zone or s.zone == zone]}  # fmt: skip


def _resource(host: str, project: str, amounts: hosts.Amounts) -> dict[str, Any]:
    cpu, memory, disk = amounts
    return {"resource": {"host": host, "project": project, "cpu": cpu, "memory_mb": memory, "disk_gb": disk}}


def show(call: Call) -> dict[str, Any]:
    host = call.path["name"]
    return {"host": [_resource(host, project, amounts) for project, amounts in hosts.used_of(call.caller, host)]}


def update(call: Call) -> dict[str, Any]:
    """Enables or disables its compute service. Raises BadRequest, Error 501 for a maintenance mode."""
    body = call.body
    if not body or body.keys() - {"status", "maintenance_mode"}:
        raise BadRequest("Invalid input for field/attribute body. Only status and maintenance_mode are expected")
    for name, value in body.items():
        if str(value).strip().lower() not in _STATUS:
            raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. '{value}' is not one of ['enable', 'disable']")
    disabled = _STATUS[str(body["status"]).strip().lower()] if "status" in body else None
    hosts.update_host(call.caller, call.path["name"], disabled, "maintenance_mode" in body)
    return {"host": call.path["name"], "status": "disabled" if disabled else "enabled"}


def power(call: Call) -> None:
    """startup, shutdown, reboot."""
    hosts.power(call.caller, call.path["name"])
