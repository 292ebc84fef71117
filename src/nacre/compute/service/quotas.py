"""How much of compute a project may have. Upstream's defaults; usage is counted from live rows (core.quota)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nacre.compute import tables
from nacre.core import db, journal, quota
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, OverQuota

SERVICE = "compute"
DEFAULTS: Mapping[str, int] = {
    "instances": 10, "cores": 20, "ram": 50 * 1024, "metadata_items": 128, "injected_files": 5, "injected_file_content_bytes": 10 * 1024,
    "injected_file_path_bytes": 255, "key_pairs": 100, "server_groups": 10, "server_group_members": 10,
    "fixed_ips": -1, "floating_ips": -1, "security_groups": -1, "security_group_rules": -1,
}  # fmt: skip


@dataclass(frozen=True)
class InjectedFile:
    """A file that a guest is to find on its config drive."""

    path: str
    content: bytes


def limits(conn: db.Conn, project_id: str) -> dict[str, int]:
    return quota.limits_of(conn, project_id, SERVICE, DEFAULTS)


def used(conn: db.Conn, project_id: str) -> dict[str, int]:
    """Every resource of DEFAULTS; those counted elsewhere or by user are 0 here, as upstream shows them."""
    return {**dict.fromkeys(DEFAULTS, 0), **tables.usage(conn, project_id)}


def fitting(tx: db.Tx, project_id: str, at_least: int, at_most: int, each: Mapping[str, int]) -> int:
    """How many servers of size `each` may be made, between the two. Locks the project's quota row. Raises OverQuota."""
    quota.lock(tx, project_id)
    allowed, now = limits(tx, project_id), tables.usage(tx, project_id)
    room = [(allowed[name] - now[name]) // each[name] for name in each if allowed[name] >= 0 and each[name] > 0]
    count = min([at_most, *room])
    if count >= at_least:
        return count
    wanted = {name: each[name] * at_least for name in each}
    over = sorted(name for name in each if allowed[name] >= 0 and now[name] + wanted[name] > allowed[name])
    told = [", ".join(str(numbers[name]) for name in over) for numbers in (wanted, now, allowed)]
    raise OverQuota(f"Quota exceeded for {', '.join(over)}: Requested {told[0]}, but already used {told[1]} of {told[2]} {', '.join(over)}",
                    kind="TooManyInstances", status=403)  # fmt: skip


def check_keypairs(tx: db.Tx, project_id: str, user_id: str) -> None:
    quota.lock(tx, user_id)  # they are counted by user, whichever project asks
    allowed = limits(tx, project_id)["key_pairs"]
    have = tx.scalar(sa.select(sa.func.count()).where(tables.keypairs.c.user_id == user_id))
    if 0 <= allowed <= have:
        raise OverQuota(f"Quota exceeded, too many key pairs. ({have} of {allowed} are used)", kind="KeypairLimitExceeded", status=403)


def check_metadata(conn: db.Conn, project_id: str, metadata: Mapping[str, str]) -> None:
    allowed = limits(conn, project_id)["metadata_items"]
    if 0 <= allowed < len(metadata):
        raise OverQuota(f"Maximum number of metadata items exceeds {allowed}", kind="MetadataLimitExceeded", status=403)


def check_files(conn: db.Conn, project_id: str, files: Sequence[InjectedFile]) -> None:
    """Each limit has its words; a path is complained of before what is in the file."""
    longest, largest = (max(map(len, each), default=0) for each in ([file.path.encode() for file in files], [file.content for file in files]))
    asked = {"injected_files": (len(files), "OnsetFileLimitExceeded", "Personality file limit exceeded"),
             "injected_file_path_bytes": (longest, "OnsetFilePathLimitExceeded", "Personality file path exceeds maximum"),
             "injected_file_content_bytes": (largest, "OnsetFileContentLimitExceeded", "Personality file content exceeds maximum")}  # fmt: skip
    allowed = limits(conn, project_id) if files else {}
    for name, (size, kind, told) in asked.items():
        if 0 <= allowed.get(name, -1) < size:
            raise OverQuota(f"{told}: {size}, the limit of {name} is {allowed[name]}", kind=kind, status=403)


def show(caller: Caller, project_id: str) -> dict[str, int]:
    caller.require({"project_id": project_id})
    with caller.read() as conn:
        return limits(conn, project_id)


def for_everybody(caller: Caller) -> dict[str, int]:
    """The limits of who has none of their own."""
    caller.require({})
    with caller.read() as conn:
        return limits(conn, quota.EVERYBODY)


def update_everybody(caller: Caller, values: Mapping[str, int]) -> dict[str, int]:
    caller.require({})
    with caller.write() as tx:
        quota.set_limits(tx, quota.EVERYBODY, SERVICE, values)
        journal.changed(tx, "quota", "default", "update", values)
        return limits(tx, quota.EVERYBODY)


def detail(caller: Caller, project_id: str) -> dict[str, dict[str, int]]:
    caller.require({"project_id": project_id})
    with caller.read() as conn:
        now = used(conn, project_id)
        return {name: {"limit": limit, "in_use": now[name], "reserved": 0} for name, limit in limits(conn, project_id).items()}


def update(caller: Caller, project_id: str, values: Mapping[str, int], force: bool) -> dict[str, int]:
    caller.require({"project_id": project_id})
    with caller.write() as tx:
        quota.lock(tx, project_id)
        now = used(tx, project_id)
        low = sorted(name for name, limit in values.items() if 0 <= limit < now[name])
        if low and not force:
            name = low[0]
            raise BadRequest(f"Quota limit {values[name]} for {name} must be greater than or equal to already used and reserved {now[name]}.")
        quota.set_limits(tx, project_id, SERVICE, values)
        journal.changed(tx, "quota", project_id, "update", values)
        return limits(tx, project_id)


def reset(caller: Caller, project_id: str) -> None:
    caller.require({"project_id": project_id})
    with caller.write() as tx:
        quota.reset(tx, project_id, SERVICE)
        journal.changed(tx, "quota", project_id, "delete")


def totals(caller: Caller, project_id: str | None) -> tuple[dict[str, int], dict[str, int]]:
    """(limits, used) of the caller's project, or of another one for who may see it."""
    caller.require({})
    if project_id is not None and project_id != caller.project_id:
        caller.require({}, rule="os_compute_api:limits:other_project")
    chosen = project_id or caller.project_id or ""
    with caller.read() as conn:
        return limits(conn, chosen), used(conn, chosen)
