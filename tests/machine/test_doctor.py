"""`nacre doctor`, `why` and `explain` on a real cloud: each kind of difference is planted with the tools of the host, named, and repaired
while a guest goes on; what others made stays."""

import json
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from machine.course import Course, fresh, until
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]

NOBODY = "aaaaaaaa-0000-4000-8000-000000000001"
BASE = "0123456789abcdef0123456789abcdef01234567"
DOMAIN = """<domain type='qemu'><name>somebodys</name><uuid>bbbbbbbb-0000-4000-8000-000000000001</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os></domain>"""


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        yield made


@pytest.fixture(scope="module")
def admin(course: Course) -> Rest:
    return Rest(course, "admin")


def doctor(course: Course, *words: str) -> tuple[int, Any]:
    done = course.nacre("doctor", "--json", *words, check=False)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def typed(course: Course, *words: str) -> subprocess.CompletedProcess[str]:
    return course.typed("admin", str(course.clone / "nacre"), *words, "--home", str(course.home), check=False)


@pytest.fixture(scope="module")
def servers(course: Course, admin: Rest) -> list[str]:
    """Two servers of the administrator's, ACTIVE."""
    admin("POST", "/compute/v2.1/flavors", {"flavor": {"id": "1", "name": "small", "ram": 64, "vcpus": 1, "disk": 1}})
    net = admin.network("network", name="net")["id"]
    admin.network("subnet", network_id=net, ip_version=4, cidr="172.16.1.0/24")
    image = admin("GET", "/image/v2/images")["images"][0]["id"]
    body = {"name": "s", "flavorRef": "1", "imageRef": image, "networks": [{"uuid": net}]}
    made = [admin("POST", "/compute/v2.1/servers", {"server": body})["server"]["id"] for _ in range(2)]
    until(lambda: [status(admin, server) for server in made] == ["ACTIVE", "ACTIVE"], 120, every=1)
    return made


def status(admin: Rest, server: str) -> str:
    shown = admin("GET", f"/compute/v2.1/servers/{server}")["server"]
    assert shown["status"] != "ERROR", shown["fault"]
    return str(shown["status"])


def domain(admin: Rest, server: str) -> str:
    return str(admin("GET", f"/compute/v2.1/servers/{server}")["server"]["OS-EXT-SRV-ATTR:instance_name"])


def test_nothing_differs(course: Course, servers: list[str]) -> None:
    assert course.nacre("doctor").stdout.splitlines()[-1] == "differences: 0"
    assert doctor(course) == (0, {"differences": 0, "found": [], "repaired": [], "left": []})


def plant(course: Course, admin: Rest, gone: str) -> dict[str, str]:
    """One of each; kind -> what."""
    host = course.home / "hosts" / "1"
    course.exec("ovs-vsctl", "add-port", "br-int", "tapaaaaaaaa-00", "--", "set", "interface", "tapaaaaaaaa-00", "type=internal",
                f"external_ids:iface-id={NOBODY}")  # fmt: skip
    course.exec("ip", "tuntap", "add", "tapbbbbbbbb-00", "mode", "tap")
    name = domain(admin, gone)
    course.exec("virsh", "destroy", name)
    course.exec("virsh", "undefine", name)
    until(lambda: status(admin, gone) == "SHUTOFF", 30)
    (course.work / "domain.xml").write_text(DOMAIN)
    course.exec("virsh", "define", str(course.work / "domain.xml"))
    (host / "instances" / NOBODY).mkdir()
    (host / "instances" / NOBODY / "disk").write_text("precious")
    (host / "instances" / "_base" / BASE).write_text("")
    port = admin.network("port", network_id=admin("GET", "/network/v2.0/networks")["networks"][0]["id"])["id"]
    with sqlite3.connect(course.home / "db" / "nacre.db", timeout=20) as base:
        base.execute("UPDATE ports SET device_id = ?, device_owner = 'compute:nova', attached = 1 WHERE id = ?", (NOBODY, port))
    provider = admin("GET", "/placement/resource_providers")["resource_providers"][0]["uuid"]
    consumer = str(uuid.uuid4())
    admin("PUT", f"/placement/allocations/{consumer}", {"allocations": [{"resource_provider": {"uuid": provider}, "resources": {"VCPU": 1}}]})
    course.exec("ovs-ofctl", "-O", "OpenFlow14", "del-flows", "br-tun", "table=22")
    return {"tap-stray": "tapaaaaaaaa-00 tapbbbbbbbb-00", "domain-missing": gone, "folder-unknown": NOBODY, "base-stray": BASE,
            "port-without-server": port, "allocation-stray": consumer, "flows": "br-tun"}  # fmt: skip


