"""Users for tests of who may what, and how they sign in: by HTTP, and by the unmodified command line client."""

import subprocess
from dataclasses import dataclass
from typing import Any

import httpx

from clients import client
from conftest import Running

V3 = "/identity/v3"


@dataclass
class Person:
    """A user with a project of the same name."""

    running: Running
    name: str
    id: str
    project_id: str
    password: str = "pw"

    @property
    def scope(self) -> dict[str, Any]:
        return {"project": {"id": self.project_id}}

    def login(self, scope: Any = None) -> httpx.Response:
        identity = {"methods": ["password"], "password": {"user": {"id": self.id, "password": self.password}}}
        return sign_in(self.running, identity, scope or self.scope)

    def http(self, scope: Any = None) -> httpx.Client:
        return with_token(self.running, token(self.login(scope)))

    def openstack(self, *words: str) -> str:
        """What the client prints. Fails the test when it is refused."""
        done = self.tried(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def tried(self, *words: str) -> subprocess.CompletedProcess[str]:
        return openstack(self.running, *words, OS_USERNAME=self.name, OS_PASSWORD=self.password, OS_PROJECT_ID=self.project_id,
                         OS_USER_DOMAIN_ID="default")  # fmt: skip


def person(running: Running, name: str, *roles: str) -> Person:
    """A new one with these roles."""
    with running.http() as admin:
        project = admin.post(f"{V3}/projects", json={"project": {"name": name}}).json()["project"]["id"]
        user = admin.post(f"{V3}/users", json={"user": {"name": name, "password": "pw"}}).json()["user"]["id"]
        known = {role["name"]: role["id"] for role in admin.get(f"{V3}/roles").json()["roles"]}
        for role in roles:
            assert admin.put(f"{V3}/projects/{project}/users/{user}/roles/{known[role]}").status_code == 204
    return Person(running, name, user, project)


def role_id(running: Running, name: str) -> str:
    with running.http() as admin:
        return next(role["id"] for role in admin.get(f"{V3}/roles").json()["roles"] if role["name"] == name)


def sign_in(running: Running, identity: dict[str, Any], scope: Any = None, **headers: str) -> httpx.Response:
    auth = {"identity": identity, **({"scope": scope} if scope else {})}
    return httpx.post(f"{running.url}{V3}/auth/tokens", json={"auth": auth}, headers=headers, timeout=30)


def token(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    return answer.headers["x-subject-token"]


def with_token(running: Running, text: str) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={"x-auth-token": text}, timeout=30)


def openstack(running: Running, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = {"OS_AUTH_URL": f"{running.url}/identity/v3", "OS_IDENTITY_API_VERSION": "3", "HOME": "/nonexistent"}
    return subprocess.run([client("openstack"), *words], env=known | env, capture_output=True, text=True, timeout=60, check=False)
