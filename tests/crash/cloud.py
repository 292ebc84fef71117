"""A cloud of real processes on one pretended host, of which any may be killed, and what must be true when it has come to rest again."""

import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from conftest import make_home
from crash.points import Armed, Order, kill
from crash.process import HOST, OpenHome, command
from nacre import program
from nacre.cli import alive
from nacre.core import db
from nacre.core.config import load
from nacre.node.hypervisor.fake import Guest

ROLES = ("api", "worker", "node", "up")
# What is kept on purpose of what is gone, and what says nothing of it.
HISTORY = {"journal", "journal_cursors", "tasks", "task_steps", "node_calls", "leases", "hosts", "server_seen", "quota_projects", "server_decisions",
           "server_migrations"}  # fmt: skip
_AT_WORK = (
    "SELECT kind, state, waiting, attempt, owner FROM tasks WHERE finished_at IS NULL", "SELECT verb FROM node_calls WHERE state = 'open'",
    "SELECT d.kind, d.version, h.applied FROM documents d JOIN document_hosts h ON d.kind = h.kind AND d.id = h.id WHERE h.applied != d.version",
    "SELECT id, vm_state, task_state FROM servers WHERE task_state IS NOT NULL",
    "SELECT id, status FROM images WHERE upload IS NOT NULL OR status = 'importing'", "SELECT * FROM image_locations WHERE status = 'deleted'",
)  # fmt: skip
_PATIENCE = 60.0
_TIDY = 150.0  # the loop that removes what a dead api had begun to remove runs every two minutes
_OPTIONS = """[nacre]
port = {port}
hypervisor = "fake"
[DEFAULT]
enabled_backends = ["file:file", "second:file"]
[second]
filesystem_store_datadir = "second"
[import_filtering_opts]
allowed_hosts = ["127.0.0.1"]
allowed_ports = []
"""


class Lost(Exception):
    """Nobody knows whether the request was done."""


class Cloud:
    def __init__(self, folder: Path) -> None:
        make_home(folder)
        self.home = OpenHome(folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        (folder / "nacre.toml").write_text(_OPTIONS.format(port=self.port))
        self.config = load(folder / "nacre.toml")
        self.armed = Armed(folder / "run")
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.token, self.restarts = "", 0

    def tend(self) -> None:
        """Whoever runs the cloud types `up` again when the supervisor is dead."""
        if self.supervisor is None or self.supervisor.poll() is not None:
            self.restarts += self.supervisor is not None
            with open(self.home.path / "logs" / "up.err", "ab") as output:
                self.supervisor = subprocess.Popen(command(self.home, "up"), stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.supervisor is not None:
            self.supervisor.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.supervisor.wait(20)
        kill(self.home.path / "run", list(ROLES))

    # As a user

    def sign_in(self) -> None:
        domain = {"domain": {"id": "default"}}
        self.token = self.token_of({"name": "admin", "password": "secret", **domain}, {"project": {"name": "admin", **domain}})

    def token_of(self, user: Any, scope: Any) -> str:
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        with closing(self._connection()) as connection:
            connection.request("POST", "/identity/v3/auth/tokens", json.dumps(body))
            return str(connection.getresponse().headers["x-subject-token"])

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """(status, answer). Raises Lost."""
        headers = {"x-auth-token": token or self.token, "openstack-api-version": "compute 2.60", "content-type": "application/json"}
        if isinstance(body, bytes):
            headers["content-type"] = "application/octet-stream"
        with closing(self._connection()) as connection:
            try:
                connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body) if body is not None else None, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise Lost(f"{method} {path}: {error!r}") from error
        return answer.status, json.loads(content or b"null")

    def get(self, path: str) -> tuple[int, Any]:
        """Asked until somebody answers."""
        return until(lambda: self._got(path), f"an answer to {path}", self.tend)

    def bytes_of(self, path: str) -> bytes:
        """Data, asked for until it comes."""
        return bytes(until(lambda: self._data(path), f"the data of {path}", self.tend))

    def _data(self, path: str) -> bytes | None:
        with closing(self._connection()) as connection, suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers={"x-auth-token": self.token})
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else None
        return None

    def _got(self, path: str) -> tuple[int, Any] | None:
        with suppress(Lost):
            return self.ask("GET", path)
        return None

    def do(self, method: str, path: str, body: Any = None, done: Callable[[], Any] = lambda: None) -> Any:
        """The answer to a change, as a client gets it that has lost one: it looks whether the change is `done()`, else it asks again."""
        while True:
            self.tend()
            try:
                status, answer = self.ask(method, path, body)
            except Lost:
                if found := done():
                    return found
                time.sleep(0.05)
                continue
            assert status < 400, (method, path, status, answer)
            return answer

    # When it rests

    def rows(self, *queries: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.home.path}/db/nacre.db?mode=ro", uri=True, timeout=10)) as base:
            return [row for query in queries for row in base.execute(query)]

    def at_rest(self) -> bool:
        self.tend()
        return not self.unrest()

    def rests(self) -> None:
        until(self.at_rest, "rest", describe=lambda: str(self.unrest()), seconds=_TIDY)

    def unrest(self) -> list[Any]:
        """What the cloud is at, and who does not run."""
        dead = [f"no {role}" for role in ROLES if not alive.holder(self.home.path / "run", role)]
        return dead or self.rows(*_AT_WORK)

    def counted(self) -> dict[str, int]:
        """Rows of every table, without those of what was deleted."""
        counts = {}
        for name, table in db.metadata.tables.items():
            if name not in HISTORY:
                where = " WHERE deleted_at IS NULL" if "deleted_at" in table.c else ""
                counts[name] = self.rows(f"SELECT count(*) FROM {name}{where}")[0][0]
        properties = "SELECT count(*) FROM image_properties p JOIN images i ON i.id = p.image_id WHERE i.deleted_at IS NULL"
        counts["image_properties"] = self.rows(properties)[0][0]
        return counts | {"images' files": sum(path.is_file() and path.suffix != ".part" for path in self._files())}

    def _files(self) -> Iterator[Path]:
        return (path for store in ("images", "second") for path in (self.home.path / store).rglob("*"))

    def parts(self) -> list[Path]:
        """What uploads have sent so far; of those that died it goes within three minutes."""
        return [path for path in self._files() if path.suffix == ".part"]

    def differences(self) -> list[str]:
        """What `nacre doctor` says."""
        told = program.answer(self.home, self.config, "doctor", {"fix": False})["told"]
        return [f"{one['kind']} {one['what']}: {one['cause']}" for one in told["found"]]

    def guests(self) -> Mapping[str, Guest]:
        """As the host has them on its disk."""
        found = (self.home.host(1) / "node" / "guests").glob("*.json")
        return {path.stem: msgspec.json.decode(path.read_bytes(), type=Guest) for path in found}

    def wires(self) -> set[str]:
        return {path.name for path in (self.home.host(1) / "node" / "wires").glob("*.json")}


