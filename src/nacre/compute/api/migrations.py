"""Handlers of migrations."""

from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies.common import micro
from nacre.compute.service import migrations
from nacre.core import db, paging
from nacre.core.http import Call
from nacre.core.versions import Version

_FILTERS = ("hidden", "host", "instance_uuid", "source_compute", "status", "migration_type")
_SINCE = (((2, 59), ("limit", "marker", "changes-since")), ((2, 66), ("changes-before",)), ((2, 80), ("user_id", "project_id")))


def index(call: Call) -> dict[str, Any]:
    known = [*_FILTERS, *(name for since, names in _SINCE if call.version >= since for name in names)]
    common.strict_query(call, known, (2, 59))
    paged = call.version >= (2, 59)
    limit, marker = (paging.limit_of(call.query, 1000), call.query.get("marker")) if paged else (None, None)
    page = paging.Page(limit, marker, (("number", "desc"),))
    between = tuple(common.moment(call, name) if name in known else None for name in ("changes-since", "changes-before"))
    filters = {name: value for name, value in call.query.items() if name in known}
    rows, more = migrations.listed(call.caller, filters, (between[0], between[1]), page)
    following = paging.link(f"{call.url}/v2.1/os-migrations", call.query, rows[-1].id) if more else None
    return common.page("migrations", [_view(row, call.version) for row in rows], following)


def _view(row: db.Row, version: Version) -> dict[str, Any]:
    shown = {"id": row.number, "status": row.status, "instance_uuid": row.server_id, "source_node": row.source, "source_compute": row.source,
             "dest_node": row.target, "dest_compute": row.target, "dest_host": None, "old_instance_type_id": None, "new_instance_type_id": None,
             "created_at": micro(row.created_at), "updated_at": micro(row.updated_at)}  # fmt: skip
    if version >= (2, 23):
        shown["migration_type"] = row.kind
    if version >= (2, 59):
        shown["uuid"] = row.id
    return shown | ({"user_id": row.user_id, "project_id": row.project_id} if version >= (2, 80) else {})


def of_server(call: Call) -> dict[str, Any]:
    return {"migrations": migrations.in_progress(call.caller, call.path["id"])}
