"""Tokens and the catalog, as clients use them."""

import subprocess
from datetime import timedelta

import httpx
import pytest

from clients import client
from conftest import Running
from nacre.core import clock
from nacre.core.config import Config, Nacre


def openstack(running: Running, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
    env = {"OS_AUTH_URL": f"{running.url}/identity/v3", "OS_USERNAME": user, "OS_PASSWORD": "secret", "OS_PROJECT_NAME": user,
           "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_IDENTITY_API_VERSION": "3", "HOME": "/nonexistent"}  # fmt: skip
    return subprocess.run([client("openstack"), *words], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.commands
def test_token_issue_and_catalog_list(running: Running) -> None:
    issued = openstack(running, "token", "issue", "-f", "value", "-c", "id")
    assert issued.returncode == 0, issued.stderr
    assert issued.stdout.startswith("gAAAA")
    listed = openstack(running, "catalog", "list", "-f", "value", "-c", "Type", user="demo")
    assert set(listed.stdout.split()) >= {"identity", "image", "compute", "network", "placement"}, listed.stderr


@pytest.mark.commands
def test_wrong_password_is_refused_with_status_1(running: Running) -> None:
    env = openstack(running, "--os-password", "wrong", "token", "issue")
    assert env.returncode == 1
    assert "The request you have made requires authentication. (HTTP 401)" in env.stderr


@pytest.mark.commands
def test_member_may_not_list_projects_of_all(running: Running) -> None:
    refused = openstack(running, "user", "list", user="demo")
    assert refused.returncode == 1
    assert "identity:list_users" in refused.stderr and "403" in refused.stderr


def test_revoked_token_counts_no_more(running: Running) -> None:
    with running.http("demo") as client:
        token = client.headers["x-auth-token"]
        assert client.get("/identity/v3/auth/tokens", headers={"x-subject-token": token}).json()["token"]["user"]["name"] == "demo"
        assert client.delete("/identity/v3/auth/tokens", headers={"x-subject-token": token}).status_code == 204
        answer = client.get("/identity/v3/auth/projects")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == 401
    for user in ("admin", "demo"):
        with running.http(user) as other:
            assert other.get("/identity/v3/auth/tokens", headers={"x-subject-token": token}).status_code == 404


def test_others_token_may_not_be_seen_by_a_member(running: Running) -> None:
    with running.http("demo") as client:
        assert client.get("/identity/v3/auth/tokens", headers={"x-subject-token": running.token()}).status_code == 403


@pytest.mark.parametrize(
    ("body", "word"),
    [({}, "auth"), ({"auth": {}}, "identity"), ({"auth": {"identity": {"methods": []}}}, "methods"),
     ({"auth": {"identity": {"methods": ["magic"]}}}, "magic"), ({"auth": {"identity": {"methods": ["password"]}}}, "password"),
     ({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "demo", "password": "secret"}}}}}, "domain")],
)  # fmt: skip
def test_malformed_authentication_names_the_field(running: Running, body: object, word: str) -> None:
    answer = httpx.post(f"{running.url}/identity/v3/auth/tokens", json=body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]


