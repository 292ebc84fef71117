"""What several do to the directory at once: each ends as if one had come after the other, and nobody sees a 500."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.directory_client import V3, make

THREADS = 6


@pytest.fixture(scope="module")
def clients(running: Running) -> Iterator[list[httpx.Client]]:
    opened = [running.http() for _ in range(THREADS)]
    yield opened
    for one in opened:
        one.close()


def together(clients: list[httpx.Client], *asks: Callable[[httpx.Client], httpx.Response]) -> list[int]:
    with ThreadPoolExecutor(THREADS) as pool:
        started = [pool.submit(ask, clients[number % THREADS]) for number, ask in enumerate(asks)]
        return [each.result().status_code for each in started]


def test_implications_never_close_a_circle(clients: list[httpx.Client]) -> None:
    for turn in range(3):
        roles = [make(clients[0], "roles", "role", name=f"ring-{turn}-{number}")["id"] for number in range(THREADS)]

        def imply(client: httpx.Client, number: int, roles: list[str] = roles) -> httpx.Response:
            return client.put(f"{V3}/roles/{roles[number]}/implies/{roles[(number + 1) % THREADS]}")

        asks = [lambda client, number=number: imply(client, number) for number in range(THREADS)]
        assert sorted(together(clients, *asks)) == [201] * (THREADS - 1) + [400], "the last one would close it"


def test_nothing_is_enabled_below_what_is_disabled(clients: list[httpx.Client]) -> None:
    admin, projects = clients[0], f"{V3}/projects"
    parent = make(admin, "projects", "project", name="parent")["id"]
    child = make(admin, "projects", "project", name="child", parent_id=parent)["id"]

    def turn(project: str, *, enabled: bool) -> Callable[[httpx.Client], httpx.Response]:
        return lambda client: client.patch(f"{projects}/{project}", json={"project": {"enabled": enabled}})

    for _ in range(5):
        assert turn(child, enabled=False)(admin).status_code == 200
        told = together(clients, turn(parent, enabled=False), turn(child, enabled=True))
        assert sorted(told) == [200, 403]
        assert turn(parent, enabled=True)(admin).status_code == 200


def test_a_project_that_goes_gets_no_child(clients: list[httpx.Client]) -> None:
    admin = clients[0]
    for number in range(5):
        parent = make(admin, "projects", "project", name=f"goes-{number}")["id"]
        body = {"project": {"name": f"late-{number}", "parent_id": parent}}
        told = together(clients, lambda client, at=parent: client.delete(f"{V3}/projects/{at}"),
                        lambda client, said=body: client.post(f"{V3}/projects", json=said))  # fmt: skip
        assert told in ([204, 404], [403, 201])


def test_the_same_by_many(clients: list[httpx.Client]) -> None:
    admin = clients[0]
    project, role = make(admin, "projects", "project", name="many")["id"], make(admin, "roles", "role", name="many")["id"]
    user = make(admin, "users", "user", name="many")["id"]
    service = make(admin, "services", "service", type="many")["id"]
    grant = f"{V3}/OS-INHERIT/projects/{project}/users/{user}/roles/{role}/inherited_to_projects"
    registered = {"registered_limits": [{"service_id": service, "resource_name": "x", "default_limit": 1}]}
    asks: list[tuple[Any, list[int]]] = [
        (lambda client: client.put(grant), [204] * THREADS),
        (lambda client: client.put(f"{V3}/projects/{project}/tags/word"), [201] * THREADS),
        (lambda client: client.put(f"{V3}/projects/{project}/tags", json={"tags": ["a", "b"]}), [200] * THREADS),
        (lambda client: client.post(f"{V3}/registered_limits", json=registered), [201] + [409] * (THREADS - 1)),
        (lambda client: client.post(f"{V3}/roles", json={"role": {"name": "once"}}), [201] + [409] * (THREADS - 1)),
        (lambda client: client.post(f"{V3}/roles", json={"role": {"name": "once", "domain_id": "default"}}), [201] + [409] * (THREADS - 1)),
    ]
    for ask, wanted in asks:
        assert sorted(together(clients, *[ask] * THREADS)) == wanted
