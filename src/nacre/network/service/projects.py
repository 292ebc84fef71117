"""What a cloud begins with, and what a project leaves behind. All as the system."""

import sqlalchemy as sa

from nacre.core import db, quota
from nacre.network.tables.security import groups, members, rules


def bootstrap(tx: db.Tx) -> None:
    """First rows; there are none: a project's default group is made when it is first needed."""


def project_deleted(tx: db.Tx, project_id: str) -> None:
    """Forgets what only the project needed: its limits, and its default group when nothing is in it or names it. The rest stays for
    the administrator, as upstream leaves it."""
    quota.reset(tx, project_id, "network")
    group_id = tx.scalar(sa.select(groups.c.id).where(groups.c.project_id == project_id, groups.c.is_default))
    if group_id is None or tx.first(sa.select(members.c.port_id).where(members.c.group_id == group_id).limit(1)):
        return
    if tx.first(sa.select(rules.c.id).where(rules.c.remote_group_id == group_id, rules.c.security_group_id != group_id).limit(1)):
        return
    tx.delete(rules, security_group_id=group_id)
    tx.delete(groups, id=group_id)
