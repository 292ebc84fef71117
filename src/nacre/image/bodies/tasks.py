"""How the tasks of images are shown: a task of this program in upstream's shape. What it carries for itself alone is left out."""

from datetime import timedelta
from typing import Any

from nacre.core import db
from nacre.image.bodies.images import time
from nacre.image.service.tasks import KINDS, STATUS

_KEPT = timedelta(hours=48)
_OWN = ("roles", "token", "store")


def stub(row: db.Row) -> dict[str, Any]:
    """As in a list."""
    expires = {"expires_at": time(row.finished_at + _KEPT)} if row.finished_at else {}
    return {"id": row.id, "type": KINDS[row.kind], "status": STATUS[row.state], "owner": row.project_id, "created_at": time(row.created_at),
            "updated_at": time(row.updated_at), "self": f"/v2/tasks/{row.id}", "schema": "/v2/schemas/task", **expires}  # fmt: skip


def task(row: db.Row) -> dict[str, Any]:
    made = {"image_id": row.args["image_id"]}
    return stub(row) | {
        "input": {name: value for name, value in row.args.items() if name not in _OWN}, "message": (row.error or {}).get("message", ""),
        "result": made if row.state == "done" else None, "request_id": row.request_id, "user_id": row.user_id, **made,
    }  # fmt: skip
