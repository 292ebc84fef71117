"""The steps of the schema give exactly the tables that the code declares, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
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
