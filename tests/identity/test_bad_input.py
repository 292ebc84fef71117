"""Whatever a request says, identity answers it in words: every route with wrong types at every place of its body, oversized and odd ids, times
that are over or none, bodies that are none, and queries to match. The routes are the program's own; one with a body needs a good one here."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from conftest import Running, started
from nacre.core.config import Config, Identity, Nacre
from nacre.core.http import Route
from nacre.identity.routes import ROUTES

PREFIX = "/identity"
ODD = (None, True, -1, 2**70, 1.5, "", " ", "\0", "x" * 70_000, "2001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", [], {}, [[]],
       [None], [{}], {"id": {}}, {"name": None})  # fmt: skip
RAW = (b"", b"null", b"[]", b"5", b"{", b'{"\xff": 1}', b"\xff\xfe", b"[" * 50_000, b'{"a":' * 50_000, b'{"a": 1e999}', b'{"a": "\\ud800"}',
       b'{"\\ud800": {}}', b'{"a": 1, "a": 2}')  # fmt: skip
IDS = ("x", "x" * 3000, "%00", "%ff", "%F0%9F%92%A9", "..%2f..", "%20", "default", "-1", "'", "%25")
QUERIES = ("limit=-1", "limit=x", "limit=0", "limit=" + "9" * 30, "limit=" + "9" * 5000, "limit=1&marker=x", "marker=%00", "marker=" + "x" * 3000,
           "name=%00", "name=%ff", "name__contains=%25&name__icontains=%00", "name__startswith=" + "x" * 3000, "enabled=perhaps", "domain_id=%00",
           "password_expires_at=x", "password_expires_at=lt:0001-01-01T00:00:00%2B14:00", "password_expires_at=gt:2030-01-01", "parent_id=%ff",
           "tags=" + ",".join("x" * 3000), "not-tags-any=" + ",".join("x" * 3000), "tags=,", "user.id=%00", "scope.project.id=x&include_subtree",
           "effective&include_names&role.id=x", "scope.OS-INHERIT:inherited_to=x", "group.id=x&user.id=y", "is_domain=x", "sort_key=x",
           "parents_as_list&subtree_as_ids", "parents_as_list&parents_as_ids", "allow_expired=x", "nocatalog", "=&=&&;", "%ff=%ff")  # fmt: skip


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Running]:
    """A cloud that tells nobody to wait."""
    config = Config(nacre=Nacre(failed_logins_per_minute=0), identity=Identity(password_hash_rounds=4))
    with started(tmp_path_factory.mktemp("patient") / "cloud", config, fresh_database()) as running:
        yield running


class World:
    """One of each, which the routes' paths and the good bodies name."""

    def __init__(self, running: Running) -> None:
        self.http = running.http()
        self.me = self.http.get(f"{PREFIX}/v3/users?name=admin").json()["users"][0]["id"]
        token = self.http.headers["x-auth-token"]
        self.here = self.http.get(f"{PREFIX}/v3/auth/tokens", headers={"x-subject-token": token}).json()["token"]["project"]["id"]
        self.ids = {"tags": "blue", "security_compliance": "password_regex"}
        for word, more in (("domain", {}), ("project", {"tags": ["blue"]}), ("user", {"password": "pw"}), ("group", {}), ("role", {})):
            self.ids[f"{word}s"] = self._made(f"{word}s", word, {"name": "one", **more})
        self.ids["regions"] = self._made("regions", "region", {"id": "one"})
        self.ids["implies"] = self._made("roles", "role", {"name": "two"})
        self.ids["services"] = self._made("services", "service", {"type": "weather"})
        endpoint = {"interface": "public", "service_id": self.ids["services"], "url": "http://there"}
        self.ids["endpoints"] = self._made("endpoints", "endpoint", endpoint)
        self.ids["endpoint_groups"] = self._made("OS-EP-FILTER/endpoint_groups", "endpoint_group", {"name": "g", "filters": {"interface": "public"}})
        self.ids["policies"] = self._made("policies", "policy", {"type": "text/plain", "blob": "x"})
        self.ids["credentials"] = self._made("credentials", "credential", {"type": "cert", "blob": "x"})
        mine = self._made(f"users/{self.me}/application_credentials", "application_credential", self.good()["application_credential"])
        self.ids["application_credentials"] = mine
        self.ids["access_rules"] = self.http.get(f"{PREFIX}/v3/users/{self.me}/access_rules").json()["access_rules"][0]["id"]
        self.ids["trusts"] = self._made("OS-TRUST/trusts", "trust", self.good()["trust"])
        for plural in ("registered_limits", "limits"):
            answer = self.http.post(f"{PREFIX}/v3/{plural}", json=self.good()[plural])
            self.ids[plural] = answer.json()[plural][0]["id"]
        key = self.http.post(f"{PREFIX}/v3/users/{self.me}/credentials/OS-EC2", json={"tenant_id": self.here}).json()["credential"]
        self.ids["OS-EC2"] = key["access"]

    def _made(self, path: str, word: str, body: dict[str, Any]) -> str:
        answer = self.http.post(f"{PREFIX}/v3/{path}", json={word: body})
        assert answer.status_code == 201, answer.text
        return str(answer.json()[word]["id"])

    def good(self) -> dict[str, Any]:
        """By the last word of a path, what its body may be."""
        here, service = self.here, self.ids["services"]
        options = {"immutable": False}
        factors = {"ignore_password_expiry": True, "multi_factor_auth_enabled": False, "multi_factor_auth_rules": [["password"]]}
        rule = {"service": "compute", "method": "GET", "path": "/v2.1/servers"}
        signed = {"access": "x", "signature": "x", "host": "h", "verb": "GET", "path": "/", "params": {"Timestamp": "x"}, "headers": {},
                  "body_hash": ""}  # fmt: skip
        person = {"name": "demo", "domain": {"id": "default"}}
        methods = {"password": {"user": {**person, "password": "secret"}}, "totp": {"user": {**person, "passcode": "123456"}},
                   "token": {"id": "x"}, "application_credential": {"name": "x", "user": person, "secret": "x"}}  # fmt: skip
        return {
            "domain": {"name": "d", "description": "d", "enabled": True, "options": options, "x": 1},
            "project": {"name": "p", "description": "p", "domain_id": "default", "parent_id": here, "is_domain": False, "enabled": True,
                        "tags": ["a"], "options": options},
            "user": {"name": "u", "password": "pw", "original_password": "pw", "email": "e", "default_project_id": here, "domain_id": "default",
                     "enabled": True, "description": "u", "options": factors, "password_hash": "x", "login_at": "x"},
            "group": {"name": "g", "description": "g", "domain_id": "default"},
            "role": {"name": "r", "description": "r", "domain_id": self.ids["domains"], "options": options},
            "region": {"id": "r", "description": "r", "parent_region_id": "one"},
            "service": {"type": "t", "name": "n", "description": "d", "enabled": True},
            "endpoint": {"interface": "public", "service_id": service, "url": "http://x", "region_id": "one", "region": "one", "enabled": True},
            "policy": {"type": "t", "blob": "b"},
            "credential": {"type": "ec2", "blob": '{"access": "a", "secret": "s"}', "user_id": self.me, "project_id": here},
            "endpoint_group": {"name": "n", "description": "d", "filters": {"interface": "public", "service_id": service, "region_id": "one"}},
            "application_credential": {"name": "a", "secret": "s", "description": "d", "expires_at": "2099-01-01T00:00:00Z", "project_id": here,
                                       "roles": [{"name": "reader"}], "access_rules": [rule], "unrestricted": False},
            "trust": {"trustor_user_id": self.me, "trustee_user_id": self.ids["users"], "project_id": here, "impersonation": True,
                      "roles": [{"name": "reader"}], "expires_at": "2099-01-01T00:00:00Z", "remaining_uses": 5, "allow_redelegation": False,
                      "redelegation_count": 0, "deleted_at": None},
            "auth": {"identity": {"methods": list(methods), **methods}, "scope": {"project": {"name": "demo", "domain": {"name": "Default"}}}},
            "registered_limits": {"registered_limits": [{"service_id": service, "resource_name": "rain", "default_limit": 5, "description": "d",
                                                         "region_id": "one"}]},
            "limits": {"limits": [{"service_id": service, "resource_name": "rain", "resource_limit": 5, "project_id": here, "region_id": "one",
                                   "description": "d"}]},
            "registered_limit": {"service_id": service, "region_id": "one", "resource_name": "snow", "default_limit": 3, "description": "d"},
            "limit": {"resource_limit": 4, "description": "d"},
            "tags": {"tags": ["a"]}, "OS-EC2": {"tenant_id": here}, "ec2tokens": {"credentials": signed},
            "s3tokens": {"credentials": {**signed, "token": "x"}},
        }  # fmt: skip

    def address(self, route: Route, instead: str = "") -> str:
        """`instead`: what stands where an id should."""
        parts, before = [], ""
        for part in route.path.split("/"):
            own = before == "users" and ("/application_credentials" in route.path or "/access_rules" in route.path or "/OS-EC2" in route.path)
            known = self.me if own else self.ids.get(before, "x")
            parts.append((instead or known) if part.startswith("{") else part)
            before = part
        return PREFIX + "/".join(parts)


