"""Many writers in threads of one process, on the database that the tests run with."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from fake_node import FakeNode
from races.scenarios import *  # noqa: F403
from services.processes import at_once
from services.processes import order as make_order


class Threads:
    """`clients`: two, for one api."""

    def __init__(self, running: Running) -> None:
        token = running.token()
        self.clients = [httpx.Client(base_url=running.url, headers={"x-auth-token": token}, timeout=60) for _ in range(2)]
        self.project = next(one["id"] for one in self.clients[0].get("/identity/v3/auth/projects").json()["projects"] if one["name"] == "admin")

    def at_once(self, number: int, ask: Callable[[httpx.Client, int], Any]) -> list[Any]:
        return at_once(self.clients, number, ask)


@pytest.fixture(scope="module")
def cloud(running: Running) -> Iterator[Threads]:
    made = Threads(running)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture(scope="module")
def order(cloud: Threads, node: FakeNode) -> dict[str, Any]:
    return make_order(cloud)
