"""How much a project may have. Usage is counted from live rows in the same transaction, never cached, under the lock of the project's
quota row (law 14: the first lock of every verb that creates something), so two creators of one project queue here and can never
together pass the limit. A limit of -1 is unlimited.
"""

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from nacre.core import db
from nacre.core.errors import OverQuota
from nacre.core.statements import Statement, given, given_list

projects = sa.Table("quota_projects", db.metadata, sa.Column("project_id", sa.String(64), primary_key=True))
limits = sa.Table(
    "quota_limits", db.metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(32), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.Integer, nullable=False),
)  # fmt: skip


_PROJECT = Statement(sa.select(projects).where(projects.c.project_id == given("project")).with_for_update())
_LIMITS = Statement(sa.select(limits.c.resource, limits.c.limit).where(
    limits.c.project_id.in_(given_list("owners")), limits.c.service == given("service")).order_by(limits.c.project_id))  # fmt: skip
EVERYBODY = ""
"""In the place of a project: the limits of those that have none of their own. It comes before all others."""


def lock(tx: db.Tx, project_id: str) -> None:
    """Hold the project's quota row until the transaction ends."""
    if _PROJECT.first(tx, project=project_id) is None:
        tx.insert(projects, project_id=project_id)


def limits_of(conn: db.Conn, project_id: str, service: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """resource -> limit: the project's own where set, else everybody's, else the default."""
    owners = list({EVERYBODY, project_id})
    return {**defaults, **{row.resource: row.limit for row in _LIMITS.rows(conn, owners=owners, service=service)}}


def set_limits(tx: db.Tx, project_id: str, service: str, values: Mapping[str, int]) -> None:
    for resource, limit in values.items():
        key = {"project_id": project_id, "service": service, "resource": resource}
        if not tx.update(limits, key, limit=limit):
            tx.insert(limits, **key, limit=limit)


def reset(tx: db.Tx, project_id: str, service: str) -> None:
    tx.delete(limits, project_id=project_id, service=service)


def check(tx: db.Tx, project_id: str, allowed: Mapping[str, int], wanted: Mapping[str, int], used: Callable[[str], int],
          refuse: Callable[[list[str], Mapping[str, int], Mapping[str, int]], OverQuota]) -> None:  # fmt: skip
    """Locks the project and counts; raises what `refuse(resources over, used, allowed)` makes if `wanted` more would pass a limit."""
    lock(tx, project_id)
    now = {resource: used(resource) for resource, more in wanted.items() if more > 0 and allowed.get(resource, -1) >= 0}
    over = [resource for resource in now if now[resource] + wanted[resource] > allowed[resource]]
    if over:
        raise refuse(sorted(over), now, allowed)
