"""Handlers of os-simple-tenant-usage."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from nacre.compute import states
from nacre.compute.api import common
from nacre.compute.service import hosts, usage
from nacre.compute.service.usage import Period, Used
from nacre.core import clock, paging
from nacre.core.errors import BadRequest
from nacre.core.http import Call


def _period(call: Call) -> Period:
    """The last four weeks, when nothing was said; pages came with 2.40."""
    common.strict_query(call, ("start", "end", "detailed", "limit", "marker"))
    stop = common.moment(call, "end") or clock.utcnow()
    start = common.moment(call, "start") or stop - timedelta(days=28)
    if start >= stop:
        raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
    if call.version < (2, 40):
        return Period(start, stop)
    return Period(start, stop, paging.limit_of(call.query, 1000), call.query.get("marker"))


def _links(call: Call, word: str, path: str, following: str | None) -> dict[str, Any]:
    href = paging.link(f"{call.url}/v2.1/os-simple-tenant-usage{path}", call.query, following) if following else ""
    return {f"{word}_links": [{"rel": "next", "href": href}]} if following else {}


def _whole(project_id: str, found: Sequence[Used], period: Period, detailed: bool) -> dict[str, Any]:
    def total(of: str) -> float:
        return float(sum(one.row.flavor[of] * one.hours for one in found))

    disks = sum((one.row.flavor["root_gb"] + one.row.flavor["ephemeral_gb"]) * one.hours for one in found)
    shown: dict[str, Any] = {"tenant_id": project_id, "start": _stamp(period.start), "stop": _stamp(period.stop),
                             "total_hours": sum(one.hours for one in found), "total_vcpus_usage": total("vcpus"),
                             "total_memory_mb_usage": total("memory_mb"), "total_local_gb_usage": disks}  # fmt: skip
    return shown | ({"server_usages": [_one(one) for one in found]} if detailed else {})


def _one(found: Used) -> dict[str, Any]:
    row, flavor = found.row, found.row.flavor
    return {"instance_id": row.id, "name": row.name, "tenant_id": row.project_id, "flavor": flavor["name"], "vcpus": flavor["vcpus"],
            "memory_mb": flavor["memory_mb"], "local_gb": flavor["root_gb"] + flavor["ephemeral_gb"], "hours": found.hours,
            "uptime": found.uptime, "started_at": _stamp(row.launched_at), "ended_at": _stamp(row.terminated_at),
            "state": "terminated" if row.terminated_at else "error" if row.vm_state == states.ERROR else row.vm_state}  # fmt: skip


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment is not None else None


def index(call: Call) -> dict[str, Any]:
    period, detailed = _period(call), call.query.get("detailed") == "1"
    found, following = usage.of_projects(call.caller, period)
    shown = {"tenant_usages": [_whole(project, found[project], period, detailed) for project in sorted(found)]}
    return shown | _links(call, "tenant_usages", "", following)


def show(call: Call) -> dict[str, Any]:
    period, project = _period(call), call.path["project"]
    found, following = usage.of_project(call.caller, project, period)
    return {"tenant_usage": _whole(project, found, period, True) if found else {}} | _links(call, "tenant_usage", f"/{project}", following)


def audit(call: Call) -> dict[str, Any]:
    return {"instance_usage_audit_logs": _audit(call, clock.utcnow())}


def audit_before(call: Call) -> dict[str, Any]:
    text = call.path["before"]
    try:
        before = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S")
    except ValueError as error:
        call.caller.require({})
        raise BadRequest(f"Invalid timestamp for date {text}") from error
    return {"instance_usage_audit_log": _audit(call, before)}


def _audit(call: Call, before: datetime) -> dict[str, Any]:
    """Of the last whole month before; as upstream says it where usage by period is not written (its default)."""
    hosts_not_run = hosts.not_audited(call.caller)
    end = before.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {"period_beginning": str((end - timedelta(days=1)).replace(day=1)), "period_ending": str(end), "num_hosts": len(hosts_not_run),
            "num_hosts_done": 0, "num_hosts_running": 0, "num_hosts_not_run": len(hosts_not_run), "hosts_not_run": hosts_not_run,
            "total_instances": 0, "total_errors": 0, "overall_status": f"0 of {len(hosts_not_run)} hosts done. 0 errors.", "log": {}}  # fmt: skip