def until(what: Callable[[], Any], named: str, also: Callable[[], None] = lambda: None, describe: Callable[[], str] = lambda: "",
          seconds: float = _PATIENCE) -> Any:  # fmt: skip
    end = time.monotonic() + seconds
    while True:
        also()
        if found := what():
            return found
        assert time.monotonic() < end, f"{named} did not come: {describe()}"
        time.sleep(0.03)


class Standing:
    """What stands in the cloud all the while: an external network, a network behind a router, and a guest that nothing may disturb."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        image, self.data = self._made("/image/v2/images", {"name": "disk", "disk_format": "raw", "container_format": "bare"}), b"\0" * 4096
        cloud.do("PUT", f"/image/v2/images/{image['id']}/file", self.data)
        for name, ram in (("1", 64), ("2", 96)):
            self._made("/compute/v2.1/flavors", {"flavor": {"id": name, "name": name, "ram": ram, "vcpus": 1, "disk": 1}})
        physical = {"provider:network_type": "flat", "provider:physical_network": "external", "router:external": True}
        self.outside = self.network("network", name="outside", **physical)["id"]
        self.network("subnet", network_id=self.outside, ip_version=4, cidr="172.24.4.0/24", enable_dhcp=False)
        self.inside = self.network("network", name="inside")["id"]
        self.subnet = self.network("subnet", network_id=self.inside, ip_version=4, cidr="172.16.1.0/24")["id"]
        self.order = {"imageRef": image["id"], "flavorRef": "1", "networks": [{"uuid": self.inside}]}
        self.router = self.network("router", name="standing", external_gateway_info={"network_id": self.outside})["id"]
        cloud.do("PUT", f"/network/v2.0/routers/{self.router}/add_router_interface", {"subnet_id": self.subnet})
        self.bystander = self._made("/compute/v2.1/servers", {"server": {"name": "bystander", **self.order}})["server"]["id"]
        until(lambda: self.server(self.bystander)["status"] != "BUILD", "the bystander")
        assert self.server(self.bystander)["status"] == "ACTIVE", self.server(self.bystander)
        self.port = cloud.get(f"/network/v2.0/ports?device_id={self.bystander}")[1]["ports"][0]["id"]

    def _made(self, path: str, body: Any) -> Any:
        status, answer = self.cloud.ask("POST", path, body)
        assert status < 300, answer
        return answer

    def network(self, kind: str, **values: Any) -> Any:
        return self._made(f"/network/v2.0/{kind}s", {kind: values})[kind]

    def server(self, server_id: str) -> Any:
        status, answer = self.cloud.get(f"/compute/v2.1/servers/{server_id}")
        return answer["server"] if status == 200 else None

    def check(self) -> None:
        """The guest has run since it was made, and is what it was."""
        guest = self.cloud.guests()[self.bystander]
        assert (guest.power, guest.starts) == ("running", 1)
        shown = self.server(self.bystander)
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None), shown


@contextmanager
def started(folder: Path) -> Iterator[tuple[Cloud, Standing]]:
    cloud = Cloud(folder)
    try:
        cloud.tend()
        until(lambda: cloud._got("/identity/v3"), "the api", cloud.tend)
        cloud.sign_in()
        until(lambda: _offers(cloud), "the host")
        standing = Standing(cloud)
        cloud.rests()
        yield cloud, standing
    finally:
        cloud.stop()


def _offers(cloud: Cloud) -> bool:
    _, answer = cloud.get("/placement/resource_providers")
    offered, heard = "SELECT 1 FROM placement_inventories", "SELECT 1 FROM hosts WHERE last_seen IS NOT NULL"
    return HOST in [provider["name"] for provider in answer["resource_providers"]] and bool(cloud.rows(offered) and cloud.rows(heard))


__all__ = ["ROLES", "Cloud", "Lost", "Order", "Standing", "started", "until"]
