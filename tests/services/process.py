"""`process.py api|worker HOME PORT URL`: one real process of a cloud on PostgreSQL, without the privileges that the supervisor would drop."""

import socket
import sys
from pathlib import Path

from conftest import TestHome
from nacre import program
from nacre.core import log
from nacre.core.config import Config, Database, Nacre


def config(port: int, url: str) -> Config:
    return Config(nacre=Nacre(port=port), database=Database(connection=url))


def main(role: str, folder: str, port: int, url: str) -> None:
    home = TestHome(Path(folder))
    log.setup(home.path / "logs", role)
    if role == "api":
        program.serve_api(home, config(port, url), sockets=[socket.create_server(("127.0.0.1", port), backlog=256)], node_hosts=())
    else:
        program.run_worker(home, config(port, url))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
