"""The database's schema: one linear Alembic history for the whole program, in `core/migrations/versions/NNNN_what.py`.

Steps only expand (design §4: expand, deploy, contract), so the program before and the one after can run at the same time. A test holds
that a fresh database made by the steps equals the tables that the code declares, on SQLite and on PostgreSQL. Alembic is imported only
when a step is due: a start with nothing to do costs one read.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nacre.core.db import Database, metadata

FOLDER = Path(__file__).parent / "migrations"
PATIENCE = "4s"


def head() -> str:
    """The newest step's number."""
    return max((path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*.py")), default="")


def current(database: Database) -> str:
    """The step that the database is at; empty for a new one."""
    with database.read() as conn:
        if not sa.inspect(conn).has_table("alembic_version"):
            return ""
        return str(conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or "")


def upgrade(database: Database) -> None:
    """Take the steps that are missing, each in a transaction of its own. Raises when another holds the tables for too long."""
    if current(database) == head():
        return
    with database.answering(), database.engine.connect() as plain:
        conn = plain.execution_options(nacre_write=True)
        if not database.sqlite:
            conn.execute(sa.text(f"SET lock_timeout = '{PATIENCE}'"))
            conn.commit()
        _run(conn, transaction_per_migration=True)
        conn.commit()


def upgrade_within(conn: sa.Connection) -> None:
    """Take every step in the transaction that the caller has begun (PostgreSQL, where steps are transactional)."""
    _run(conn, transaction_per_migration=False)


def _run(conn: sa.Connection, *, transaction_per_migration: bool, to: str = "head") -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(to, revision)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=conn, target_metadata=metadata, transaction_per_migration=transaction_per_migration,
                              render_as_batch=conn.dialect.name == "sqlite")  # fmt: skip
        environment.run_migrations()
