"""Every route of every service refuses who may not (design law 8): no token 401, nonsense 4xx in words, never 500.

The list of routes is the program's own, so a new route is covered by being written. `OPEN` names what is open upstream; it may only
shrink.
"""

import re
from collections.abc import Iterator

import httpx
import pytest

from conftest import Running
from nacre import program
from nacre.core.http import PUBLIC, SIGNED, Route, Service

OPEN = {
    "GET /identity/", "GET /identity/v3", "POST /identity/v3/auth/tokens", "POST /identity/v3/users/{id}/password",
    "GET /image/", "GET /image/versions", "GET /image/v2",
    "GET /compute/", "GET /compute/v2", "GET /compute/v2.1", "GET /network/", "GET /network/v2.0", "GET /placement/",
    "WEBSOCKET /console/{token}", "GET /console/vnc_lite.html", "GET /console/vnc.js", "GET /console/serial.html", "GET /console/serial.js",
    "GET /console/console.css", "GET /console/novnc/{file*}",
}  # fmt: skip
ROWS = [(service, route) for service in program.MOUNTED for route in service.routes]
NAMES = [f"{route.method} {service.prefix}{route.path}{'#' + route.action if route.action else ''}" for service, route in ROWS]
NOBODY = "00000000-0000-4000-8000-000000000000"


def case(service: Service, route: Route) -> tuple[str, dict[str, str], bytes]:
    """Address, headers and body that reach the row."""
    headers = {"content-type": "application/json"}
    if service.microversions is not None:
        wanted = route.until or max(route.since, service.microversions.low)
        headers["openstack-api-version"] = f"{service.microversions.service} {wanted[0]}.{wanted[1]}"
    content = f'{{"{route.action}": null}}'.encode() if route.action else b"{}"
    return service.prefix + re.sub(r"\{[^}]*\}", NOBODY, route.path), headers, content


def closed(*methods: str) -> list[object]:
    """The rows that need a token, as parameters."""
    return [pytest.param(*row, id=name) for row, name in zip(ROWS, NAMES, strict=True)
            if row[1].rule not in (PUBLIC, SIGNED) and row[1].method != "WEBSOCKET" and (not methods or row[1].method in methods)]  # fmt: skip


def test_open_routes_are_the_listed_ones() -> None:
    found = {name for (_, route), name in zip(ROWS, NAMES, strict=True) if route.rule in (PUBLIC, SIGNED)}
    assert found <= OPEN, f"open without being listed: {sorted(found - OPEN)}"


def test_every_rule_has_a_default() -> None:
    missing = [name for (service, route), name in zip(ROWS, NAMES, strict=True)
               if route.rule not in (PUBLIC, SIGNED) and route.rule not in service.rules]  # fmt: skip
    assert missing == []


@pytest.fixture(scope="module")
def anonymous(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module", params=["admin", "demo"])
def client(running: Running, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with running.http(request.param) as opened:
        yield opened


@pytest.mark.parametrize(("service", "route"), closed())
def test_no_token_and_a_bad_one_are_refused(anonymous: httpx.Client, service: Service, route: Route) -> None:
    address, headers, content = case(service, route)
    for token in ({}, {"x-auth-token": "gAAAAAnonsense"}):
        answer = anonymous.request(route.method, address, content=content, headers={**headers, **token})
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize(("service", "route"), closed())
def test_nonsense_is_refused_in_words(client: httpx.Client, service: Service, route: Route) -> None:
    """Unknown ids and malformed bodies: a 4xx that says something (or an empty list), never a 5xx."""
    if route.path.startswith("/v3/auth/tokens"):
        return
    address, headers, content = case(service, route)
    for body in (content, b"{", b"[1]", b'{"\xff": 1}', b"null"):
        answer = client.request(route.method, address, content=body, headers=headers)
        assert answer.status_code < 500, f"{body!r}: {answer.text}"
        assert answer.status_code < 400 or answer.content or route.method == "HEAD"


@pytest.mark.parametrize(("service", "route"), closed("PUT", "PATCH", "DELETE"))
def test_what_is_not_there_cannot_be_changed(client: httpx.Client, service: Service, route: Route) -> None:
    if "{" in route.path:
        address, headers, content = case(service, route)
        answer = client.request(route.method, address, content=content, headers=headers)
        assert answer.status_code in (400, 403, 404, 405, 410, 415), answer.text
