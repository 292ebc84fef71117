"""Tables of identity. Everything a token is checked against, and the catalog, is here; whoever changes any of it calls `bump_epoch` in the same
transaction, and every process drops what it remembers at its next request. `rights` reads who has which roles where.
`extra` is what requests said beyond the columns: upstream keeps and shows it as it was said.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.core.statements import Statement, given, given_list

EPOCH = "identity_epoch"

domains = sa.Table(
    "domains", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
)  # fmt: skip
projects = sa.Table(
    "projects", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey("domains.id"), nullable=False),
    sa.Column("parent_id", sa.String(64), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
    sa.UniqueConstraint("domain_id", "name"),
    sa.Index("ix_projects_page", "name", "id"),
    sa.Index("ix_projects_parent", "parent_id"),
)  # fmt: skip
project_tags = sa.Table(
    "project_tags", db.metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
)  # fmt: skip
users = sa.Table(
    "users", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey("domains.id"), nullable=False),
    sa.Column("default_project_id", sa.String(64)),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("password_hash", sa.String(255)),
    sa.Column("password_changed_at", sa.DateTime),
    sa.Column("password_expires_at", sa.DateTime),
    sa.Column("password_own", sa.Boolean, nullable=False, server_default="0"),          # the user chose it, not an administrator
    sa.Column("login_failures", sa.Integer, nullable=False, server_default="0"),        # one after another; a login, and `service.logins`
    sa.Column("login_failed_at", sa.DateTime),
    sa.Column("login_since", sa.DateTime),                                              # older tokens count no more
    sa.Column("login_at", sa.DateTime),                                                 # kept only where inactivity counts
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
    sa.UniqueConstraint("domain_id", "name"),
    sa.Index("ix_users_page", "name", "id"),
)  # fmt: skip
past_passwords = sa.Table(
    "past_passwords", db.metadata,
    sa.Column("user_id", sa.String(64), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("until", sa.DateTime, primary_key=True),
    sa.Column("password_hash", sa.String(255), nullable=False),
)  # fmt: skip
failed_logins = sa.Table(
    "failed_logins", db.metadata,
    sa.Column("key", sa.String(64), primary_key=True),          # hash of the user as it was named and the source address
    sa.Column("since", sa.DateTime, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
)  # fmt: skip
roles = sa.Table(
    "roles", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("domain_id", sa.String(64)),                      # whose own role it is; None: everybody's
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
    sa.UniqueConstraint("domain_id", "name"),
    sa.Index("ix_roles_everybodys_name", "name", unique=True, sqlite_where=sa.text("domain_id IS NULL"),
             postgresql_where=sa.text("domain_id IS NULL")),
)  # fmt: skip
implied_roles = sa.Table(
    "implied_roles", db.metadata,
    sa.Column("prior_role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("implied_role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
assignments = sa.Table(
    "role_assignments", db.metadata,
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),        # project, domain, system; under-project, under-domain: inherited from there
    sa.Column("scope_id", sa.String(64), primary_key=True),     # "all" for system
    sa.Column("role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
groups = sa.Table(
    "user_groups", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey("domains.id"), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("extra", db.Json),
    sa.UniqueConstraint("domain_id", "name"),
)  # fmt: skip
members = sa.Table(
    "user_group_members", db.metadata,
    sa.Column("group_id", sa.String(64), sa.ForeignKey("user_groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("user_id", sa.String(64), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
)  # fmt: skip
group_assignments = sa.Table(
    "group_role_assignments", db.metadata,
    sa.Column("group_id", sa.String(64), sa.ForeignKey("user_groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),        # as of users
    sa.Column("scope_id", sa.String(64), primary_key=True),
    sa.Column("role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
regions = sa.Table(
    "regions", db.metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("parent_region_id", sa.String(255)),
    sa.Column("extra", db.Json),
)  # fmt: skip
services = sa.Table(
    "catalog_services", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", db.Json),
)  # fmt: skip
endpoints = sa.Table(
    "catalog_endpoints", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("service_id", sa.String(64), sa.ForeignKey("catalog_services.id", ondelete="CASCADE"), nullable=False),
    sa.Column("interface", sa.String(16), nullable=False),      # public, internal, admin
    sa.Column("region_id", sa.String(255)),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", db.Json),
)  # fmt: skip
endpoint_groups = sa.Table(
    "endpoint_groups", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("filters", db.Json, nullable=False),              # what endpoints must be: interface, service_id, region_id, enabled
)  # fmt: skip
project_endpoints = sa.Table(
    "project_endpoints", db.metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("endpoint_id", sa.String(64), sa.ForeignKey("catalog_endpoints.id", ondelete="CASCADE"), primary_key=True, index=True),
)  # fmt: skip
project_endpoint_groups = sa.Table(
    "project_endpoint_groups", db.metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("group_id", sa.String(64), sa.ForeignKey("endpoint_groups.id", ondelete="CASCADE"), primary_key=True, index=True),
)  # fmt: skip
registered_limits = sa.Table(
    "registered_limits", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("service_id", sa.String(64), sa.ForeignKey("catalog_services.id", ondelete="CASCADE"), nullable=False),
    sa.Column("region_id", sa.String(255)),
    sa.Column("resource_name", sa.String(255), nullable=False),
    sa.Column("default_limit", sa.BigInteger, nullable=False),
    sa.Column("description", sa.Text),
    sa.UniqueConstraint("service_id", "region_id", "resource_name"),
    sa.Index("ix_registered_limits_anywhere", "service_id", "resource_name", unique=True, sqlite_where=sa.text("region_id IS NULL"),
             postgresql_where=sa.text("region_id IS NULL")),
)  # fmt: skip
limits = sa.Table(
    "unified_limits", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("registered_id", sa.String(64), sa.ForeignKey("registered_limits.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("project_id", sa.String(64)),                     # one of the two
    sa.Column("domain_id", sa.String(64)),
    sa.Column("resource_limit", sa.BigInteger, nullable=False),
    sa.Column("description", sa.Text),
    sa.UniqueConstraint("project_id", "registered_id"),
    sa.UniqueConstraint("domain_id", "registered_id"),
)  # fmt: skip
policies = sa.Table(
    "identity_policies", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("blob", sa.Text, nullable=False),
    sa.Column("extra", db.Json),
)  # fmt: skip
credentials = sa.Table(
    "identity_credentials", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), nullable=False, index=True),
    sa.Column("project_id", sa.String(64)),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),               # the blob, encrypted by a credential key
    sa.Column("extra", db.Json),
)  # fmt: skip
trusts = sa.Table(
    "trusts", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("trustor_user_id", sa.String(64), nullable=False, index=True),
    sa.Column("trustee_user_id", sa.String(64), nullable=False, index=True),
    sa.Column("project_id", sa.String(64)),
    sa.Column("impersonation", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.DateTime),
    sa.Column("remaining_uses", sa.Integer),                    # None: any number; taken where a token is issued
    sa.Column("redelegated_trust_id", sa.String(64), index=True),       # the trust that this one passes on
    sa.Column("redelegation_count", sa.Integer, nullable=False, server_default="0"),    # how many more times it may be passed on
    sa.Column("extra", db.Json),
)  # fmt: skip
trust_roles = sa.Table(
    "trust_roles", db.metadata,
    sa.Column("trust_id", sa.String(64), sa.ForeignKey("trusts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
app_credentials = sa.Table(
    "application_credentials", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("user_id", sa.String(64), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("description", sa.Text),
    sa.Column("secret_hash", sa.String(255), nullable=False),
    sa.Column("unrestricted", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.DateTime),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.UniqueConstraint("user_id", "name"),
)  # fmt: skip
app_credential_roles = sa.Table(
    "app_credential_roles", db.metadata,
    sa.Column("credential_id", sa.String(64), sa.ForeignKey("application_credentials.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role_id", sa.String(64), primary_key=True),      # stays when the role goes: the credential is worth nothing then, not less
)  # fmt: skip
access_rules = sa.Table(
    "access_rules", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("path", sa.String(255), nullable=False),
    sa.UniqueConstraint("user_id", "service", "method", "path"),
)  # fmt: skip
app_credential_rules = sa.Table(
    "app_credential_rules", db.metadata,
    sa.Column("credential_id", sa.String(64), sa.ForeignKey("application_credentials.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("rule_id", sa.String(64), sa.ForeignKey("access_rules.id"), primary_key=True, index=True),
)  # fmt: skip
fernet_keys = sa.Table(
    "fernet_keys", db.metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),     # the highest signs, all verify
    sa.Column("wrapped", sa.Text, nullable=False),                              # encrypted by the master key file
    sa.Column("created_at", sa.DateTime, nullable=False),
)  # fmt: skip
credential_keys = sa.Table(
    "credential_keys", db.metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),     # the highest seals, all open
    sa.Column("wrapped", sa.Text, nullable=False),                              # encrypted by the master key file
    sa.Column("created_at", sa.DateTime, nullable=False),
)  # fmt: skip
revoked = sa.Table(
    "revoked_tokens", db.metadata,
    sa.Column("audit_id", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.DateTime, nullable=False),
)  # fmt: skip


_FACT = Statement(sa.select(nodes.facts.c.value).where(nodes.facts.c.name == given("name")))


def epoch(conn: db.Conn) -> int:
    value = _FACT.scalar(conn, name=EPOCH)
    return int(value) if value is not None else 0


def bump_epoch(tx: db.Tx) -> None:
    """Something that tokens are checked against has changed."""
    row = tx.lock(sa.select(nodes.facts).where(nodes.facts.c.name == EPOCH))
    if row is None:
        tx.insert(nodes.facts, name=EPOCH, value=1)
    else:
        tx.update(nodes.facts, {"name": EPOCH}, value=int(row.value) + 1)


@cache
def _where(table: sa.Table, *names: str, everybodys: bool = False) -> Statement:
    """Rows by these columns; `everybodys`: those that are no domain's."""
    conditions = [table.c[name] == given(name) for name in names]
    return Statement(sa.select(table).where(*conditions, *([table.c.domain_id.is_(None)] if everybodys else [])))


