"""Rules that an operator overrides while the cloud runs, asked over HTTP; and the words of a refusal, which are each service's own."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from conftest import Running


@pytest.fixture
def folder(running: Running) -> Iterator[Path]:
    found = running.cloud.home.reach / "policy"
    found.mkdir(exist_ok=True)
    yield found
    for file in found.iterdir():
        file.unlink()


def settles(client: httpx.Client, method: str, path: str, wanted: int, **body: object) -> httpx.Response:
    """The answer as soon as it has that status, within the time that an override may take."""
    end = time.monotonic() + 5
    while (answer := client.request(method, path, **body)).status_code != wanted:  # type: ignore[arg-type]
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)
    return answer


def test_an_override_opens_and_closes_without_a_restart(running: Running, folder: Path) -> None:
    services = "/compute/v2.1/os-services"
    with running.http("demo") as member, running.http() as admin:
        assert member.get(services).status_code == 403
        (folder / "compute.yaml").write_text('"os_compute_api:os-services:list": "role:member"\n')
        settles(member, "GET", services, 200)
        (folder / "network.yaml").write_text('"create_network": "!"\n')
        told = settles(admin, "POST", "/network/v2.0/networks", 403, json={"network": {"name": "n"}}).text
        assert "rule:create_network is disallowed by policy" in told
        for file in folder.iterdir():
            file.unlink()
        settles(member, "GET", services, 403)
        settles(member, "POST", "/network/v2.0/networks", 201, json={"network": {"name": "n"}})


def test_a_broken_file_keeps_the_rules_before_it_and_the_log_says_so(running: Running, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    services, file = "/compute/v2.1/os-services", folder / "compute.yaml"
    with running.http("demo") as member:
        file.write_text('"os_compute_api:os-services:list": "role:member"\n')
        settles(member, "GET", services, 200)
        caplog.clear()
        file.write_text('"os_compute_api:os-services:list": "role:admin"\n"os_compute_api:servers:index": "role:\n')
        time.sleep(2.5)
        assert member.get(services).status_code == 200
        refused = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(refused) == 1 and f"policy change refused, the rules before it stay in force: {file}:" in refused[0]
        file.write_text('"os_compute_api:os-services:list": "role:admin"\n')
        settles(member, "GET", services, 403)


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("GET", "/compute/v2.1/os-services", None, "Policy doesn't allow os_compute_api:os-services:list to be performed."),
        ("GET", "/compute/v2.1/servers/detail?all_tenants=1", None, "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants"),
        ("GET", "/compute/v2.1/os-hypervisors/detail", None, "Policy doesn't allow os_compute_api:os-hypervisors:list-detail to be performed."),
        ("POST", "/compute/v2.1/flavors", {"flavor": {"name": "f", "ram": 64, "vcpus": 1, "disk": 1}}, "os_compute_api:os-flavor-manage:create"),
        ("POST", "/network/v2.0/networks", {"network": {"router:external": True}}, "rule:create_network:router:external is disallowed by policy"),
        ("POST", "/network/v2.0/networks", {"network": {"shared": True}}, "rule:create_network:shared is disallowed by policy"),
        ("POST", "/image/v2/images", {"name": "i", "visibility": "public"}, "You are not authorized to complete publicize_image action."),
    ],
)
def test_a_member_is_refused_in_the_services_own_words(running: Running, method: str, path: str, body: object, told: str) -> None:
    with running.http("demo") as member:
        answer = member.request(method, path, json=body)
    assert answer.status_code == 403 and told in answer.text, answer.text


def test_no_token_and_a_wrong_one(running: Running) -> None:
    for headers in ({}, {"x-auth-token": "gAAAAA"}):
        for path in ("/compute/v2.1/servers", "/network/v2.0/networks", "/image/v2/images", "/placement/resource_providers"):
            answer = httpx.get(running.url + path, headers=headers)
            assert answer.status_code == 401 and "requires authentication" in answer.text, (path, answer.text)
            assert answer.headers["www-authenticate"].endswith('/identity"')
