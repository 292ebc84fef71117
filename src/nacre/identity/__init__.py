"""Identity: who is asking, and what for. Owns domains, projects, users, roles, assignments, the catalog and the token keys.

A token says who and for what scope; what it is worth is read from the tables at each use (`service.auth`), remembered per process under
an epoch that every revoking change counts up. Other services call the functions below and never see a table.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from nacre.core import db
from nacre.core.cloud import Cloud
from nacre.identity import tables
from nacre.identity.api.directory import versions
from nacre.identity.service import limits as unified
from nacre.identity.service.auth import acting, authenticate
from nacre.identity.service.bootstrap import REGION, bootstrap
from nacre.identity.service.keys import rotate as rotate_keys
from nacre.identity.tokens import fits, master_key

__all__ = ["acting", "authenticate", "bootstrap", "endpoint", "fits", "limits", "project_exists", "project_named", "project_names", "rotate_keys",
           "sealed", "unsealed", "user_names", "versions"]  # fmt: skip


def endpoint(conn: db.Conn, kind: str, region: str, interface: str) -> str | None:
    """Where the catalog says that a service of this type is; None if it does not say."""
    found = [row.url for row in tables.catalog_rows(conn) if (row.type, row.region_id, row.interface) == (kind, region, interface)]
    return str(found[0]) if found else None


def sealed(cloud: Cloud, secret: str) -> str:
    """A secret that a task has to carry, so that only processes with this home's master key read it."""
    return master_key(cloud).encrypt(secret.encode()).decode()


def unsealed(cloud: Cloud, text: str) -> str:
    return master_key(cloud).decrypt(text.encode()).decode()


def project_exists(conn: db.Conn, project_id: str) -> bool:
    return tables.by_id(conn, tables.projects, project_id) is not None


def project_named(cloud: Cloud, name: str) -> str:
    """Id of the project of that name in the default domain. Raises LookupError."""
    with cloud.db.read() as conn:
        row = tables.named(conn, tables.projects, name, "default")
    if row is None:
        raise LookupError(f"no project is called {name}")
    return str(row.id)


def project_names(conn: db.Conn, wanted: Iterable[str]) -> dict[str, str]:
    query = sa.select(tables.projects.c.id, tables.projects.c.name).where(tables.projects.c.id.in_(list(wanted)))
    return {row.id: row.name for row in conn.execute(query)}


def user_names(conn: db.Conn, wanted: Iterable[str]) -> dict[str, str]:
    query = sa.select(tables.users.c.id, tables.users.c.name).where(tables.users.c.id.in_(list(wanted)))
    return {row.id: row.name for row in conn.execute(query)}


def limits(conn: db.Conn, kind: str, project_id: str) -> dict[str, int]:
    """Resource -> how much of it the project may have of services of this type (-1: any number), where unified limits say so."""
    return unified.of_project(conn, kind, project_id, REGION)
