"""The steps of the schema give exactly the tables that the code declares, on both databases."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import postgres
from nacre import program
from nacre.core import schema
from nacre.core.db import Database, metadata

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def started() -> Iterator[postgres.Postgres]:
    with postgres.cluster() as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_steps_equal_declared_tables(kind: str, started: postgres.Postgres, tmp_path: Path) -> None:
    assert program.SERVICES
    database = Database(f"sqlite:///{tmp_path}/fresh.db" if kind == "sqlite" else started.fresh())
    schema.upgrade(database)
    assert schema.current(database) == schema.head() != ""
    with database.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    schema.upgrade(database)
    database.close()


def test_history_is_linear() -> None:
    steps = sorted((schema.FOLDER / "versions").glob("[0-9]*.py"))
    numbers = [path.name[:4] for path in steps]
    assert numbers == [f"{n:04d}" for n in range(1, len(steps) + 1)]


def test_grants_outlive_the_step_that_makes_the_table_of_roles_anew(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/grown.db")
    with database.engine.connect() as plain:
        conn = plain.execution_options(nacre_write=True)
        schema._run(conn, transaction_per_migration=True, to="0015")
        for row_id in ("a", "b"):
            conn.execute(sa.text("INSERT INTO roles (id, name, description) VALUES (:id, :id, '')"), {"id": row_id})
        conn.execute(sa.text("INSERT INTO role_assignments (user_id, scope, scope_id, role_id) VALUES ('u', 'system', 'all', 'a')"))
        conn.execute(sa.text("INSERT INTO implied_roles (prior_role_id, implied_role_id) VALUES ('a', 'b')"))
        conn.commit()
    schema.upgrade(database)
    with database.read() as conn:
        for table, rows in (("roles", 2), ("role_assignments", 1), ("implied_roles", 1)):
            assert conn.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() == rows, table
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_two_defaults_that_a_race_left_the_older_stays(kind: str, started: postgres.Postgres, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/two.db" if kind == "sqlite" else started.fresh())
    with database.engine.connect() as plain:
        conn = plain.execution_options(nacre_write=True)
        schema._run(conn, transaction_per_migration=True, to="0018")
        for day, (row_id, external) in enumerate((("inner", False), ("b", True), ("a", True)), 1):
            _insert(conn, "networks", id=row_id, external=external, is_default=True, created_at=datetime(2026, 1, day))
        for day, (row_id, version) in enumerate((("p", 4), ("q", 4), ("s", 6)), 1):
            _insert(conn, "subnetpools", id=row_id, ip_version=version, is_default=True, created_at=datetime(2026, 1, day))
        conn.commit()
    schema.upgrade(database)
    with database.read() as conn:
        for table, kept in (("networks", ["b"]), ("subnetpools", ["p", "s"])):
            assert conn.execute(sa.text(f"SELECT id FROM {table} WHERE is_default ORDER BY id")).scalars().all() == kept
    database.close()


def _insert(conn: sa.Connection, name: str, **values: Any) -> None:
    """A row of the table as it is in the database, with something in whatever it must have."""
    table = sa.Table(name, sa.MetaData(), autoload_with=conn)
    some = {sa.Boolean: False, sa.Integer: 0, sa.DateTime: datetime(2026, 1, 1), sa.JSON: []}
    needed = {column.name: next((value for kind, value in some.items() if isinstance(column.type, kind)), "")
              for column in table.columns if not column.nullable}  # fmt: skip
    conn.execute(table.insert().values({**needed, **values}))
