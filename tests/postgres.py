"""A PostgreSQL of the test run's own: a throwaway cluster on a unix socket, started when asked for, stopped at the end."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Postgres:
    """`fresh()` makes an empty database and gives its URL. With a `port` it also listens on loopback, where a password is asked for
    (`login`)."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.port, self.count = folder, port, 0
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))

    def fresh(self) -> str:
        self.count += 1
        name = f"cloud{self.count}"
        self.sql(f"CREATE DATABASE {name}")
        return self._url(name)

    def login(self, user: str, password: str) -> str:
        """The URL of an empty database of this user's own, by TCP and password."""
        self.count += 1
        name = f"cloud{self.count}"
        self.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        self.sql(f"CREATE DATABASE {name} OWNER {user}")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> list[sa.Row[Any]]:
        """What one statement of the superuser gives."""
        engine = sa.create_engine(self._url(database), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as conn:
            result = conn.execute(sa.text(statement))
            return list(result) if result.returns_rows else []

    def deadlocks(self) -> list[str]:
        """What the server has logged of them so far, with the statements that met."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return ["\n".join(lines[n : n + 8]) for n, line in enumerate(lines) if "ERROR:  deadlock detected" in line]

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}" + (f"&port={self.port}" if self.port else "")

    def make(self) -> None:
        self._run("initdb", "-D", str(self.folder / "data"), "--auth-local=trust", "--auth-host=scram-sha-256", "-U", "postgres", "-N", "-E", "UTF8",
                  "--locale", "C.UTF-8")  # fmt: skip

    def start(self) -> None:
        listen = "127.0.0.1" if self.port else "''"
        where = f"-c listen_addresses={listen} -c port={self.port or 5432} -c unix_socket_directories={self.folder}"
        options = f"{where} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "stop")

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run([str(self.bin / program), *words], user="postgres", group="postgres", extra_groups=[], cwd=self.folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=240, check=False)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@contextmanager
def cluster(port: int = 0) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-pg-"))
    shutil.chown(folder, "postgres", "postgres")
    postgres = Postgres(folder, port)
    try:
        postgres.make()
        postgres.start()
        yield postgres
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
