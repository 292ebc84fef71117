"""A PostgreSQL that goes away: requests say so in their service's words or wait, tasks go on by themselves, nothing acknowledged is lost."""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

import postgres
from conftest import make_cloud
from core import durability as harness
from core import test_tasks as toy
from fake_node import FakeNode, until
from nacre.core import ids, worker
from nacre.core.db import Unreachable
from services.processes import HEADERS, Processes, fake_host, made, network, order, processes, servers

pytestmark = pytest.mark.services
SAYS = "does not answer at the moment"
ASKED = {"/compute/v2.1/servers": "serviceUnavailable", "/network/v2.0/networks": "NeutronError", "/image/v2/images": "error",
         "/identity/v3/projects": "error", "/placement/resource_providers": "errors"}  # fmt: skip


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("lost")) as made:
        yield made


@pytest.fixture(scope="module")
def node(cloud: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    with fake_host(cloud, tmp_path_factory.mktemp("node")) as started:
        yield started


class Writers:
    """Make ports from many threads at both apis until the end of the block; `acknowledged` are those that a 201 told of."""

    def __init__(self, cloud: Processes, network_id: str, number: int = 6) -> None:
        self.cloud, self.body = cloud, {"port": {"network_id": network_id, "project_id": ids.hex_id()}}
        self.acknowledged, self.answers = list[str](), Counter[int]()
        self.enough = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(cloud.clients[n % 2],)) for n in range(number)]
        self.slowest = 0.0

    def _write(self, client: httpx.Client) -> None:
        while not self.enough.wait(0.02):
            begun = time.monotonic()
            answer = client.post("/network/v2.0/ports", json=self.body)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.answers[answer.status_code] += 1
            if answer.status_code == 201:
                self.acknowledged.append(answer.json()["port"]["id"])
            else:
                assert SAYS in answer.text, answer.text

    def __enter__(self) -> "Writers":
        assert self.cloud.clients[0].put(f"/network/v2.0/quotas/{self.body['port']['project_id']}", json={"quota": {"port": -1}}).status_code == 200
        for thread in self.threads:
            thread.start()
        try:
            until(lambda: len(self.acknowledged) > 10, 60)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join()

    def listed(self) -> set[str]:
        query = {"project_id": self.body["port"]["project_id"], "fields": "id"}
        return {port["id"] for port in self.cloud.clients[1].get("/network/v2.0/ports", params=query).json()["ports"]}


def pids(cloud: Processes) -> list[int | None]:
    """Of what still runs."""
    return [process.pid if process.poll() is None else None for process in cloud.running]


def works(cloud: Processes) -> bool:
    return all(client.get(path).status_code == 200 for client in cloud.clients for path in ASKED)


def test_a_server_stopped_for_ten_seconds(cloud: Processes, node: FakeNode) -> None:
    before = pids(cloud)
    with Writers(cloud, network(cloud, "10.31.0.0/16")) as writers:
        cloud.cluster.stop("fast")
        stopped = time.monotonic()
        for client in cloud.clients:
            for path, key in ASKED.items():
                answer = client.get(path)
                assert answer.status_code == 503 and SAYS in answer.text and key in answer.json(), answer.text
        assert not any(word in answer.text for word in ("psycopg", "postgres", str(cloud.cluster.folder)))
        signed_in = cloud.clients[0].post("/identity/v3/auth/tokens", json={"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": "admin", "password": "secret", "domain": {"id": "default"}}}}}})  # fmt: skip
        assert signed_in.status_code == 503 and SAYS in signed_in.json()["error"]["message"]
        time.sleep(max(0.0, 10 - (time.monotonic() - stopped)))
        had = len(writers.acknowledged)
        cloud.cluster.start()
        until(lambda: len(writers.acknowledged) > had + 10, 60)
    assert set(writers.acknowledged) <= writers.listed()
    assert set(writers.answers) == {201, 503} and writers.slowest < 10
    assert works(cloud) and pids(cloud) == before, "nobody died of it"


