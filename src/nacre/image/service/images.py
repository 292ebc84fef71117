"""Images without their data: make, list, show, change, delete, label, switch off and on.

Races: a change locks its row first, so two patches queue and none is lost. A delete may meet an upload: the row goes to `deleted`
and the uploader, whose last move finds it so, throws its data away.
"""

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core import db, ids, journal, paging, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from nacre.image import filters, states, tables
from nacre.image.domain import WRITABLE, Change, Image, NewImage
from nacre.image.service import access, quotas, removal
from nacre.image.tables import images

_LOCATIONS = {"add": "add", "remove": "remove", "replace": "update"}


def create_image(caller: Caller, new: NewImage) -> Image:
    owner = new.columns.get("owner", caller.project_id)
    visibility = new.columns.get("visibility", "shared")
    whole = {"project_id": owner, "owner": owner, "tenant_id": owner, "visibility": visibility, "member_id": ""}
    access.owned(caller, owner, whole)
    caller.require(whole)
    access.may_show_as(caller, visibility, whole)
    with caller.write() as tx:
        image_id = (new.id or ids.uuid()).lower()
        quotas.count(caller.cloud, tx, owner, image_count_total=1)
        if tx.first(sa.select(images.c.id).where(images.c.id == image_id)) is not None:
            raise Conflict(f"Image ID {image_id} already exists!", kind="Duplicate")
        insert(tx, image_id, dict(new.columns) | {"owner": owner, "visibility": visibility})
        _set_tags(caller, tx, image_id, (), new.tags)
        _set_properties(caller, tx, image_id, {}, dict(new.properties))
        return _again(tx, image_id)


def insert(tx: db.Tx, image_id: str, columns: dict[str, Any]) -> None:
    """A `queued` image; as the system."""
    values = {"name": None, "min_disk": 0, "min_ram": 0, "protected": False, "os_hidden": False} | columns
    tx.insert(images, id=image_id, status="queued", created_at=tx.now, updated_at=tx.now, **values)
    journal.changed(tx, "image", image_id, "create", values, {"name": values["name"]})


def _again(tx: db.Tx, image_id: str) -> Image:
    found = tables.by_id(tx, image_id)
    assert found is not None
    return found


def list_images(caller: Caller, query: QueryParams) -> tuple[list[Image], bool]:
    """The page's images that the caller may see, and whether more follow. Raises BadRequest."""
    caller.require({"project_id": caller.project_id, "tenant_id": caller.project_id})
    page = filters.page(query, caller.cloud.config.DEFAULT)
    wanted = [images.c.deleted_at.is_(None), images.c.status != "killed", *filters.conditions(query)]
    wanted.append(_shown_as(caller, filters.visibility(query)))
    status = filters.member_status(query)
    if not caller.allowed("context_is_admin"):
        wanted.append(_visible(caller.project_id, status))
    with caller.read() as conn:
        if page.marker is not None:
            try:
                access.load(conn, caller, page.marker)
            except NotFound as error:
                raise BadRequest(error.message, kind="MarkerNotFound") from error
        rows, more = paging.take(conn, sa.select(images).where(*wanted), images, page)
        shared = [row.id for row in rows if row.visibility == "shared" and row.owner != caller.project_id]
        mine = sa.select(tables.members.c.image_id).where(tables.members.c.image_id.in_(shared), tables.members.c.member_id == caller.project_id)
        member_of = set(conn.execute(mine).scalars()) if shared else set()
        allowed = [row for row in rows if caller.allowed("get_image", access.target(caller, row, member=row.id in member_of))]
        return tables.load(conn, allowed), more


def _shown_as(caller: Caller, asked: str | None) -> sa.ColumnElement[bool]:
    """Community images of others are listed only when asked for."""
    if asked is None:
        return sa.or_(images.c.visibility != "community", images.c.owner == caller.project_id)
    return sa.true() if asked == "all" else images.c.visibility == asked


def _visible(project_id: str | None, member_status: str) -> sa.ColumnElement[bool]:
    member = [tables.members.c.member_id == project_id]
    if member_status != "all":
        member.append(tables.members.c.status == member_status)
    shared = images.c.id.in_(sa.select(tables.members.c.image_id).where(*member))
    return sa.or_(images.c.visibility.in_(("public", "community")), images.c.owner == project_id, sa.and_(images.c.visibility == "shared", shared))


def show_image(caller: Caller, image_id: str) -> Image:
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
    caller.require(whole)
    return image


def update_image(caller: Caller, image_id: str, changes: Iterable[Change]) -> Image:
    """Raises NotFound, Forbidden, Conflict (a property that is not there), TooLarge (too many)."""
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        columns: dict[str, Any] = {}
        properties: dict[str, str | None] = dict(image.properties)
        labels: tuple[str, ...] = image.tags
        for change in changes:
            if change.name == "tags" and change.op != "remove":
                labels = tuple(dict.fromkeys(change.value))
            elif change.name == "locations":
                raise Forbidden(f"It's not allowed to {_LOCATIONS[change.op]} locations if locations are invisible.")
            elif change.name in (*WRITABLE, "tags"):
                columns[change.name] = _column(caller, image, change, whole)
            else:
                _property(properties, change)
        fields = set(columns) | _set_tags(caller, tx, image_id, image.tags, labels)
        fields |= _set_properties(caller, tx, image_id, image.properties, properties)
        if fields:
            tx.update(images, {"id": image_id}, updated_at=tx.now, **columns)
            journal.changed(tx, "image", image_id, "update", fields)
        return _again(tx, image_id)


