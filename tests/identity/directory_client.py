"""What tests of the directory say most often."""

from typing import Any

import httpx

from conftest import Running

V3 = "/identity/v3"


def make(client: httpx.Client, plural: str, word: str, **said: Any) -> dict[str, Any]:
    answer = client.post(f"{V3}/{plural}", json={word: said})
    assert answer.status_code == 201, answer.text
    return answer.json()[word]


def login(running: Running, user: dict[str, Any], password: str, scope: Any = None) -> httpx.Response:
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": {"id": user["id"], "password": password}}}}
    return httpx.post(f"{running.url}{V3}/auth/tokens", json={"auth": auth | ({"scope": scope} if scope else {})}, timeout=30)


def scope_of(word: str, one: dict[str, Any]) -> dict[str, Any]:
    return {word: {"id": one["id"]}}


def roles_in(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 201, answer.text
    return [role["name"] for role in answer.json()["token"]["roles"]]


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]
