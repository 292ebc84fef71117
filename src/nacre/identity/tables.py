"""Tables of identity. Everything a token is checked against, and the catalog, is here; whoever changes any of it calls `bump_epoch` in the same
transaction, and every process drops what it remembers at its next request. `extra` is what requests said beyond the columns: upstream
keeps and shows it as it was said.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.core.statements import Statement, given

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
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
    sa.UniqueConstraint("domain_id", "name"),
)  # fmt: skip
roles = sa.Table(
    "roles", db.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("extra", db.Json),
    sa.Column("options", db.Json),
)  # fmt: skip
implied_roles = sa.Table(
    "implied_roles", db.metadata,
    sa.Column("prior_role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("implied_role_id", sa.String(64), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
assignments = sa.Table(
    "role_assignments", db.metadata,
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),        # project, domain, system
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


def by_id(conn: db.Conn, table: sa.Table, row_id: str | None) -> db.Row | None:
    return conn.execute(sa.select(table).where(table.c.id == row_id)).first() if row_id else None


def named(conn: db.Conn, table: sa.Table, name: str, domain_id: str | None = None) -> db.Row | None:
    query = sa.select(table).where(table.c.name == name)
    return conn.execute(query.where(table.c.domain_id == domain_id) if domain_id is not None else query).first()


def roles_on(conn: db.Conn, user_id: str, scope: str, scope_id: str) -> list[db.Row]:
    """The roles of a user on a scope, by name: given to the user or to a group of the user's, and those they imply."""
    direct = sa.select(assignments.c.role_id).where(
        assignments.c.user_id == user_id, assignments.c.scope == scope, assignments.c.scope_id == scope_id)  # fmt: skip
    by_group = (sa.select(group_assignments.c.role_id).join(members, members.c.group_id == group_assignments.c.group_id)
                .where(members.c.user_id == user_id, group_assignments.c.scope == scope, group_assignments.c.scope_id == scope_id))  # fmt: skip
    found = with_implied(conn, {row.role_id for row in conn.execute(direct.union(by_group))})
    return list(conn.execute(sa.select(roles).where(roles.c.id.in_(found)).order_by(roles.c.name))) if found else []


def with_implied(conn: db.Conn, held: Iterable[str]) -> set[str]:
    """Ids of roles and of those that they imply."""
    implied: dict[str, set[str]] = {}
    for prior, follows in conn.execute(sa.select(implied_roles)):
        implied.setdefault(prior, set()).add(follows)
    found, fresh = set(held), set(held)
    while fresh:
        fresh = {follows for prior in fresh for follows in implied.get(prior, ())} - found
        found |= fresh
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


def scopes_of(conn: db.Conn, user_id: str, scope: str) -> list[str]:
    """Where the user has a role, also by a group."""
    query = sa.select(assignments.c.scope_id).where(assignments.c.user_id == user_id, assignments.c.scope == scope)
    by_group = (sa.select(group_assignments.c.scope_id).join(members, members.c.group_id == group_assignments.c.group_id)
                .where(members.c.user_id == user_id, group_assignments.c.scope == scope))  # fmt: skip
    return [row.scope_id for row in conn.execute(query.union(by_group))]


def catalog_rows(conn: db.Conn) -> list[Any]:
    """(service row fields, endpoint row fields) of everything enabled, ordered."""
    join = services.join(endpoints, endpoints.c.service_id == services.c.id)
    columns = (services.c.id, services.c.type, services.c.name, endpoints.c.id.label("endpoint_id"), endpoints.c.interface,
               endpoints.c.region_id, endpoints.c.url)  # fmt: skip
    query = sa.select(*columns).select_from(join).where(services.c.enabled, endpoints.c.enabled)
    return list(conn.execute(query.order_by(services.c.type, endpoints.c.interface)))
