"""Implied roles: who has the prior role has the implied one too, and what that implies, wherever and for as long as that is so.

What is implied is looked at when a token is used (`tables.rights`). Races: whoever adds an implication holds the epoch's row first, so
of two that together would close a circle the second sees the first.
"""

from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden, NotFound
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import ROLES, Record
from nacre.identity.tables import rights


def imply(caller: Caller, prior_id: str, implied_id: str) -> tuple[Record, Record]:
    """Harmless when repeated. Raises NotFound, Forbidden (a role that may not be implied), BadRequest (a circle)."""
    with caller.write() as tx:
        prior, implied = _both(tx, caller, prior_id, implied_id)
        if implied["name"] in caller.cloud.config.assignment.prohibited_implied_role:
            raise Forbidden(f"{implied_id} cannot be an implied roles.", kind="InvalidImpliedRole")
        if prior["domain_id"] is None and implied["domain_id"] is not None:
            raise Forbidden("Global role cannot imply a domain-specific role", kind="InvalidImpliedRole")
        tables.bump_epoch(tx)
        known = rights.inferences(tx)
        if prior_id in rights.with_implied({implied_id}, known):
            raise BadRequest(f"Role {implied['name']} implies {prior['name']} already: the implication would be a circle.", kind="ValidationError")
        if implied_id not in known.get(prior_id, ()):
            tx.insert(tables.implied_roles, prior_role_id=prior_id, implied_role_id=implied_id)
            journal.changed(tx, "role", prior_id, "imply", values={"implied_role_id": implied_id})
        return prior, implied


def find(caller: Caller, prior_id: str, implied_id: str) -> tuple[Record, Record]:
    """Raises NotFound when the one does not imply the other."""
    with caller.read() as conn:
        both = _both(conn, caller, prior_id, implied_id)
        if implied_id not in rights.inferences(conn).get(prior_id, ()):
            raise _absent(prior_id, implied_id)
        return both


def end(caller: Caller, prior_id: str, implied_id: str) -> None:
    """Raises NotFound."""
    with caller.write() as tx:
        _both(tx, caller, prior_id, implied_id)
        if not tx.delete(tables.implied_roles, prior_role_id=prior_id, implied_role_id=implied_id):
            raise _absent(prior_id, implied_id)
        journal.changed(tx, "role", prior_id, "imply_no_more", values={"implied_role_id": implied_id})
        tables.bump_epoch(tx)


def of_role(caller: Caller, prior_id: str) -> tuple[Record, list[Record]]:
    """A role with those that it implies directly."""
    with caller.read() as conn:
        row = tables.by_id(conn, tables.roles, prior_id)
        prior = directory.record(row) if row is not None else {}
        caller.require(_target("prior_role", prior))
        if row is None:
            raise directory.missing(ROLES, prior_id)
        implied = rights.inferences(conn).get(prior_id, set())
        rows = conn.execute(sa.select(tables.roles).where(tables.roles.c.id.in_(implied)).order_by(tables.roles.c.name))
        return prior, [directory.record(row) for row in rows]


def listed(caller: Caller) -> list[tuple[Record, list[Record]]]:
    """Every role that implies others, with these."""
    caller.require({})
    with caller.read() as conn:
        known = rights.inferences(conn)
        named = {row.id: directory.record(row) for row in conn.execute(sa.select(tables.roles))}
    found = [(named[prior], sorted((named[one] for one in implied), key=_name)) for prior, implied in known.items()]
    return sorted(found, key=lambda pair: _name(pair[0]))


def _name(role: Record) -> str:
    return str(role["name"])


def _target(word: str, role: Record) -> dict[str, Any]:
    return {f"target.{word}.{name}": value for name, value in role.items()}


def _both(conn: db.Conn, caller: Caller, prior_id: str, implied_id: str) -> tuple[Record, Record]:
    """Raises Forbidden, NotFound."""
    rows = [tables.by_id(conn, tables.roles, row_id) for row_id in (prior_id, implied_id)]
    prior, implied = (directory.record(row) if row is not None else {} for row in rows)
    caller.require({**_target("prior_role", prior), **_target("implied_role", implied)})
    for row, row_id in zip(rows, (prior_id, implied_id), strict=True):
        if row is None:
            raise directory.missing(ROLES, row_id)
    return prior, implied


def _absent(prior_id: str, implied_id: str) -> NotFound:
    return NotFound(f"{prior_id} does not imply {implied_id}.")