def test_unknown_user_and_scope_without_role_look_like_a_wrong_password(running: Running) -> None:
    def ask(user: str, project: str) -> httpx.Response:
        identity = {"methods": ["password"], "password": {"user": {"name": user, "domain": {"id": "default"}, "password": "secret"}}}
        scope = {"project": {"name": project, "domain": {"id": "default"}}}
        return httpx.post(f"{running.url}/identity/v3/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})

    for user, project in (("nobody", "demo"), ("demo", "admin"), ("demo", "nothing")):
        assert ask(user, project).status_code == 401
    token = ask("demo", "demo").json()["token"]
    assert sorted(role["name"] for role in token["roles"]) == ["member", "reader"]
    assert token["project"]["name"] == "demo"


def test_sdk_sees_projects_roles_endpoints(running: Running) -> None:
    admin = running.connect()
    assert {project.name for project in admin.identity.projects()} == {"admin", "demo"}
    assert {role.name for role in admin.identity.roles()} == {"admin", "manager", "member", "reader", "service"}
    assert {endpoint.interface for endpoint in admin.identity.endpoints()} == {"public", "internal", "admin"}
    assert admin.identity.find_user("demo").domain_id == "default"
    demo = running.connect("demo")
    assert [project.name for project in demo.identity.user_projects(demo.current_user_id)] == ["demo"]


def test_who_comes_without_tls_goes_on_so(running: Running) -> None:
    """The catalog follows the plain listener's own names, and no other Host that a client may send."""
    port = int(running.url.rpartition(":")[2])
    before, running.cloud.config = running.cloud.config, Config(nacre=Nacre(http_port=port))
    try:
        for host, wanted in ((f"localhost:{port}", f"http://localhost:{port}/"), (f"cloud.example:{port}", f"{running.url}/")):
            catalog = running.http(host=host).get("/identity/v3/auth/catalog").json()["catalog"]
            assert {endpoint["url"].startswith(wanted) for service in catalog for endpoint in service["endpoints"]} == {True}
    finally:
        running.cloud.config = before


def test_a_token_that_is_over_is_shown_for_a_while_to_who_asks_for_such(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    old, at = running.token("demo"), "/identity/v3/auth/tokens"
    later, much_later = clock.utcnow() + timedelta(hours=2), clock.utcnow() + timedelta(days=3)
    monkeypatch.setattr(clock, "utcnow", lambda: later)
    with running.http() as admin:
        told = {"x-subject-token": old}
        assert admin.get(at, headers=told).status_code == admin.head(at, headers=told).status_code == 404
        assert admin.get(f"{at}?allow_expired=1", headers=told).json()["token"]["user"]["name"] == "demo"
        assert admin.head(f"{at}?allow_expired=true", headers=told).status_code == 200
        assert admin.get(at, headers={"x-auth-token": old}).status_code == 401
        assert admin.delete(at, headers=told).status_code == 404
    monkeypatch.setattr(clock, "utcnow", lambda: much_later)
    with running.http() as admin:
        assert admin.get(f"{at}?allow_expired=1", headers=told).status_code == 404


def test_which_token_is_meant(running: Running) -> None:
    at = "/identity/v3/auth/tokens"
    with running.http() as admin, running.http("demo") as demo:
        for headers, to_demo in (({}, 403), ({"x-subject-token": "nonsense"}, 404)):
            for method in ("GET", "HEAD", "DELETE"):
                assert admin.request(method, at, headers=headers).status_code == 404
                assert demo.request(method, at, headers=headers).status_code == to_demo
        mine = {"x-subject-token": demo.headers["x-auth-token"]}
        answer = demo.get(at, headers=mine)
        assert answer.headers["x-subject-token"] == mine["x-subject-token"] and answer.json()["token"]["catalog"]
        assert "catalog" not in demo.get(f"{at}?nocatalog", headers=mine).json()["token"]
        bare = demo.head(at, headers=mine)
        assert (bare.status_code, bare.content) == (200, b"")


def test_what_one_may_be_signed_in_to(running: Running) -> None:
    at = "/identity/v3/auth"
    with running.http() as admin, running.http("demo") as demo:
        assert [one["name"] for one in demo.get(f"{at}/projects").json()["projects"]] == ["demo"]
        assert demo.get(f"{at}/domains").json()["domains"] == [] and demo.get(f"{at}/system").json()["system"] == []
        assert admin.get(f"{at}/system").json()["system"] == [{"all": True}]
        identity = {"methods": ["token"], "token": {"id": admin.headers["x-auth-token"]}}

        def rescoped(scope: object, token: str = "") -> httpx.Response:
            said = identity | ({"token": {"id": token}} if token else {})
            return httpx.post(f"{running.url}{at}/tokens", json={"auth": {"identity": said, "scope": scope}})

        system = rescoped({"system": {"all": True}})
        first, second = system.json()["token"]["audit_ids"]
        assert second == admin.get(f"{at}/tokens", headers={"x-subject-token": admin.headers["x-auth-token"]}).json()["token"]["audit_ids"][0]
        assert first != second and system.json()["token"]["system"] == {"all": True}
        held = {"x-auth-token": system.headers["x-subject-token"]}
        assert httpx.get(f"{running.url}{at}/catalog", headers=held).status_code == 403, "of a project alone"
        back = rescoped({"project": {"name": "admin", "domain": {"id": "default"}}}, held["x-auth-token"])
        assert back.status_code == 403 and "system-scoped" in back.json()["error"]["message"]
        assert rescoped({"system": {"all": False}}).status_code == rescoped({"project": {}}).status_code == 400