@pytest.fixture(scope="module")
def world(patient: Running) -> Iterator[World]:
    made = World(patient)
    yield made
    made.http.close()


def odd_bodies(good: Any) -> Iterator[Any]:
    """The good one with something odd in every place, one at a time, and without it."""
    for place in places(good):
        for odd in ODD:
            yield changed(good, place, odd)
        yield changed(good, place, ...)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def changed(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    whole = inner = copy.deepcopy(value)
    for key in place[:-1]:
        inner = inner[key]
    if odd is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = odd
    return whole


def said(world: World, method: str, at: str, **content: Any) -> None:
    answer = world.http.request(method, at, **content)
    assert answer.status_code < 500, f"{method} {at[:200]} {str(content)[:300]}: {answer.text}"
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.json()["error"]["message"], answer.text


def named(routes: list[Route]) -> Any:
    return pytest.mark.parametrize("route", [pytest.param(route, id=f"{route.method} {route.path}") for route in routes])


WITH_BODY = [route for route in ROUTES if route.body is not None]


@named(WITH_BODY)
def test_odd_bodies(world: World, route: Route) -> None:
    assert route.body is not None
    word = route.body.wrapper or route.path.rsplit("/", 1)[1]
    inner = world.good()[word]
    at = world.address(route)
    for body in odd_bodies({word: inner} if route.body.wrapper else inner):
        said(world, route.method, at, json=body)
    for raw in RAW:
        said(world, route.method, at, content=raw, headers={"content-type": "application/json"})


@named([route for route in ROUTES if "{" in route.path])
def test_odd_ids(world: World, route: Route) -> None:
    for odd in IDS:
        said(world, route.method, world.address(route, odd), **({"json": {}} if route.body is not None else {}))


@named([route for route in ROUTES if route.method in ("GET", "HEAD")])
def test_odd_queries(world: World, route: Route) -> None:
    for query in QUERIES:
        said(world, route.method, f"{world.address(route)}?{query}")


def test_odd_headers(world: World) -> None:
    at = f"{PREFIX}/v3/auth/tokens"
    for odd in ("", "x", "x" * 5000, "gAAAAA", "=" * 200, "gAAAAABl" + "A" * 300):
        for name in ("x-subject-token", "openstack-auth-receipt", "openstack-identity-access-rules"):
            said(world, "GET", at, headers={name: odd})
            said(world, "POST", at, headers={name: odd}, json={"auth": world.good()["auth"]})
        assert httpx.get(str(world.http.base_url) + f"{PREFIX}/v3/projects", headers={"x-auth-token": odd}).status_code == 401


def test_times_that_are_over(world: World) -> None:
    for word, path in (("application_credential", f"users/{world.me}/application_credentials"), ("trust", "OS-TRUST/trusts")):
        for when in ("2001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", ""):
            body = {word: {**world.good()[word], "name": when or "x", "expires_at": when}}
            answer = world.http.post(f"{PREFIX}/v3/{path}", json=body)
            assert answer.status_code == 400 and "expires_at" in answer.text, answer.text


@named(WITH_BODY)
def test_large_bodies(world: World, route: Route) -> None:
    assert route.body is not None
    word, at = route.body.wrapper or "x", world.address(route)
    for large in ({word: {"name": "x" * (1 << 20)}}, {word: {f"a{number}": number for number in range(40_000)}}, {word: [{}] * 200_000}):
        said(world, route.method, at, json=large)
    for kind in (b"text/html", b"application/x-www-form-urlencoded", b"application/json; charset=latin-1", b"\xff"):
        said(world, route.method, at, content=b"{}", headers={"content-type": kind})
