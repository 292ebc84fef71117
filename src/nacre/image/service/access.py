"""Who may see an image, and the target that rules are asked about.

Seen by its owner's project, by everybody when public or community, by its members when shared, and by administrators. Who may see an
image but not do something to it gets 403, who may not see it 404. Source: glance, `ImageAPIPolicy`.
"""

from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import Forbidden, NotFound
from nacre.image import tables
from nacre.image.domain import Image
from nacre.image.tables import images

VISIBILITY_RULES = {"public": "publicize_image", "community": "communitize_image"}


def load(conn: db.Conn, caller: Caller, image_id: str, *, lock: bool = False) -> tuple[Image, dict[str, Any]]:
    """The image and its policy target. Raises NotFound."""
    query = sa.select(images).where(images.c.id == image_id, images.c.deleted_at.is_(None))
    row = conn.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(f"No image found with ID {image_id}", kind="ImageNotFound")
    mine = bool(caller.project_id) and row.owner == caller.project_id
    member = not mine and row.visibility == "shared" and tables.is_member(conn, image_id, caller.project_id)
    whole = target(caller, row, member=member)
    seen = mine or member or row.visibility in ("public", "community") or caller.allowed("context_is_admin", whole)
    if not seen or not caller.allowed("get_image", whole):
        raise NotFound(f"No image found with ID {image_id}", kind="ImageNotFound")
    return tables.load(conn, [row])[0], whole


def target(caller: Caller, row: Any, *, member: bool) -> dict[str, Any]:
    return {"project_id": row.owner, "owner": row.owner, "visibility": row.visibility, "member_id": caller.project_id if member else "",
            "image_id": row.id, "tenant_id": row.owner}  # fmt: skip


def may_show_as(caller: Caller, visibility: str, whole: dict[str, Any]) -> None:
    """Raises Forbidden when the caller may not give an image this visibility."""
    if visibility in VISIBILITY_RULES:
        caller.require(whole, VISIBILITY_RULES[visibility])


def owned(caller: Caller, owner: str | None, whole: dict[str, Any]) -> None:
    """Raises Forbidden when the caller may not make an image for `owner`."""
    if owner != caller.project_id and not caller.allowed("context_is_admin", whole):
        caller.asked.add(caller.rule)
        raise Forbidden(f"You are not permitted to create images owned by '{owner}'")
