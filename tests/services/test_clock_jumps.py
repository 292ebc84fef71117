"""The wall clock of our processes jumps by hours while everything that waits is open: nothing fails, ends or begins because of it, but
what the wall clock decides, a token's life. The clock of a PostgreSQL is its own and does not jump with theirs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import postgres
from fake_node import until
from nacre.core import ids, nodes
from nacre.core.caller import System
from services.processes import HEADERS, Pair, order

pytestmark = [pytest.mark.services, pytest.mark.long]
LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Clock:
    """What the wall clock of the processes shows beside the real one: "+3h", "-3h"."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.replace(self.file)

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0"}  # fmt: skip


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    with postgres.cluster() as cluster:
        yield cluster.fresh()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, clock: Clock, url: str) -> Iterator[Pair]:
    clock.set("+0")
    with Pair(tmp_path_factory.mktemp("pair"), url, env=clock.env) as made:
        made.client.headers.update(HEADERS)
        yield made


@pytest.fixture(scope="module")
def body(cloud: Pair) -> dict[str, Any]:
    return order(cloud)


def create(cloud: Pair, body: dict[str, Any]) -> str:
    asked = cloud.client.post("/compute/v2.1/servers", json=body)
    assert asked.status_code == 202, asked.text
    return str(asked.json()["server"]["id"])


def server(cloud: Pair, server_id: str) -> dict[str, Any]:
    answer = cloud.client.get(f"/compute/v2.1/servers/{server_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["server"]
    return found


def always_up(cloud: Pair, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = {entry["state"] for entry in cloud.client.get("/compute/v2.1/os-services").json()["services"]}
        agents = {entry["alive"] for entry in cloud.client.get("/network/v2.0/agents").json()["agents"]}
        assert (states, agents) == ({"up"}, {True})
        time.sleep(0.2)


def test_the_clock_is_theirs_alone(cloud: Pair, clock: Clock) -> None:
    """The tests would prove nothing if it did not jump, or if what must not jump did."""
    clock.set("+2h")
    cloud.sign_in()
    network = cloud.client.post("/network/v2.0/networks", json={"network": {"name": "late"}}).json()["network"]
    ahead = time.mktime(time.strptime(network["created_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
    assert 7000 < ahead < 7400, network["created_at"]
    clock.set("+0")
    cloud.sign_in()


@pytest.mark.parametrize("jump", ["+3h", "-3h"])
def test_work_goes_on_over_a_jump(cloud: Pair, clock: Clock, body: dict[str, Any], jump: str) -> None:
    clock.set("+0")
    cloud.sign_in()
    with cloud.inside.db.write(System(ids.request_id())) as tx:
        waits = nodes.call(tx, "elsewhere", nodes.NewCall("ensure_power", {"server_id": ids.uuid()}, 30.0))  # no such host: open until late
    cloud.node.hypervisor.delay = 1.0
    try:
        asked = [create(cloud, body) for _ in range(2)]
        until(lambda: all(server(cloud, one)["OS-EXT-STS:task_state"] == "spawning" for one in asked))
        clock.set(jump)
        cloud.sign_in()
        always_up(cloud, 4)
        until(lambda: all(server(cloud, one)["status"] != "BUILD" for one in asked), 30)
    finally:
        cloud.node.hypervisor.delay = 0
    assert [(server(cloud, one)["status"], server(cloud, one).get("fault")) for one in asked] == [("ACTIVE", None)] * 2
    with cloud.inside.db.read() as conn:
        assert nodes.outcome(conn, waits)[0] == "open", "its half minute is not over"
    cloud.node.hypervisor.turn_off(asked[0])  # behind our back, after a move that the clock may show to be later
    until(lambda: server(cloud, asked[0])["status"] == "SHUTOFF", 40, 0.2)
    assert server(cloud, asked[1])["status"] == "ACTIVE"
    clock.set("+0")
    cloud.sign_in()
    always_up(cloud, 1)
    for one in asked:
        assert cloud.client.delete(f"/compute/v2.1/servers/{one}").status_code == 204
        until(lambda one=one: cloud.client.get(f"/compute/v2.1/servers/{one}").status_code == 404)


def test_tokens_live_by_the_wall_clock(cloud: Pair, clock: Clock) -> None:
    clock.set("+0")
    cloud.sign_in()
    clock.set("-3h")
    assert cloud.client.get("/compute/v2.1/servers").status_code == 200
    clock.set("+30h")
    assert cloud.client.get("/compute/v2.1/servers").status_code == 401
    cloud.sign_in()
    assert cloud.client.get("/compute/v2.1/servers").status_code == 200
    clock.set("+0")
