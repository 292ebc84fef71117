"""Domains: where names are, and what goes with them."""

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import Forbidden
from nacre.identity import tables
from nacre.identity.service import directory, groups, projects, users
from nacre.identity.service.directory import DOMAINS, Record, Wanted


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict."""
    caller.require(DOMAINS.target(wanted))
    with caller.write() as tx:
        return directory.insert(tx, DOMAINS, {"description": "", "enabled": True, **wanted})


def update(caller: Caller, domain_id: str, wanted: Wanted) -> Record:
    """Raises Conflict."""
    with caller.write() as tx:
        return directory.update(tx, DOMAINS, directory.load(tx, caller, DOMAINS, domain_id), wanted)


def delete(caller: Caller, domain_id: str) -> None:
    """With everything that is in it. Raises Forbidden while it is enabled."""
    with caller.write() as tx:
        domain = directory.load(tx, caller, DOMAINS, domain_id)
        directory.mutable(DOMAINS, domain)
        if domain["enabled"]:
            raise Forbidden("Cannot delete a domain that is enabled, please disable it first.", kind="ForbiddenAction")
        for user_id in _inside(tx, tables.users, domain_id):
            users.remove(tx, user_id)
        for group_id in _inside(tx, tables.groups, domain_id):
            groups.remove(tx, group_id)
        tx.delete(tables.limits, domain_id=domain_id)
        for project_id in _inside(tx, tables.projects, domain_id):
            projects.remove(tx, caller.cloud, project_id)
        for role_id in _inside(tx, tables.roles, domain_id):
            directory.delete(tx, directory.ROLES, role_id)
        for table in (tables.assignments, tables.group_assignments):
            for scope in ("domain", "under-domain"):
                tx.delete(table, scope=scope, scope_id=domain_id)
        directory.delete(tx, DOMAINS, domain_id)


def _inside(tx: db.Tx, table: sa.Table, domain_id: str) -> list[str]:
    return [row.id for row in tx.all(sa.select(table.c.id).where(table.c.domain_id == domain_id))]
