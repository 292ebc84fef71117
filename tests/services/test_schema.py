"""The steps of the schema give exactly the tables that the code declares, on both databases."""

from collections.abc import Iterator
from pathlib import Path

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