def test_connections_killed_under_load(cloud: Processes, node: FakeNode) -> None:
    before, body = pids(cloud), order(cloud)
    body["server"]["name"] = "through the storm"
    with Writers(cloud, network(cloud, "10.32.0.0/16")) as writers:
        asked, had, limit = list[str](), len(writers.acknowledged), time.monotonic() + 120
        while len(asked) < 4 or len(writers.acknowledged) < had + 20 or not writers.answers[503]:
            assert time.monotonic() < limit, writers.answers
            kill_connections(cloud)
            if len(asked) < 4:
                answer = cloud.clients[len(asked) % 2].post("/compute/v2.1/servers", json=body, headers=HEADERS)
                assert answer.status_code in (202, 503), answer.text
                asked += [answer.json()["server"]["id"]] if answer.status_code == 202 else []
            time.sleep(0.25)
    assert set(writers.acknowledged) <= writers.listed()
    assert set(writers.answers) == {201, 503}
    until(lambda: all(server["status"] != "BUILD" for server in servers(cloud)), 120, 0.2)
    found = {server["id"]: (server["status"], server.get("fault")) for server in servers(cloud)}
    assert {found[server_id] for server_id in asked} == {("ACTIVE", None)}, "a lost connection is no failure of a task"
    assert works(cloud) and pids(cloud) == before


def kill_connections(cloud: Processes) -> None:
    cloud.cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{cloud.database}'")


def test_a_server_that_hangs_is_waited_for(cloud: Processes) -> None:
    network_id = network(cloud, "10.33.0.0/24")
    servers_of = backends(cloud)
    for pid in servers_of:
        os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(cloud.clients[n % 2].post, "/network/v2.0/ports", json={"port": {"network_id": network_id}}) for n in range(4)]
            time.sleep(3)
            assert not any(future.done() for future in asked)
            for pid in reversed(servers_of):
                os.kill(pid, signal.SIGCONT)
            assert [made(future.result(30), "port")["status"] for future in asked] == ["DOWN"] * 4
    finally:
        for pid in servers_of:
            os.kill(pid, signal.SIGCONT)


def backends(cloud: Processes) -> list[int]:
    """The server's processes: the first, and its children."""
    first = int((cloud.cluster.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    with open(f"/proc/{first}/task/{first}/children") as file:
        return [first, *map(int, file.read().split())]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[toy.Toybox]:
    with postgres.cluster() as cluster:
        made = make_cloud(tmp_path_factory.mktemp("toys") / "cloud", database=cluster.fresh())
        toy.toys.create(made.db.engine)
        made.memory["wet"] = set()
        yield toy.Toybox(made)
        made.db.close()


class Storm:
    """Ends the connection at the n-th statement of a worker, once."""

    def __init__(self, box: toy.Toybox, at: int) -> None:
        self.box, self.at, self.count, self.struck = box, at, itertools.count(1), False
        sa.event.listen(box.cloud.db.engine, "before_cursor_execute", self)

    def __call__(self, conn: sa.Connection, *_: Any) -> None:
        if next(self.count) == self.at:
            self.struck = True
            other = self.box.cloud.db.dial()
            other.execute("SELECT pg_terminate_backend(%s)", [conn.connection.dbapi_connection.info.backend_pid])
            other.close()

    def over(self) -> None:
        sa.event.remove(self.box.cloud.db.engine, "before_cursor_execute", self)


@pytest.mark.parametrize("well", [True, False], ids=["a task that goes well", "a task that is undone"])
def test_a_connection_lost_at_any_statement_of_a_task(box: toy.Toybox, well: bool) -> None:
    stage = harness.Stage(box.cloud, box.act, refuse=set() if well else {"ensure_toy"})
    for at in itertools.count(1, 2 if well else 3):  # a step has more statements than that
        made_toy = toy.begin(box)
        storm = Storm(box, at)
        turns = _settle(stage)
        storm.over()
        toy.check(box, made_toy, well)
        if not storm.struck:
            break
        assert turns
    assert at > 30


def _settle(stage: harness.Stage) -> int:
    """As one thread of a worker does it; the node's own turn is not disturbed by more than a repetition."""
    for turn in range(200):
        moved = _calm(lambda: worker.run_one(stage.cloud, "worker/0", harness.WHO))
        if not _calm(lambda: stage.act(stage)) and not moved:
            return turn + 1
    raise AssertionError("it never comes to rest")


def _calm(turn: Callable[[], bool]) -> bool:
    try:
        return turn()
    except Unreachable:
        return True
