"""`process.py api|worker HOME PORT URL`: one real process of a cloud on PostgreSQL, on SQLite when URL is empty, without the privileges that
the supervisor would drop."""

import sys
from pathlib import Path

from nacre import program
from nacre.core import log
from nacre.core.config import Config, Database, Home, Nacre


class OpenHome(Home):
    """A home that everybody can walk to: reach is the path itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reach = self.path


def config(port: int, url: str) -> Config:
    return Config(nacre=Nacre(port=port), database=Database(connection=url or None))


def main(role: str, folder: str, port: int, url: str) -> None:
    home = OpenHome(Path(folder))
    log.setup(home.path / "logs", role)
    if role == "api":
        program.serve_api(home, config(port, url), sockets=program.sockets(config(port, url)), node_hosts=())
    else:
        program.run_worker(home, config(port, url))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
