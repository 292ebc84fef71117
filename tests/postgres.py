"""A PostgreSQL of the test run's own: a throwaway cluster on a unix socket, started when asked for, stopped at the end."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


class Postgres:
    """`fresh()` makes an empty database and gives its URL."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))

    def fresh(self) -> str:
        self.count += 1
        name = f"cloud{self.count}"
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as conn:
            conn.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def start(self) -> None:
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "--locale", "C.UTF-8")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run([str(self.bin / program), *words], user="postgres", group="postgres", extra_groups=[], cwd=self.folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@contextmanager
def cluster() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-pg-"))
    shutil.chown(folder, "postgres", "postgres")
    postgres = Postgres(folder)
    try:
        postgres.start()
        yield postgres
        postgres.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
