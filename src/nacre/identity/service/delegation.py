"""What trusts and application credentials share: both let somebody act with some roles in one project, until they end.

Who came by a delegation may not make it last longer or reach further: a token of a trust manages no application credentials, and one of
an application credential neither those nor trusts unless it is unrestricted.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import ROLES, Record

APPLICATION = "application_credential"


def refuse_restricted(caller: Caller, what: str) -> None:
    """Raises Forbidden for who came by an application credential that is restricted."""
    if APPLICATION in caller.extra and caller.extra[APPLICATION]["restricted"]:
        raise Forbidden(f"You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for "
                        f"managing {what}.", kind="ForbiddenAction")  # fmt: skip


def refuse_trusted(caller: Caller, what: str) -> None:
    """Raises Forbidden for who came by a trust."""
    if "trust" in caller.extra:
        raise Forbidden(f"You are not authorized to perform the requested action: Using a token of a trust is not allowed for managing {what}.",
                        kind="ForbiddenAction")  # fmt: skip


def reaches(caller: Caller, project_id: str | None) -> bool:
    """Whether what belongs to the project is of any concern to the caller: a delegation is for one."""
    return not ("trust" in caller.extra or APPLICATION in caller.extra) or project_id == caller.project_id


def refuse_elsewhere(caller: Caller, project_id: str | None, what: str) -> None:
    """Raises Forbidden for who came by a delegation for another project."""
    if not reaches(caller, project_id):
        raise Forbidden(f"You are not authorized to perform the requested action: {what} is not in the project of the delegated token.",
                        kind="ForbiddenAction")  # fmt: skip


def end(text: str | None) -> datetime | None:
    """A moment to come, in naive UTC. Raises BadRequest for what is no moment, or is over."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid input for field/attribute expires_at. '{text}' is no moment in ISO 8601.", kind="ValidationError") from None
    if found <= clock.utcnow():
        raise BadRequest("Invalid input for field/attribute expires_at. It is in the past.", kind="ValidationError")
    return found


def role(conn: db.Conn, reference: Mapping[str, Any]) -> db.Row:
    """By id or name. Raises NotFound."""
    found = tables.by_id(conn, tables.roles, reference.get("id")) or tables.named(conn, tables.roles, reference.get("name") or "")
    if found is None:
        raise directory.missing(ROLES, str(reference.get("id") or reference.get("name")))
    return found



def given_roles(conn: db.Conn, table: sa.Table, column: str, row_id: str) -> list[Record]:
    """The roles that the rows of `table` give, as far as they are still there."""
    given = sa.select(table.c.role_id).where(table.c[column] == row_id)
    return [directory.record(row) for row in conn.execute(sa.select(tables.roles).where(tables.roles.c.id.in_(given)).order_by(tables.roles.c.name))]