def by_id(conn: db.Conn, table: sa.Table, row_id: str | None) -> db.Row | None:
    return _where(table, "id").first(conn, id=row_id) if row_id else None


def named(conn: db.Conn, table: sa.Table, name: str, domain_id: str | None = None) -> db.Row | None:
    """Of a domain, or of everybody's."""
    if "domain_id" not in table.c or domain_id is None:
        return _where(table, "name", everybodys="domain_id" in table.c).first(conn, name=name)
    return _where(table, "domain_id", "name").first(conn, domain_id=domain_id, name=name)


_REVOKED = Statement(sa.select(revoked.c.audit_id).where(revoked.c.audit_id.in_(given_list("audit_ids"))))


def is_revoked(conn: db.Conn, audit_ids: Sequence[str]) -> bool:
    return _REVOKED.first(conn, audit_ids=audit_ids) is not None


def above(conn: db.Conn, project_id: str) -> list[db.Row]:
    """The projects above one, the nearest first."""
    found: list[db.Row] = []
    row = by_id(conn, projects, project_id)
    while row is not None and (row := by_id(conn, projects, row.parent_id)) is not None:
        found.append(row)
    return found


def given_by(conn: db.Conn, trust_id: str) -> set[str]:
    """Ids of the roles of a trust."""
    return {row.role_id for row in conn.execute(sa.select(trust_roles.c.role_id).where(trust_roles.c.trust_id == trust_id))}


