"""A whole cloud in the test's process: real HTTP on loopback, SQLite in a temporary folder, the real worker and loops, nodes with fake
drivers behind the real node API. Tests talk to it with the clients that users have."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openstack
import pytest
import uvicorn

import postgres
from fake_node import FakeNode
from nacre import identity, network, program
from nacre.core import ids, schema
from nacre.core.bells import Bells
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.config import Config, Home, Identity
from nacre.core.db import Database
from nacre.core.loops import Loops
from nacre.core.worker import Worker


class TestHome(Home):
    """A home that everybody can walk to: reach is the path itself."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reach = self.path


@dataclass
class Running:
    """`url` of the API; clients made on demand; `cloud` for looking behind (never for what a test asserts about the API)."""

    url: str
    cloud: Cloud

    def connect(self, user: str = "admin", project: str = "", password: str = "secret") -> Any:
        """An unmodified openstacksdk connection."""
        return openstack.connect(
            load_yaml_config=False, load_envvars=False, auth_url=f"{self.url}/identity/v3", username=user, password=password,
            project_name=project or user, user_domain_id="default", project_domain_id="default", region_name="RegionOne",
        )  # fmt: skip

    def token(self, user: str = "admin", project: str = "", password: str = "secret") -> str:
        domain = {"domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": {"name": user, "password": password, **domain}}}
        body = {"auth": {"identity": identity, "scope": {"project": {"name": project or user, **domain}}}}
        answer = httpx.post(f"{self.url}/identity/v3/auth/tokens", json=body)
        assert answer.status_code == 201, answer.text
        return answer.headers["x-subject-token"]

    def http(self, user: str = "admin", project: str = "", **headers: str) -> httpx.Client:
        """Plain HTTP with a token, for what clients cannot be made to send."""
        return httpx.Client(base_url=self.url, headers={"x-auth-token": self.token(user, project), **headers}, timeout=30)


def make_home(path: Path) -> Home:
    home = TestHome(path)
    for name in ("db", "keys", "images", "run/bells", "run/node", "logs"):
        (path / name).mkdir(parents=True)
    return home


def make_cloud(path: Path, config: Config | None = None, database: str = "") -> Cloud:
    home, config = make_home(path), config or Config(identity=Identity(password_hash_rounds=4))
    bells = Bells(None)
    cloud = Cloud(home=home, config=config, bells=bells, db=Database(database or home.database_url, bells.ring),
                  policies=program.policies(home), authenticate=identity.authenticate,
                  services={service.name: service for service in program.SERVICES}, project_deleted=program.PROJECT_DELETED)  # fmt: skip
    schema.upgrade(cloud.db)
    return cloud


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=("sqlite", "postgresql"), default="sqlite", help="what the clouds of the tests keep their state in")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has no cloud is the same whatever clouds keep their state in."""
    if config.getoption("--database") == "sqlite":
        return
    kept = [item for item in items if "fresh_database" in getattr(item, "fixturenames", ())]
    alike = set(items) - set(kept)
    config.hook.pytest_deselected(items=list(alike))
    items[:] = kept


@pytest.fixture(scope="session")
def fresh_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Gives the URL of an empty database: "" for SQLite in the cloud's own home."""
    if request.config.getoption("--database") == "sqlite":
        yield lambda: ""
        return
    with postgres.cluster() as started:
        yield started.fresh


@contextmanager
def started(path: Path, config: Config | None = None, database: str = "") -> Iterator[Running]:
    """A cloud with the API, a worker and its loops, in `path`."""
    cloud = make_cloud(path, config, database)
    listener = socket.create_server(("127.0.0.1", 0))
    cloud.public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with cloud.db.write(System(ids.request_id())) as tx:
        identity.bootstrap(tx, cloud, {"admin": "secret", "demo": "secret"}, program.SERVICES)
        network.bootstrap(tx)
    with served(cloud, listener) as found:
        yield found


@contextmanager
def served(cloud: Cloud, listener: socket.socket) -> Iterator[Running]:
    """What runs in a cloud that has everything it begins with."""
    server = uvicorn.Server(uvicorn.Config(program.app(cloud), log_config=None, lifespan="off", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    worker, loops = Worker(cloud, "test"), Loops(cloud, program.LOOPS, "test")
    thread.start()
    worker.start()
    loops.start()
    yield Running(cloud.public_url, cloud)
    loops.stop()
    worker.stop()
    server.should_exit = True
    thread.join(10)
    cloud.db.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Running]:
    """An all-in-one; add `node` for a fake compute host."""
    with started(tmp_path_factory.mktemp("home") / "cloud", database=fresh_database()) as found:
        yield found


@pytest.fixture(scope="module")
def node(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    """A compute host `nacre-1` with fake drivers, ready to take servers."""
    started = FakeNode(running.cloud, "nacre-1", tmp_path_factory.mktemp("node")).start()
    yield started
    started.stop()
