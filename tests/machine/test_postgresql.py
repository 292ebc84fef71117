"""A cloud on PostgreSQL: begun there, or moved there with a guest that does not notice; the server going away; the password staying secret."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import postgres
from machine.course import Course, free_port, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]
SECRET = "pw-7Gx2kQ"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.cluster(free_port()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        prepare(made)
        yield made


@pytest.fixture(scope="module")
def guest(course: Course) -> Guest:
    made = create(course, "witness")
    made.reached(240)
    return made


@pytest.fixture(scope="module")
def url(server: postgres.Postgres) -> str:
    return server.login("cloud", SECRET)


def words(course: Course, *rest: str) -> list[str]:
    return [str(course.clone / "nacre"), *rest, "--home", str(course.home)]


def move(course: Course, target: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return course._run(words(course, "db", "move", target), 600, check)


def facts(course: Course) -> dict[str, Any]:
    """What must stay when a command is refused: files, processes and how often they were started."""
    rows = json.loads(course.nacre("status", "--json").stdout)["processes"]
    ours = {(row["role"], row["pid"], row["restarts"]) for row in rows if row["role"] in ("up", "api", "worker", "node")}
    return {"toml": (course.home / "nacre.toml").read_text(), "home": (course.home / ".nacre-home").read_text(), "ours": ours}


def refused(course: Course, *typed: str) -> str:
    """The one sentence that a refused command ends with."""
    done = course._run(words(course, *typed), 300, False)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout, done
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("Another set-up is under way")]
    assert len(lines) == 1 and lines[0].startswith("nacre: ") and SECRET not in lines[0], lines
    return lines[0]


def tables(server: postgres.Postgres, target: str) -> int:
    database = str(sa.make_url(target).database)
    return int(server.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", database)[0][0])


def test_what_will_not_do_is_refused_and_changes_nothing(course: Course, guest: Guest, server: postgres.Postgres, url: str) -> None:
    foreign = server.login("stranger", SECRET)
    server.sql("CREATE TABLE invoices (id int)", str(sa.make_url(foreign).database))
    server.sql("CREATE ROLE reader LOGIN PASSWORD 'x'")
    stranger = sa.make_url(url).set(username="reader", password="x").render_as_string(False)
    before = facts(course)
    with guest.undisturbed():
        assert "invoices" in refused(course, "db", "move", foreign)
        assert "password authentication failed" in refused(course, "db", "move", url.replace(SECRET, "wrong"))
        assert "refused" in refused(course, "db", "move", f"postgresql://cloud:{SECRET}@127.0.0.1:{free_port()}/cloud")
        assert "does not exist" in refused(course, "db", "move", url + "-absent")
        assert "may not make tables" in refused(course, "db", "move", stranger)
        assert "postgresql://user:password@host/database" in refused(course, "db", "move", f"mysql://cloud:{SECRET}@127.0.0.1/cloud")
        assert "db move" in refused(course, "up", "--database", url)
    assert facts(course) == before
    assert tables(server, url) == 0


@contextmanager
def held_up(server: postgres.Postgres, target: str) -> Iterator[None]:
    """A copy into `target` waits at its first table as long as this block lasts, at most for its own patience of 10 s."""
    engine = sa.create_engine(server._url(str(sa.make_url(target).database)))
    with engine.connect() as conn:
        conn.execute(sa.text("CREATE TABLE alembic_version (x int)"))
        yield
        conn.rollback()
    engine.dispose()


def copying(server: postgres.Postgres) -> bool:
    return bool(server.sql("SELECT 1 FROM pg_stat_activity WHERE usename = 'cloud' AND wait_event_type = 'Lock'"))


def test_a_move_that_is_killed_half_way(course: Course, guest: Guest, server: postgres.Postgres, url: str) -> None:
    """The copy has begun, the cloud is stopped: after SIGKILL of the command and its job the cloud is what it was."""
    before = facts(course)
    with guest.undisturbed():
        with held_up(server, url):
            started = subprocess.Popen(words(course, "db", "move", url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
            until(lambda: copying(server), 120, 0.1)
            job = [pid for pid, arguments in cmdlines().items() if b"move-database" in arguments and str(course.home).encode() in arguments]
            for pid in (started.pid, *job):
                os.kill(pid, signal.SIGKILL)
            started.communicate(timeout=30)
        until(lambda: tables(server, url) == 0, 30)
        course.nacre("up")
        assert facts(course)["toml"] == before["toml"] and (course.home / "db/nacre.db").exists()
        assert guest.status() == "ACTIVE"


def test_a_move_that_fails_starts_the_cloud_again(course: Course, guest: Guest, server: postgres.Postgres, url: str) -> None:
    with held_up(server, url):
        done = move(course, url, check=False)
    assert done.returncode == 1 and "Nothing has changed" in done.stderr.strip().splitlines()[-1], done
    assert "Nacre is ready" in done.stdout and guest.status() == "ACTIVE" and tables(server, url) == 0


def cmdlines() -> dict[int, bytes]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                pass
    return found


class Watch:
    """Who shows the password in its arguments; the launcher does until it has read them."""

    def __init__(self) -> None:
        self.seen, self.enough = set[bytes](), threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self.enough.wait(0.02):
            for pid, arguments in cmdlines().items():
                if SECRET.encode() in arguments and pid != os.getpid() and not arguments.startswith((b"/bin/bash\0", b"bash\0")):
                    self.seen.add(arguments)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.thread.join()


def test_the_move(course: Course, guest: Guest, server: postgres.Postgres, url: str) -> None:
    demo = Rest(course, "demo")  # its token is from before
    kinds = ("image", "network", "port", "router", "flavor", "user")
    before = {kind: course.openstack("admin", kind, "list", "-f", "json") for kind in kinds}
    with guest.undisturbed(), Watch() as watch:
        said = move(course, url)
    assert "Moved:" in said.stdout and "Nacre is ready" in said.stdout
    assert demo("GET", f"/compute/v2.1/servers/{guest.id}")["server"]["status"] == "ACTIVE", "the token is good"
    assert {kind: course.openstack("admin", kind, "list", "-f", "json") for kind in kinds} == before
    assert not (course.home / "db/nacre.db").exists() and tables(server, url) > 50
    assert watch.seen == set()
    guest.typed("pause")
    guest.becomes("PAUSED")
    assert guest.power() == "paused", "the node takes calls: their numbers went on"
    guest.typed("unpause")
    guest.becomes("ACTIVE")
    assert "in PostgreSQL already" in refused(course, "db", "move", url)


def test_the_password_is_nowhere_else(course: Course, guest: Guest, url: str) -> None:
    assert SECRET not in course.nacre("status").stdout + course.nacre("status", "--json").stdout + course.nacre("logs").stdout
    assert not any(SECRET.encode() in arguments for arguments in cmdlines().values())
    holding = [path for path in course.home.rglob("*") if path.is_file() and "instances" not in path.parts and "images" not in path.parts
               and SECRET.encode() in path.read_bytes()]  # fmt: skip
    assert holding == [course.home / "nacre.toml"]
    found = holding[0].stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, 0)


def test_the_server_away_for_ten_seconds(course: Course, guest: Guest, server: postgres.Postgres) -> None:
    before = facts(course)
    with guest.undisturbed():
        server.stop("fast")
        asked = course.typed("demo", "openstack", "server", "list", check=False)
        assert asked.returncode == 1 and "503" in asked.stderr and "does not answer" in asked.stderr
        time.sleep(10)
        server.start()
        until(lambda: guest.status() == "ACTIVE", 30)
    assert facts(course) == before, "the supervisor has nothing to do"
    second = create(course, "after")
    second.becomes("ACTIVE")
    course.openstack("demo", "server", "delete", "--wait", "after")


def test_connections_killed_while_a_server_is_made(course: Course, guest: Guest, server: postgres.Postgres) -> None:
    enough = threading.Event()

    def kill() -> None:
        while not enough.wait(0.5):
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cloud'")

    demo = Rest(course, "demo")
    image = demo("GET", "/image/v2/images?name=nacre-guest")["images"][0]["id"]
    network = demo("GET", "/network/v2.0/networks?name=net1")["networks"][0]["id"]
    body = {"server": {"name": "storm", "flavorRef": "1", "imageRef": image, "networks": [{"uuid": network}]}}
    made = demo("POST", "/compute/v2.1/servers", body)["server"]["id"]
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        time.sleep(8)
    finally:
        enough.set()
        thread.join()
    until(lambda: demo("GET", f"/compute/v2.1/servers/{made}")["server"]["status"] != "BUILD", 120)
    assert demo("GET", f"/compute/v2.1/servers/{made}")["server"]["status"] == "ACTIVE"
    course.openstack("demo", "server", "delete", "--wait", "storm")


def test_down_and_up_and_an_option_taken_out_by_hand(course: Course, guest: Guest) -> None:
    toml = course.home / "nacre.toml"
    with guest.undisturbed():
        course.nacre("down")
        told = toml.read_text()
        toml.write_text("\n".join(line for line in told.splitlines() if not line.startswith("connection")) + "\n")
        assert "put its [database] connection back" in refused(course, "up")
        toml.write_text(told)
        course.nacre("up")
        assert guest.status() == "ACTIVE"


def test_a_cloud_from_its_first_start(server: postgres.Postgres, url: str) -> None:
    own = server.login("second", SECRET)
    with Watch() as watch, fresh("--hypervisor", "fake", "--database", own) as cloud:
        assert not list((cloud.home / "db").iterdir())
        assert cloud.value("admin", "Name", "image", "list") == "nacre-guest"
        cloud.openstack("admin", *"flavor create --ram 64 --disk 1 --vcpus 1 tiny".split())
        words = "--os-compute-api-version 2.37 server create --flavor tiny --image nacre-guest --nic none --wait one -f json"
        made = cloud.openstack("demo", *words.split())
        assert json.loads(made)["status"] == "ACTIVE"
        before = facts(cloud)
        cloud.nacre("up")
        cloud.nacre("up", "--database", own)
        assert "another cloud" in refused(cloud, "up", "--database", url)
        assert facts(cloud) == before
    assert watch.seen == set()