def standing(conn: db.Conn, trust_id: str, now: datetime) -> list[db.Row]:
    """A trust with those that it was passed on by, nearest first; none when one of them is gone, over or used up."""
    line: list[db.Row] = []
    wanted: str | None = trust_id
    while wanted is not None:
        row = by_id(conn, trusts, wanted)
        if row is None or (row.expires_at is not None and row.expires_at <= now) or (row.remaining_uses is not None and row.remaining_uses <= 0):
            return []
        line.append(row)
        wanted = row.redelegated_trust_id
    return line


def rules_of(conn: db.Conn, credential_id: str) -> list[dict[str, Any]]:
    """The access rules of an application credential, as they are shown; none: every request is allowed."""
    query = (sa.select(access_rules.c.id, access_rules.c.service, access_rules.c.method, access_rules.c.path)
             .join(app_credential_rules, app_credential_rules.c.rule_id == access_rules.c.id)
             .where(app_credential_rules.c.credential_id == credential_id).order_by(access_rules.c.service, access_rules.c.path))  # fmt: skip
    return [dict(row._mapping) for row in conn.execute(query)]


def below(conn: db.Conn, project_id: str) -> list[db.Row]:
    """The projects below one, level by level."""
    found, level = [], [project_id]
    while level:
        rows = list(conn.execute(sa.select(projects).where(projects.c.parent_id.in_(level)).order_by(projects.c.name)))
        found += rows
        level = [row.id for row in rows]
    return found


def catalog_rows(conn: db.Conn) -> list[Any]:
    """(service row fields, endpoint row fields) of everything enabled, ordered."""
    join = services.join(endpoints, endpoints.c.service_id == services.c.id)
    columns = (services.c.id, services.c.type, services.c.name, endpoints.c.id.label("endpoint_id"), endpoints.c.interface,
               endpoints.c.region_id, endpoints.c.url)  # fmt: skip
    query = sa.select(*columns).select_from(join).where(services.c.enabled, endpoints.c.enabled)
    return list(conn.execute(query.order_by(services.c.type, endpoints.c.interface)))
