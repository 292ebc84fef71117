"""What identity keeps true: revocations are kept only as long as the token they revoke could be shown to anybody."""

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


LOOPS = (Loop("identity-revocations", 300, forget_expired),)
