"""Projects as the API has them, where a domain is one that acts as a domain: it is found, listed (`is_domain`), made, changed and deleted
as a project, too. Its row is the domain's.
"""

from collections.abc import Mapping

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest
from nacre.identity import tables
from nacre.identity.service import directory, domains, filters, projects
from nacre.identity.service.directory import DOMAINS, PROJECTS, Record, Wanted


def _as_project(domain: Record) -> Record:
    return {**domain, "domain_id": None, "parent_id": None, "is_domain": True, "tags": []}


def _domain(conn: db.Conn, row_id: str) -> Record | None:
    row = tables.by_id(conn, tables.domains, row_id)
    return directory.record(row) if row is not None else None


def _acts(caller: Caller, row_id: str) -> Record | None:
    with caller.read() as conn:
        return _domain(conn, row_id)


def find(caller: Caller, row_id: str, asked: Mapping[str, str]) -> Record:
    """Raises Forbidden, NotFound."""
    domain = _acts(caller, row_id)
    if domain is None:
        return projects.find(caller, row_id, asked)
    caller.require(PROJECTS.target({"id": row_id}))
    return _as_project(domain)


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Raises Forbidden, BadRequest."""
    if not ("is_domain" in asked and filters.true(asked["is_domain"])):
        return projects.listed(caller, asked)
    caller.require({"target.domain_id": caller.domain_id})
    mine = [] if caller.domain_id is None else [tables.domains.c.id == caller.domain_id]
    with caller.read() as conn:
        found = [] if any(asked.get(name) for name in ("domain_id", "parent_id")) else directory.rows(conn, DOMAINS, asked, *mine)
    return [_as_project(one) for one in found]


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound, BadRequest, Forbidden."""
    if not wanted.get("is_domain"):
        return projects.create(caller, {name: value for name, value in wanted.items() if name != "is_domain"})
    if wanted.get("domain_id") or wanted.get("parent_id"):
        raise BadRequest("Only root projects are allowed to act as domains.", kind="ValidationError")
    said = {name: value for name, value in wanted.items() if name not in ("is_domain", "domain_id", "parent_id", "tags")}
    return _as_project(domains.create(caller, said))


def update(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """Raises Conflict, BadRequest, NotFound, Forbidden."""
    acts = _acts(caller, row_id) is not None
    said = dict(wanted)
    if said.pop("is_domain", acts) is not acts:
        raise BadRequest("Invalid input for field/attribute is_domain. It cannot be changed.", kind="ValidationError")
    if not acts:
        return projects.update(caller, row_id, said)
    said = {name: value for name, value in said.items() if name not in ("domain_id", "parent_id", "tags")}
    return _as_project(domains.update(caller, row_id, said))


def delete(caller: Caller, row_id: str) -> None:
    """Raises Forbidden, NotFound."""
    domains.delete(caller, row_id) if _acts(caller, row_id) is not None else projects.delete(caller, row_id)
