"""Rotation of keys: `nacre keys rotate`. A new key begins at once, those before it are honoured for as long as anything of theirs may come.

Several API processes need no word of it: the new key and a step of the identity epoch are one transaction, each request reads the epoch, and
what the new key signed cannot come before the commit that every later request sees (`service.auth`). Where two rotate at once, the epoch's row
lets one in after the other.

A key of tokens goes when the last token that it can have signed is over, the time in which one that is over is shown included. A key of
credentials goes when nothing is sealed by it any more. Rows are sealed anew a few at a time, each only if it is still as it was read; a request
that was about to seal by the key before may come after that, so that key stays for an hour at least, and the next rotation seals its rows anew.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken

from nacre.core import clock, db, ids, journal
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.identity import tables, tokens

BATCH, LATE = 100, timedelta(hours=1)


def rotate(cloud: Cloud, *, of_credentials: bool) -> dict[str, Any]:
    """What there is now: {"key": its number, "honoured": those before it, "gone": how many were dropped, "sealed": rows sealed anew}."""
    table = tables.credential_keys if of_credentials else tables.fernet_keys
    number = db.again(lambda: _begin(cloud, table))
    sealed = _seal_anew(cloud) if of_credentials else 0
    life = LATE if of_credentials else timedelta(seconds=cloud.config.token.expiration + cloud.config.token.allow_expired_window)
    gone = db.again(lambda: _drop(cloud, table, clock.utcnow() - life))
    with cloud.db.read() as conn:
        honoured = [row.number for row in conn.execute(sa.select(table.c.number).where(table.c.number < number).order_by(table.c.number))]
    return {"key": number, "honoured": honoured, "gone": gone, "sealed": sealed}


def _begin(cloud: Cloud, table: sa.Table) -> int:
    with cloud.db.write(System(ids.request_id())) as tx:
        tables.bump_epoch(tx)
        number = tokens.add_key(tx, cloud, table)
        journal.changed(tx, table.name.removesuffix("s"), str(number), "create")
        return number


def _drop(cloud: Cloud, table: sa.Table, before: datetime) -> int:
    """Keys whose successor began before that moment."""
    with cloud.db.write(System(ids.request_id())) as tx:
        tables.bump_epoch(tx)
        rows = tx.all(sa.select(table.c.number, table.c.created_at).order_by(table.c.number))
        late = [row.number for row, successor in pairwise(rows) if successor.created_at < before]
        for number in late:
            tx.delete(table, number=number)
            journal.changed(tx, table.name.removesuffix("s"), str(number), "delete")
        return len(late)


def _seal_anew(cloud: Cloud) -> int:
    """Every credential by the newest key; how many were not yet."""
    table, last, done = tables.credentials, "", 0
    while True:
        with cloud.db.read() as conn:
            keys, newest = tokens.load_seals(cloud, conn), tokens.newest_seal(cloud, conn)
            rows = list(conn.execute(sa.select(table.c.id, table.c.sealed).where(table.c.id > last).order_by(table.c.id).limit(BATCH)))
        if not rows:
            return done
        last = rows[-1].id
        fresh = {row: keys.rotate(row.sealed.encode()).decode() for row in rows if not _opens(newest, row.sealed)}
        with cloud.db.write(System(ids.request_id())) as tx:
            done += sum(tx.update(table, {"id": row.id, "sealed": row.sealed}, sealed=text) for row, text in fresh.items())


def _opens(key: Fernet, text: str) -> bool:
    try:
        key.decrypt(text.encode())
    except InvalidToken:
        return False
    return True
