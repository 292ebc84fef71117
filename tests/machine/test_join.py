"""A further host joins with a token over the HTTPS node protocol, with a guest on it and its console; it ends with its compute service and
comes back by joining anew. Tokens that are no good change nothing."""

import json
import re
import signal
import ssl
import time
from collections.abc import Iterator
from os import kill
from pathlib import Path

import pytest
from websockets.sync.client import connect

from machine.course import Course, fresh, until

pytestmark = [pytest.mark.machine, pytest.mark.long]


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        yield made


@pytest.fixture(scope="module")
def token(course: Course) -> str:
    return _token(course)


@pytest.fixture(scope="module")
def short(course: Course, token: str) -> tuple[float, str]:
    """When a token that is good for a minute was made, and the token."""
    return time.monotonic(), _token(course, "--minutes", "1")


def _token(course: Course, *options: str) -> str:
    return course.typed("admin", str(course.clone / "nacre"), "node", "token", "--home", str(course.home), *options).stdout.split()[-1]


def _join(course: Course, number: int, token: str) -> tuple[int, str, str]:
    words = ("node", "join", "--home", str(course.home), "--sandbox", str(number), "--", token)
    done = course.typed("admin", str(course.clone / "nacre"), *words, check=False)
    return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2]


def _compute(course: Course) -> dict[str, str]:
    rows = json.loads(course.openstack("admin", "compute", "service", "list", "--service", "nova-compute", "-f", "json"))
    return {row["Host"]: row["State"] for row in rows}


def _node(course: Course) -> int:
    rows = json.loads(course.nacre("status", "--json").stdout)["processes"]
    return next((int(row["pid"]) for row in rows if row["role"] == "node" and row["host"] == "nacre-2"), 0)


def test_what_is_no_token_changes_nothing(course: Course, token: str, short: tuple[float, str]) -> None:
    before = (course.home / "nacre.toml").read_text()
    secret, _, pin = token.partition(".")
    assert re.fullmatch(r"[\w-]{43}", secret) and re.fullmatch(r"[0-9a-f]{64}", pin)
    for wrong, reason in (("nonsense", "That is no token"), (f"{secret}.{'0' * 64}", "is not of the cloud"), (f"x{token}", "not of this cloud")):
        status, _, said = _join(course, 2, wrong)
        assert status == 1 and reason in said, said
    assert (course.home / "nacre.toml").read_text() == before and not (course.home / "hosts" / "2").exists()


def test_a_host_joins(course: Course, token: str) -> None:
    status, said, trouble = _join(course, 2, token)
    assert status == 0 and "nacre-2 has joined" in said, trouble
    until(lambda: _compute(course) == {"nacre-1": "up", "nacre-2": "up"}, 30)
    assert not Path(f"{course.home}/run/node/nacre-2.sock").exists(), "it has no other way in"
    status, _, trouble = _join(course, 3, token)
    assert status == 1 and "used already, by nacre-2" in trouble
    status, _, trouble = _join(course, 2, token)
    assert status == 1 and "already" in trouble
    key = course.home / "hosts" / "2" / "node" / "tls" / "identity.pem"
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700


def test_it_has_a_guest(course: Course) -> None:
    for line in (
        "flavor create --vcpus 1 --ram 64 --disk 1 m1.nano",
        "network create net",
        "subnet create --network net --subnet-range 172.16.1.0/24 net",
        "server create --flavor m1.nano --image nacre-guest --network net --availability-zone nova:nacre-2 guest",
    ):
        course.openstack("admin", *line.split())
    until(lambda: course.value("admin", "status", "server", "show", "guest") != "BUILD", 60)
    assert course.value("admin", "status", "server", "show", "guest") == "ACTIVE", course.openstack("admin", "server", "show", "guest", "-c", "fault")
    until(lambda: "hostname: guest" in course.openstack("admin", "console", "log", "show", "guest"), 60, every=1)
    address = course.value("admin", "url", "console", "url", "show", "--novnc", "guest")
    trusted = ssl.create_default_context(cafile=str(course.home / "ca.pem"))
    address = re.sub(r"^https://(.*)/console/\w+\.html\?path=console%2F", r"wss://\1/console/", address)
    with connect(address, ssl=trusted, proxy=None, legacy=True) as screen:
        assert screen.recv(10) == b"RFB 003.008\n"


def test_its_node_comes_back(course: Course) -> None:
    before = _node(course)
    kill(before, signal.SIGKILL)
    until(lambda: _node(course) not in (0, before), 10)
    course.nacre("up")
    until(lambda: _compute(course) == {"nacre-1": "up", "nacre-2": "up"}, 30)
    refused = course.nacre("up", "--nodes", "2", check=False)
    assert refused.returncode == 1 and "joined" in refused.stderr.splitlines()[-1]


def test_an_expired_token(course: Course, short: tuple[float, str]) -> None:
    before = (course.home / "nacre.toml").read_text()
    time.sleep(max(0.0, short[0] + 61 - time.monotonic()))
    status, _, said = _join(course, 3, short[1])
    assert status == 1 and "this token has expired" in said
    assert (course.home / "nacre.toml").read_text() == before and not (course.home / "hosts" / "3").exists()


def test_it_ends_with_its_compute_service(course: Course) -> None:
    def service() -> str:
        rows = json.loads(course.openstack("admin", "compute", "service", "list", "--host", "nacre-2", "-f", "json"))
        return str(rows[0]["ID"])

    course.openstack("admin", "compute", "service", "set", "--down", "nacre-2", "nova-compute")
    has_guest = course.typed("admin", "openstack", "compute", "service", "delete", service(), check=False)
    assert has_guest.returncode == 1 and "hosting instances" in has_guest.stderr
    course.openstack("admin", "server", "delete", "--wait", "guest")
    assert _node(course)
    course.openstack("admin", "compute", "service", "delete", service())
    until(lambda: _node(course) == 0, 30)
    assert _compute(course) == {"nacre-1": "up"}
    said = course.nacre("up").stdout
    assert "nacre-2 is not part of this cloud any more" in said and "was revoked" in said
    started = course.typed("admin", "openstack-service", "start", "nova-compute")
    assert "was revoked" in started.stderr and _node(course) == 0
    assert _compute(course) == {"nacre-1": "up"}


def test_it_joins_anew(course: Course) -> None:
    status, said, trouble = _join(course, 2, _token(course))
    assert status == 0 and "nacre-2 has joined" in said, trouble
    until(lambda: _compute(course) == {"nacre-1": "up", "nacre-2": "up"}, 30)
    assert not (course.home / "hosts" / "2" / "node" / "tls" / "refused").exists()