def _column(caller: Caller, image: Image, change: Change, whole: dict[str, Any]) -> Any:
    if change.op == "remove":
        raise Forbidden(f"Property {change.name} may not be removed.")
    if change.op == "add" and change.draft == 4:
        raise Conflict(f"Property {change.name} already present.")
    if change.name == "owner" and not caller.allowed("context_is_admin", whole):
        raise Forbidden("Owner can't be updated by non admin.")
    if change.name in ("disk_format", "container_format") and image.status != "queued" and change.value != getattr(image, change.name):
        raise Forbidden(f"Attribute {change.name} can be only replaced for a queued image.")
    if change.name == "visibility":
        access.may_show_as(caller, change.value, whole)
    return change.value


def _property(properties: dict[str, str | None], change: Change) -> None:
    there = change.name in properties
    if not there and change.op != "add":
        raise Conflict(f"Property {change.name} does not exist.")
    if change.op == "remove":
        del properties[change.name]
    elif there and change.op == "add" and change.draft == 4:
        raise Conflict(f"Property {change.name} already present.")
    else:
        properties[change.name] = change.value


def _within(most: int, what: str, had: int, wanted: int) -> None:
    """Raises TooLarge for more than the operator allows (negative: any number); what there was before may stay."""
    if 0 <= most < wanted and wanted > had:
        raise TooLarge(f"The limit has been exceeded on the number of allowed image {what}. Attempted: {wanted}, Maximum: {most}")


def _set_tags(caller: Caller, tx: db.Tx, image_id: str, had: tuple[str, ...], wanted: tuple[str, ...]) -> set[str]:
    _within(caller.cloud.config.DEFAULT.image_tag_quota, "tags", len(had), len(wanted))
    for gone in set(had) - set(wanted):
        tx.delete(tables.tags, image_id=image_id, value=gone)
    for new in set(wanted) - set(had):
        tx.insert(tables.tags, image_id=image_id, value=new)
    return {"tags"} if set(had) != set(wanted) else set()


def _set_properties(caller: Caller, tx: db.Tx, image_id: str, had: Any, wanted: dict[str, Any]) -> set[str]:
    _within(caller.cloud.config.DEFAULT.image_property_quota, "properties", *(sum(not name.startswith("os_glance") for name in each)
            for each in (had, wanted)))  # fmt: skip
    changed = {name for name in had.keys() | wanted.keys() if name not in had or name not in wanted or had[name] != wanted[name]}
    for name in changed:
        tx.delete(tables.properties, image_id=image_id, name=name)
        if name in wanted:
            tx.insert(tables.properties, image_id=image_id, name=name, value=wanted[name])
    return changed


def delete_image(caller: Caller, image_id: str) -> None:
    """The row first, then the data; a crash between leaves tombstones that the loop follows. A task of the image follows its undo."""
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        if image.protected:
            raise Forbidden(f"Image {image_id} is protected and cannot be deleted.", kind="ProtectedImageDelete")
        end(tx, image)
    removal.bury(caller.cloud, caller, image_id)


def end(tx: db.Tx, image: Image) -> None:
    """The image is deleted; as the system. Its data is for `removal.bury`."""
    tx.update(images, {"id": image.id}, status=states.move(image.status, "deleted"), deleted_at=tx.now, updated_at=tx.now, upload=None)
    for extra in (tables.tags, tables.properties, tables.members, tables.cached):
        tx.delete(extra, image_id=image.id)
    for each in image.locations:
        tables.displace(tx, image.id, each.store)
    for resource in (f"image:{image.id}", f"image-cache:{image.id}"):
        tasks.cancel(tx, resource)
    journal.changed(tx, "image", image.id, "delete", (), {"name": image.name})


def add_tag(caller: Caller, image_id: str, label: str) -> None:
    if len(label) > 255:
        raise BadRequest(f"Tag is too long, at most 255 characters: {label[:40]}...")
    _retag(caller, image_id, lambda had: (*had, label) if label not in had else had)


def remove_tag(caller: Caller, image_id: str, label: str) -> None:
    def without(had: tuple[str, ...]) -> tuple[str, ...]:
        if label not in had:
            raise NotFound(f"Image {image_id} has no tag {label}")
        return tuple(each for each in had if each != label)

    _retag(caller, image_id, without)


def _retag(caller: Caller, image_id: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        if _set_tags(caller, tx, image_id, image.tags, change(image.tags)):
            tx.update(images, {"id": image_id}, updated_at=tx.now)
            journal.changed(tx, "image", image_id, "update", ("tags",))


def switch(caller: Caller, image_id: str, status: str, verb: str) -> None:
    """`deactivated` (its data is for administrators only) and back to `active`; harmless when it is so."""
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        if image.status not in ("active", "deactivated"):
            raise Forbidden(f"Not allowed to {verb} image in status '{image.status}'")
        if image.status != status:
            tx.update(images, {"id": image_id}, status=states.move(image.status, status), updated_at=tx.now)
            journal.changed(tx, "image", image_id, verb, ("status",))
