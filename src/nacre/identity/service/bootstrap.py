"""The first rows: domain default, projects admin and demo, users admin and demo, upstream's roles, the catalog. Idempotent: what is there
stays as its owner made it, except the addresses of our own endpoints, which follow the configuration.
"""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from nacre.core import db, ids
from nacre.core.cloud import Cloud
from nacre.core.http import Service
from nacre.identity import hashing, tables, tokens

REGION = "RegionOne"
ROLES = ("admin", "manager", "member", "reader", "service")
IMPLIED = (("admin", "manager"), ("manager", "member"), ("member", "reader"))
PROJECTS = {"admin": "Bootstrap project for initializing the cloud.", "demo": ""}
GRANTS = (("admin", "project", "admin", "admin"), ("admin", "system", "all", "admin"), ("demo", "project", "demo", "member"))


def bootstrap(tx: db.Tx, cloud: Cloud, passwords: Mapping[str, str], services: Iterable[Service]) -> None:
    """Make what is missing, in the caller's transaction."""
    if tables.by_id(tx, tables.domains, "default") is None:
        tx.insert(tables.domains, id="default", name="Default", description="The default domain", enabled=True)
        role = {name: ids.hex_id() for name in ROLES}
        project = {name: ids.hex_id() for name in PROJECTS}
        user = {name: ids.hex_id() for name in PROJECTS}
        for name, row_id in role.items():
            tx.insert(tables.roles, id=row_id, name=name, description="")
        for prior, implied in IMPLIED:
            tx.insert(tables.implied_roles, prior_role_id=role[prior], implied_role_id=role[implied])
        for name, row_id in project.items():
            tx.insert(tables.projects, id=row_id, name=name, domain_id="default", parent_id="default", description=PROJECTS[name], enabled=True)
        for name, row_id in user.items():
            tx.insert(tables.users, id=row_id, name=name, domain_id="default", enabled=True,
                      password_hash=hashing.hashed(cloud.config.identity, passwords[name]))  # fmt: skip
        for who, scope, where, what in GRANTS:
            tx.insert(tables.assignments, user_id=user[who], scope=scope, scope_id=project.get(where, where), role_id=role[what])
        tx.insert(tables.regions, id=REGION, description="")
        tokens.add_key(tx, cloud)
    for service in services:
        _endpoints(tx, service, f"{cloud.public_url}{service.prefix}{service.endpoint}")
    tables.bump_epoch(tx)


def _endpoints(tx: db.Tx, service: Service, url: str) -> None:
    row = tx.first(sa.select(tables.services).where(tables.services.c.type == service.type, tables.services.c.name == service.title))
    service_id = row.id if row is not None else ids.hex_id()
    if row is None:
        tx.insert(tables.services, id=service_id, type=service.type, name=service.title, description="", enabled=True)
        for interface in ("public", "internal", "admin"):
            tx.insert(tables.endpoints, id=ids.hex_id(), service_id=service_id, interface=interface, region_id=REGION, url=url, enabled=True)
    else:
        tx.update(tables.endpoints, {"service_id": service_id}, url=url)
