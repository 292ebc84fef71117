"""Migrations: what moved a server from one size to another, and how that went."""

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from nacre.compute.service import servers
from nacre.compute.tables import server_migrations as table
from nacre.core import db, paging
from nacre.core.caller import Caller

COLUMNS = {"status": table.c.status, "instance_uuid": table.c.server_id, "migration_type": table.c.kind, "source_compute": table.c.source,
           "project_id": table.c.project_id, "user_id": table.c.user_id}  # fmt: skip


def listed(caller: Caller, filters: Mapping[str, str], between: tuple[datetime | None, datetime | None],
           page: paging.Page) -> tuple[list[db.Row], bool]:  # fmt: skip
    """The page's rows, and whether more follow. `filters`: by COLUMNS, and host (either). Raises BadRequest for an unknown marker."""
    caller.require({})
    query = sa.select(table).where(*(COLUMNS[name] == value for name, value in filters.items() if name in COLUMNS))
    if "host" in filters:
        query = query.where(sa.or_(table.c.source == filters["host"], table.c.target == filters["host"]))
    changed, (since, before) = sa.func.coalesce(table.c.updated_at, table.c.created_at), between
    query = query.where(*([changed >= since] if since else []), *([changed <= before] if before else []))
    with caller.read() as conn:
        return paging.take(conn, query, table, page)


def in_progress(caller: Caller, server_id: str) -> list[db.Row]:
    """The live migrations of a server, of which there are none."""
    servers.show(caller, server_id)
    return []
