"""What a project may have of images: counted from live rows under the lock of its quota row. The limits are identity's unified
limits; where none is registered, it is the option of `[registered_limits]`."""

from typing import Any

import msgspec
import sqlalchemy as sa

from nacre import identity
from nacre.core import db, quota
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import OverQuota
from nacre.image import stores
from nacre.image.tables import images, locations

_MIB = 1 << 20
STAGED, UPLOADING = ("uploading", "importing"), ("saving", "uploading", "importing")


def _counts(owner: str | None) -> dict[str, sa.Select[Any]]:
    live = sa.and_(images.c.owner == owner, images.c.deleted_at.is_(None))
    stored = sa.and_(live, locations.c.image_id == images.c.id, locations.c.status == "active",
                     locations.c.store.not_in((stores.STAGING, stores.TASKS, stores.CACHE)))  # fmt: skip
    bytes_of = sa.func.coalesce(sa.func.sum(images.c.size), 0)
    return {
        "image_size_total": sa.select(bytes_of / _MIB).where(stored),
        "image_stage_total": sa.select(bytes_of / _MIB).where(live, images.c.status.in_(STAGED)),
        "image_count_total": sa.select(sa.func.count()).where(live),
        "image_count_uploading": sa.select(sa.func.count()).where(live, images.c.status.in_(UPLOADING)),
    }


def _limits(cloud: Cloud, conn: db.Conn, owner: str | None) -> dict[str, int]:
    return {**msgspec.to_builtins(cloud.config.registered_limits), **identity.limits(conn, "image", owner or "")}


def count(cloud: Cloud, tx: db.Tx, owner: str | None, **more: int) -> None:
    """Raises OverQuota when that much more (MiB, or images) would pass a limit of the project; 0 more when one is passed already."""
    counts, limits = _counts(owner), _limits(cloud, tx, owner)
    quota.lock(tx, owner or "")
    for name, extra in more.items():
        if limits[name] >= 0:
            used = int(tx.scalar(counts[name]))
            if used + extra > limits[name]:
                said = f"Resource {name} is over limit of {limits[name]} due to current usage {used} and delta {extra}"
                raise OverQuota(f"Project {owner} is over a limit for [{said}]")


def usage(caller: Caller) -> dict[str, dict[str, int]]:
    with caller.read() as conn:
        limits = _limits(caller.cloud, conn, caller.project_id)
        return {name: {"usage": int(conn.execute(query).scalar() or 0), "limit": limits[name]} for name, query in _counts(caller.project_id).items()}
