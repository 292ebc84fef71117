"""Who works on what, for how long. A lease is over when its time is past, or (SQLite, where time is the kernel's boot clock) when the
machine has booted since. PostgreSQL uses the database's own time, so controllers need not agree on theirs.
"""

from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db
from nacre.core.statements import Statement, given

table = sa.Table(
    "leases", db.metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)  # fmt: skip


def now(conn: db.Conn) -> tuple[str, float]:
    """(boot id, seconds) of the lease clock."""
    inner = conn.conn if isinstance(conn, db.Tx) else conn
    if inner.dialect.name == "sqlite":
        return clock.boot_id(), clock.boottime()
    return "", float(inner.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def over(boot: Any, until: Any, instant: tuple[Any, Any]) -> sa.ColumnElement[bool]:
    """SQL: the lease in columns (boot, until) no longer holds at `instant`."""
    return sa.or_(boot.is_(None), boot != instant[0], until < instant[1])


_LEASE = Statement(sa.select(table).where(table.c.name == given("name")))


def take(cloud_db: db.Database, who: db.Who, name: str, owner: str, seconds: float) -> bool:
    """Hold lease `name` for `seconds`; True when it is ours. Writes only when less than half of it is left."""
    with cloud_db.read() as conn:
        instant = now(conn)
        row = _LEASE.first(conn, name=name)
    if row is not None and row.boot == instant[0] and row.until > instant[1]:
        if row.owner != owner:
            return False
        if row.until - instant[1] > seconds / 2:
            return True
    return db.again(lambda: _take(cloud_db, who, name, owner, seconds))


def _take(cloud_db: db.Database, who: db.Who, name: str, owner: str, seconds: float) -> bool:
    with cloud_db.write(who) as tx:
        instant = now(tx)
        values = {"owner": owner, "boot": instant[0], "until": instant[1] + seconds}
        mine = sa.or_(table.c.owner == owner, over(table.c.boot, table.c.until, instant))
        if tx.execute(table.update().where(table.c.name == name, mine).values(**values)).rowcount:
            return True
        if tx.first(sa.select(table.c.name).where(table.c.name == name)):
            return False
        tx.insert(table, name=name, **values)
        return True
