"""What identity keeps true: revocations are kept only as long as the token they revoke could be shown to anybody, failed logins as long as
they count."""

from datetime import timedelta

import sqlalchemy as sa

from nacre.core import clock
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.loops import Loop
from nacre.identity import tables


def forget_expired(cloud: Cloud, who: System) -> None:
    late = tables.revoked.c.expires_at < clock.utcnow() - timedelta(seconds=cloud.config.token.allow_expired_window)
    with cloud.db.read() as conn:
        if conn.execute(sa.select(tables.revoked.c.audit_id).where(late).limit(1)).first() is None:
            return
    with cloud.db.write(who) as tx:
        tx.execute(tables.revoked.delete().where(late))


def forget_failures(cloud: Cloud, who: System) -> None:
    late = tables.failed_logins.c.since < clock.utcnow() - timedelta(minutes=5)
    with cloud.db.read() as conn:
        if conn.execute(sa.select(tables.failed_logins.c.key).where(late).limit(1)).first() is None:
            return
    with cloud.db.write(who) as tx:
        tx.execute(tables.failed_logins.delete().where(late))


LOOPS = (Loop("identity-revocations", 300, forget_expired), Loop("identity-failures", 300, forget_failures))