def test_rooms_that_nobody_wants(course: Course, servers: list[str]) -> None:
    """The agent clears these away whenever it looks at its wires, as it does at least all five minutes; the doctor is faster here."""
    room, folder = f"qrouter-{NOBODY}", f"/run/nacre/dhcp/{NOBODY}"
    course.exec("sh", "-c", f"ip netns add mine; ip netns add {room}; mkdir {folder}; ip netns exec {room} dnsmasq --conf-file= --port=0 --no-resolv "
                f"--pid-file={folder}/pid")  # fmt: skip
    code, seen = doctor(course)
    assert code == 1 and {one["kind"]: one["what"] for one in seen["found"]} == {"namespace-stray": room, "server-stray": folder}, seen
    assert [(one["kind"], one["what"]) for one in seen["left"]] == [("namespace", "mine")]
    code, fixed = doctor(course, "--fix")
    assert code == 0 and len(fixed["repaired"]) == 2 and [one["what"] for one in fixed["left"]] == ["mine"]
    rooms = course.exec("ip", "netns").stdout
    assert room not in rooms and "mine" in rooms and course.exec("pgrep", "-f", folder, check=False).returncode == 1
    course.exec("ip", "netns", "del", "mine")


def test_each_difference_is_named_and_repaired(course: Course, admin: Rest, servers: list[str]) -> None:
    stays, gone = servers
    before = course.exec("virsh", "domid", domain(admin, stays)).stdout
    planted = plant(course, admin, gone)
    code, seen = doctor(course)
    found: dict[str, list[str]] = {}
    for one in seen["found"]:
        found.setdefault(one["kind"], []).append(one["what"])
        assert one["cause"] and one["cure"], one
    assert {kind: " ".join(sorted(names)) for kind, names in found.items()} == planted
    assert code == 1 and seen["differences"] == len(planted) + 1
    left = {(one["kind"], one["what"]) for one in seen["left"]}
    assert left == {("domain", "somebodys")}
    told = course.nacre("doctor", check=False)
    assert told.returncode == 1 and told.stdout.splitlines()[-1] == f"differences: {seen['differences']}"

    code, fixed = doctor(course, "--fix")
    assert (code, fixed["differences"], fixed["found"]) == (0, 0, []), fixed
    assert {(one["kind"], one["what"]) for one in fixed["left"]} == left
    assert course.exec("virsh", "domid", domain(admin, stays)).stdout == before and status(admin, stays) == "ACTIVE", "the guest went on"
    aside = [path for path in (course.home / "hosts/1/instances/_set_aside").iterdir() if path.name.startswith(NOBODY)]
    assert (aside[0] / "disk").read_text() == "precious"
    assert "somebodys" in course.exec("virsh", "list", "--all", "--name").stdout
    assert course.exec("virsh", "domstate", domain(admin, gone)).stdout.strip() == "shut off"
    admin("POST", f"/compute/v2.1/servers/{gone}/action", {"os-start": None})
    until(lambda: status(admin, gone) == "ACTIVE", 60)
    assert doctor(course)[0] == 0


def test_why_and_explain(course: Course, admin: Rest, servers: list[str]) -> None:
    found = json.loads(typed(course, "why", servers[0], "--json").stdout)
    assert found["requests"][-1]["did"][0] == "server create"
    told = typed(course, "why", found["requests"][-1]["id"])
    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert any("POST /compute/v2.1/servers: 202" in line for line in lines) and any("qemu-img create" in line for line in lines)
    assert any("libvirt: define instance-" in line for line in lines) and any("node call ensure_server on nacre-1" in line for line in lines)
    told = typed(course, "explain", "server", servers[0])
    assert told.returncode == 0 and "on host nacre-1." in told.stdout and "1. nacre-1: " in told.stdout
    for words in (("why", "req-unknown"), ("why", "../x"), ("explain", "server", NOBODY)):
        refused = typed(course, *words)
        assert refused.returncode == 1 and not refused.stdout and refused.stderr.count("\n") == 1, refused.stderr
        assert refused.stderr.startswith("nacre: ") and words[-1] in refused.stderr


def test_without_its_api_the_doctor_says_so(course: Course, servers: list[str]) -> None:
    course.nacre("down")
    refused = course.nacre("doctor", check=False)
    assert refused.returncode == 1 and "The api does not run" in refused.stderr.splitlines()[-1]
    assert typed(course, "why", servers[0]).returncode == 0, "what is in the database is told all the same"
