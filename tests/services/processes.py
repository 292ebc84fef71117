"""Two api and two worker processes of one cloud on one PostgreSQL, and a fake compute host."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import postgres
from conftest import make_home
from fake_node import FakeNode, until
from nacre import program
from nacre.core import tls
from nacre.core.config import Home
from nacre.core.postgresql import History
from services.process import config

HEADERS = {"openstack-api-version": "compute 2.90"}


class Processes:
    """`clients` has one for each api process; `running` are the apis, then the workers."""

    def __init__(self, folder: Path, cluster: postgres.Postgres) -> None:
        self.home, self.cluster, self.url = make_home(folder / "cloud"), cluster, cluster.fresh()
        self.database = self.url.partition("@/")[2].partition("?")[0]
        self.ports = [free_port(), free_port()]
        keys = self.home.path / "keys"
        self.authority = tls.Pair(folder / "ca.key", folder / "ca.pem")
        tls.ensure(self.authority, tls.Pair(keys / "server.key", keys / "server.crt"), ["127.0.0.1"], (os.geteuid(), os.getegid()))
        program.prepare(self.home, config(self.ports[0], self.url), {"admin": "secret", "demo": "secret"}, History())
        trust = ssl.create_default_context(cafile=folder / "ca.pem")
        self.clients = [httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, timeout=60) for port in self.ports]
        self.running = [self._start("api", port) for port in self.ports] + [self._start("worker", self.ports[0]) for _ in range(2)]

    def sign_in(self) -> None:
        """At both apis, as soon as they answer."""
        token = ""
        for client in self.clients:
            until(lambda client=client: _answers(client), 120, 0.2)
            token = token or self._token(client)
            client.headers["x-auth-token"] = token

    def _start(self, role: str, port: int) -> subprocess.Popen[bytes]:
        return start(role, self.home, port, self.url)

    def _token(self, client: httpx.Client) -> str:
        domain = {"domain": {"id": "default"}}
        who = {"methods": ["password"], "password": {"user": {"name": "admin", "password": "secret", **domain}}}
        answer = client.post("/identity/v3/auth/tokens", json={"auth": {"identity": who, "scope": {"project": {"name": "admin", **domain}}}})
        self.project = answer.json()["token"]["project"]["id"]
        return str(answer.headers["x-subject-token"])

    def at_once(self, number: int, ask: Callable[[httpx.Client, int], Any]) -> list[Any]:
        """Half of them at each api."""
        return at_once(self.clients, number, ask)

    def stop(self) -> None:
        end(self.running)


def at_once(clients: Sequence[httpx.Client], number: int, ask: Callable[[httpx.Client, int], Any]) -> list[Any]:
    """What `ask(client, n)` gives to `number` callers that begin together."""
    begin = threading.Barrier(number)

    def one(n: int) -> Any:
        begin.wait(30)
        return ask(clients[n % len(clients)], n)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def start(role: str, home: Home, port: int, url: str = "", *, before: Sequence[str] = (),
          env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:  # fmt: skip
    """One process of a cloud (process.py), run by `before`."""
    words = [*before, sys.executable, str(Path(__file__).with_name("process.py")), role, str(home.path), str(port), url]
    tests = Path(__file__).resolve().parents[1]
    with open(home.path / "logs" / f"{role}.err", "ab") as output:
        return subprocess.Popen(words, stdout=output, stderr=output,
                                env={**os.environ, "PYTHONPATH": f"{tests.parent / 'src'}:{tests}", **(env or {})})  # fmt: skip


class Pair:
    """An api and a worker of one cloud on the database `url` (empty: SQLite), run by `before` and with `env`; and a fake compute host, in
    this process."""

    def __init__(self, folder: Path, url: str = "", *, before: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self.home, port, keys = make_home(folder / "cloud"), free_port(), folder / "cloud" / "keys"
        tls.ensure(tls.Pair(folder / "ca.key", folder / "ca.pem"), tls.Pair(keys / "server.key", keys / "server.crt"), ["127.0.0.1"],
                   (os.geteuid(), os.getegid()))  # fmt: skip
        program.prepare(self.home, config(port, url), {"admin": "secret", "demo": "secret"}, History())
        trust = ssl.create_default_context(cafile=folder / "ca.pem")
        self.client = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, timeout=90)
        self.clients = [self.client]
        self.running = [start(role, self.home, port, url, before=before, env=env) for role in ("api", "worker")]
        self.inside = program.make_cloud(self.home, config(port, url), "test")
        self.node = FakeNode(self.inside, "nacre-1", folder / "node")

    def sign_in(self) -> None:
        domain = {"domain": {"id": "default"}}
        who = {"methods": ["password"], "password": {"user": {"name": "admin", "password": "secret", **domain}}}
        asked = {"auth": {"identity": who, "scope": {"project": {"name": "admin", **domain}}}}
        answer = self.client.post("/identity/v3/auth/tokens", json=asked)
        assert answer.status_code == 201, answer.text
        self.client.headers["x-auth-token"] = answer.headers["x-subject-token"]

    def __enter__(self) -> "Pair":
        try:
            until(lambda: _answers(self.client), 120, 0.2)
            self.sign_in()
            self.node.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.node.stop()
        end(self.running)
        self.inside.bells.close()
        self.inside.db.close()


def end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/identity/v3").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    with postgres.cluster() as cluster:
        cloud = Processes(folder, cluster)
        try:
            cloud.sign_in()
            yield cloud
        finally:
            cloud.stop()


@contextmanager
def fake_host(cloud: Processes, folder: Path) -> Iterator[FakeNode]:
    inside = program.make_cloud(cloud.home, config(cloud.ports[0], cloud.url), "test")
    started = FakeNode(inside, "nacre-1", folder).start()
    yield started
    started.stop()
    inside.bells.close()
    inside.db.close()


def made(answer: httpx.Response, kind: str) -> dict[str, Any]:
    assert answer.status_code in (200, 201, 202), answer.text
    found: dict[str, Any] = answer.json()[kind]
    return found


def order(cloud: Any) -> dict[str, Any]:
    """The body of a small server."""
    client = cloud.clients[0]
    image = client.post("/image/v2/images", json={"name": "disk", "disk_format": "raw", "container_format": "bare"}).json()
    put = client.put(f"/image/v2/images/{image['id']}/file", content=b"\0" * 4096, headers={"content-type": "application/octet-stream"})
    assert put.status_code == 204, put.text
    flavor = made(client.post("/compute/v2.1/flavors", json={"flavor": {"name": "nano", "ram": 64, "vcpus": 1, "disk": 1}}), "flavor")
    return {"server": {"name": "one", "imageRef": image["id"], "flavorRef": flavor["id"], "networks": "none"}}


def servers(cloud: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.clients[1].get("/compute/v2.1/servers/detail", headers=HEADERS).json()["servers"]
    return found


def network(cloud: Processes, cidr: str) -> str:
    """A shared network with one subnet and no port of its own."""
    client = cloud.clients[0]
    network_id = made(client.post("/network/v2.0/networks", json={"network": {"name": cidr, "shared": True}}), "network")["id"]
    subnet = {"network_id": network_id, "cidr": cidr, "ip_version": 4, "enable_dhcp": False}
    made(client.post("/network/v2.0/subnets", json={"subnet": subnet}), "subnet")
    return str(network_id)


def addresses(cloud: Any, network_id: str) -> list[str]:
    ports = cloud.clients[0].get("/network/v2.0/ports", params={"network_id": network_id}).json()["ports"]
    return [fixed["ip_address"] for port in ports for fixed in port["fixed_ips"]]
