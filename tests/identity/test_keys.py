"""Keys are rotated under running processes: nobody has to sign in again, nothing that was sealed is lost, and old keys go in the end."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from conftest import Running
from identity.people import V3
from nacre import identity, program
from nacre.core import clock


@pytest.fixture(scope="module")
def other(running: Running) -> Iterator[TestClient]:
    """A second API process, as far as what it remembers goes."""
    second = dataclasses.replace(running.cloud, memory={})
    with TestClient(program.app(second), base_url=running.url) as client:
        yield client


def numbers(running: Running, table: str) -> list[int]:
    with running.cloud.db.read() as conn:
        return [row[0] for row in conn.execute(sa.text(f"SELECT number FROM {table} ORDER BY number"))]


def test_tokens_outlive_their_key_in_every_process(running: Running, other: TestClient) -> None:
    old = {"x-auth-token": running.token("demo")}
    assert other.get(f"{V3}/auth/catalog", headers=old).status_code == 200
    for expected in (2, 3):
        told = identity.rotate_keys(running.cloud, of_credentials=False)
        assert (told["key"], told["honoured"], told["gone"]) == (expected, list(range(1, expected)), 0)
        new = {"x-auth-token": running.token("demo")}
        for headers in (old, new):
            assert other.get(f"{V3}/auth/catalog", headers=headers).status_code == 200
            with running.http() as admin:
                assert admin.get(f"{V3}/auth/tokens", headers={"x-subject-token": headers["x-auth-token"]}).status_code == 200


def test_programs_that_are_remembered_sign_with_the_new_key(running: Running, other: TestClient) -> None:
    with running.http() as admin:
        user = admin.get(f"{V3}/auth/tokens", headers={"x-subject-token": admin.headers["x-auth-token"]}).json()["token"]["user"]["id"]
        said = admin.post(f"{V3}/users/{user}/application_credentials", json={"application_credential": {"name": "keys"}}).json()
    made = {name: said["application_credential"][name] for name in ("id", "secret")}
    body = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": made}}}
    for _ in range(2):
        token = {"x-auth-token": other.post(f"{V3}/auth/tokens", json=body).headers["x-subject-token"]}
        identity.rotate_keys(running.cloud, of_credentials=False)
        with running.http() as admin:
            assert admin.get(f"{V3}/auth/catalog", headers=token).status_code == 200


def test_a_key_goes_when_its_last_token_is_over(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    identity.rotate_keys(running.cloud, of_credentials=False)
    before, token = numbers(running, "fernet_keys"), {"x-auth-token": running.token("demo")}
    nearly = clock.utcnow() + timedelta(days=2, minutes=59)
    monkeypatch.setattr(clock, "utcnow", lambda: nearly)
    assert identity.rotate_keys(running.cloud, of_credentials=False)["gone"] == 0
    after = nearly + timedelta(minutes=2)
    monkeypatch.setattr(clock, "utcnow", lambda: after)
    told = identity.rotate_keys(running.cloud, of_credentials=False)
    assert told["gone"] == len(before) - 1 and before[-1] in told["honoured"], "the one that signed until the day before yesterday stays"
    with running.http() as admin:
        assert admin.get(f"{V3}/auth/catalog", headers=token).status_code == 401


def test_credentials_are_sealed_anew(running: Running, other: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with running.http("demo") as demo:
        made = [demo.post(f"{V3}/credentials", json={"credential": {"type": "cert", "blob": f"secret {n}"}}).json()["credential"] for n in range(3)]

        def told() -> list[str]:
            return [other.get(f"{V3}/credentials/{one['id']}", headers=dict(demo.headers)).json()["credential"]["blob"] for one in made]

        def sealed() -> list[str]:
            with running.cloud.db.read() as conn:
                return [row[0] for row in conn.execute(sa.text("SELECT sealed FROM identity_credentials ORDER BY id"))]

        wanted, first = [f"secret {n}" for n in range(3)], sealed()
        assert told() == wanted
        done = identity.rotate_keys(running.cloud, of_credentials=True)
        assert (done["key"], done["sealed"], done["gone"]) == (1, 3, 0) and not set(first) & set(sealed())
        assert told() == wanted
        assert identity.rotate_keys(running.cloud, of_credentials=True)["sealed"] == 3
        later = clock.utcnow() + timedelta(minutes=50)
        monkeypatch.setattr(clock, "utcnow", lambda: later)
        assert identity.rotate_keys(running.cloud, of_credentials=True)["honoured"] == [1, 2]
        latest = later + timedelta(minutes=15)
        monkeypatch.setattr(clock, "utcnow", lambda: latest)
        done = identity.rotate_keys(running.cloud, of_credentials=True)
        assert (done["key"], done["honoured"], done["gone"]) == (4, [2, 3], 1)
    with running.http("demo") as demo:
        assert told() == wanted
    with running.cloud.db.read() as conn:
        assert "secret" not in str(conn.execute(sa.text("SELECT * FROM journal")).all())
