"""A disk that takes half a second to make anything certain: every change waits for it, and nothing fails or is lost because of that."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fake_node import until
from services.processes import HEADERS, Pair, order

pytestmark = [pytest.mark.services, pytest.mark.long]
DELAY = "500ms"
SLOW = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:delay_enter={DELAY}"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair"), before=SLOW) as made:
        made.client.headers.update(HEADERS)
        yield made


def test_many_changes_at_once_wait_their_turn_or_are_refused_in_time(cloud: Pair) -> None:
    def make(number: int) -> tuple[float, Any]:
        begun = time.monotonic()
        answer = cloud.client.post("/network/v2.0/networks", json={"network": {"name": f"n{number}"}})
        return time.monotonic() - begun, answer

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(make, range(60)))
    assert {answer.status_code for _, answer in answers} <= {201, 503}
    assert all("does not answer at the moment" in answer.text for _, answer in answers if answer.status_code == 503)
    assert max(took for took, _ in answers) < 60 and min(took for took, _ in answers) > 0.4
    acknowledged = {answer.json()["network"]["id"] for _, answer in answers if answer.status_code == 201}
    assert len(acknowledged) > 20
    assert acknowledged <= {entry["id"] for entry in cloud.client.get("/network/v2.0/networks").json()["networks"]}


def test_servers_are_made_and_hosts_stay_up(cloud: Pair) -> None:
    asked = cloud.client.post("/compute/v2.1/servers", json=order(cloud))
    assert asked.status_code == 202, asked.text
    path = f"/compute/v2.1/servers/{asked.json()['server']['id']}"
    until(lambda: cloud.client.get(path).json()["server"]["status"] != "BUILD", 60, 0.5)
    found = cloud.client.get(path).json()["server"]
    assert (found["status"], found.get("fault")) == ("ACTIVE", None)
    assert {entry["state"] for entry in cloud.client.get("/compute/v2.1/os-services").json()["services"]} == {"up"}
    assert cloud.client.delete(path).status_code == 204
    until(lambda: cloud.client.get(path).status_code == 404, 60, 0.5)
