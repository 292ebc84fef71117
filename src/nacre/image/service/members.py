"""Members of a shared image: projects that see it, once they accept also in their lists. The owner adds and removes them, each member
alone says whether it accepts."""

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from nacre.image.domain import Image
from nacre.image.schema.images import MEMBER_STATUSES
from nacre.image.service import access
from nacre.image.tables import members


def _shared(image: Image) -> None:
    if image.visibility != "shared":
        raise Forbidden("Only shared images have members.")


def _find(conn: db.Conn, caller: Caller, image: Image, member_id: str) -> db.Row:
    row = conn.execute(sa.select(members).where(members.c.image_id == image.id, members.c.member_id == member_id)).first()
    if row is None or (caller.project_id not in (image.owner, member_id) and not caller.allowed("context_is_admin")):
        raise NotFound(f"{member_id} not found in the member list of the image {image.id}.")
    return row


def create_member(caller: Caller, image_id: str, member_id: str) -> db.Row:
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        _shared(image)
        there = [row.member_id for row in tx.all(sa.select(members.c.member_id).where(members.c.image_id == image_id))]
        if member_id in there:
            raise Conflict(f"Member {member_id} is duplicated for image {image_id}", kind="Duplicate")
        most = caller.cloud.config.DEFAULT.image_member_quota
        if 0 <= most <= len(there):
            raise TooLarge(f"Image member limit exceeded for image {image_id}: Attempted: {len(there) + 1}, Maximum: {most}")
        tx.insert(members, image_id=image_id, member_id=member_id, status="pending", created_at=tx.now, updated_at=tx.now)
        journal.changed(tx, "image", image_id, "update", ("members",), {"member_id": member_id})
        return _find(tx, caller, image, member_id)


def list_members(caller: Caller, image_id: str) -> list[db.Row]:
    """All for the owner and administrators, for a member its own row."""
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
        caller.require(whole)
        _shared(image)
        query = sa.select(members).where(members.c.image_id == image_id).order_by(members.c.created_at, members.c.member_id)
        if caller.project_id != image.owner and not caller.allowed("context_is_admin"):
            query = query.where(members.c.member_id == caller.project_id)
        return list(conn.execute(query))


def show_member(caller: Caller, image_id: str, member_id: str) -> db.Row:
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
        row = _find(conn, caller, image, member_id)
        caller.require(whole | {"member_id": member_id})
        return row


def update_member(caller: Caller, image_id: str, member_id: str, status: str) -> db.Row:
    if status not in MEMBER_STATUSES:
        raise BadRequest(f'Incorrect request: status: Status must be "pending", "accepted" or "rejected", not "{status}".')
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        _shared(image)
        _find(tx, caller, image, member_id)
        caller.require(whole | {"member_id": member_id})
        tx.update(members, {"image_id": image_id, "member_id": member_id}, status=status, updated_at=tx.now)
        journal.changed(tx, "image", image_id, "update", ("members",), {"member_id": member_id, "status": status})
        return _find(tx, caller, image, member_id)


def delete_member(caller: Caller, image_id: str, member_id: str) -> None:
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        _shared(image)
        _find(tx, caller, image, member_id)
        tx.delete(members, image_id=image_id, member_id=member_id)
        journal.changed(tx, "image", image_id, "update", ("members",), {"member_id": member_id})
