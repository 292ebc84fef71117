"""`up --on-host`: the machine itself is the host. The machine is played by namespaces (outer.py), once without and once with systemd."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from machine import guests
from machine.guests import Guest
from machine.outer import OuterCourse, played

pytestmark = [pytest.mark.machine, pytest.mark.long]
DATABASE = "/var/lib/openvswitch/conf.db"
FIRST_RUN = f"{DATABASE} {Path(DATABASE).parent}/.conf.db.~lock~ /var/log/openvswitch/*"
OURS = {"up", "api", "worker", "node"}
RUNNING = OURS | {"init", "ovsdb-server", "ovs-vswitchd", "virtlogd", "libvirtd", "dnsmasq", "guest"}
THEIRS = """<domain type='qemu'><name>web</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""


@pytest.fixture(scope="module")
def course() -> Iterator[OuterCourse]:
    with played() as made:
        yield made


@pytest.fixture(autouse=True)
def _on_the_machine(course: OuterCourse) -> Iterator[None]:
    with course.machine.network():
        yield


@pytest.fixture(scope="module")
def before(course: OuterCourse) -> dict[str, object]:
    return course.machine.looks()


@pytest.fixture(scope="module")
def guest(course: OuterCourse, before: dict[str, object]) -> Guest:
    """On a cloud that has this machine for its host."""
    with course.machine.network():
        status, said = up(course)
        assert status == 0, said
        guests.prepare(course)
        return guests.create(course, "vm1")


def roles(course: OuterCourse) -> set[str]:
    return {row["role"] for row in json.loads(course.nacre("status", "--json").stdout)["processes"]}


def up(course: OuterCourse, *options: str) -> tuple[int, str]:
    done = course.nacre("up", "--on-host", "--port", str(course.port), *options, check=False)
    return done.returncode, done.stderr.strip().rpartition("\n")[2]


OBSTACLES = {
    "bridge br-int": (["ovs-appctl", "--version"], []),
    "interface ext-out": (["ip", "link", "add", "ext-out", "type", "bridge"], ["ip", "link", "delete", "ext-out"]),
    "interface br-ex, which is no bridge of Open vSwitch": (["ip", "link", "add", "br-ex", "type", "bridge"], ["ip", "link", "delete", "br-ex"]),
    "namespace qrouter-theirs": (["ip", "netns", "add", "qrouter-theirs"], ["ip", "netns", "delete", "qrouter-theirs"]),
    "nftables table inet outside": (["nft", "add", "table", "inet", "outside"], ["nft", "delete", "table", "inet", "outside"]),
    "guest instance-00000001": (["sh", "-c", "echo '<domain/>' > /etc/libvirt/qemu/instance-00000001.xml"],
                                ["rm", "/etc/libvirt/qemu/instance-00000001.xml"]),
}  # fmt: skip


@pytest.mark.parametrize("obstacle", list(OBSTACLES))
def test_what_is_somebody_elses_is_named_and_nothing_changes(course: OuterCourse, before: dict[str, object], obstacle: str) -> None:
    make, clear = OBSTACLES[obstacle]
    if not clear:  # a database with their br-int, and nobody who runs it
        _database_with(course, "br-int")
        clear = ["sh", "-c", f"rm -f {FIRST_RUN}"]
    course.machine.run(*make)
    found = course.machine.looks()
    status, said = up(course)
    assert status == 1 and obstacle in said and "Nothing was changed" in said, said
    assert course.machine.looks() == found and not course.home.exists()
    course.machine.run(*clear)
    assert course.machine.looks() == before


def _database_with(course: OuterCourse, bridge: str) -> None:
    course.machine.run("ovsdb-tool", "create", DATABASE, "/usr/share/openvswitch/vswitch.ovsschema")
    rows = ["Open_vSwitch", {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": bridge}},
            {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}}]  # fmt: skip
    course.machine.run("ovsdb-tool", "transact", DATABASE, json.dumps(rows))


@pytest.mark.parametrize("options", [("--nodes", "2"), ("--hypervisor", "fake")])
def test_the_machine_is_the_one_host(course: OuterCourse, before: dict[str, object], options: tuple[str, str]) -> None:
    status, said = up(course, *options)
    assert status == 1 and "the machine is the one host" in said, said
    assert course.machine.looks() == before and not course.home.exists()


def test_a_guest_on_the_machine_itself(course: OuterCourse, guest: Guest) -> None:
    guest.reached()
    assert guest.run("hostname") == "vm1"
    assert "instance-00000001" in course.machine.run("virsh", "list", "--name")
    assert {"br-int", "br-tun", "br-ex"} <= set(course.machine.run("ovs-vsctl", "list-br").split())
    assert "qrouter-" in course.machine.run("ip", "netns", "list")
    assert roles(course) == RUNNING


def test_commands_run_plainly(course: OuterCourse, guest: Guest) -> None:
    assert course.exec("sh", "-c", "pwd; hostname").stdout.split() == [str(course.work), "played"]
    own = [course.exec("readlink", f"/proc/self/ns/{kind}").stdout for kind in ("net", "mnt", "pid")]
    assert own == [course.machine.run("readlink", f"/proc/1/ns/{kind}") for kind in ("net", "mnt", "pid")]
    assert course.exec("sh", "-c", "exit 3", check=False).returncode == 3
    assert "serving nacre-1" in course.nacre("logs", "node").stdout


def test_the_guest_does_not_notice_down_and_up(course: OuterCourse, guest: Guest) -> None:
    guest.reached()
    uptime, boot = guest.uptime(), guest.boot()
    assert "guests go on" in course.nacre("down").stdout
    assert roles(course) == RUNNING - OURS
    assert guest.boot() == boot and guest.uptime() >= uptime
    assert up(course)[0] == 0
    assert roles(course) == RUNNING and guest.boot() == boot


def test_another_cloud_finds_the_machine_taken(course: OuterCourse, guest: Guest) -> None:
    other = replace(course, home=course.home.with_name("other"))
    status, said = up(other)
    assert status == 1 and f"the cloud in {course.home}" in said and "bridge br-int" in said, said
    assert not other.home.exists() and guest.pings()


def test_what_is_the_owners_stays(course: OuterCourse, guest: Guest) -> None:
    """A bridge and a guest of the owner's beside the cloud, in the same switch and the same libvirt."""
    course.machine.run("ovs-vsctl", "add-br", "br-lan", "--", "set", "bridge", "br-lan", "datapath_type=netdev")
    course.machine.run("virsh", "define", "/dev/stdin", stdin=THEIRS)
    course.machine.run("virsh", "start", "web")
    guest.reached()
    boot = guest.boot()
    said = course.nacre("down", "--guests").stdout
    assert "Left alone, because others made it: bridge br-lan, guest web." in said
    assert course.machine.run("pgrep", "-c", "qemu-system").strip() == "1"
    assert not course.machine.run("ip", "netns", "list") and "br-int" not in course.machine.run("ip", "link", "show")
    assert up(course)[0] == 0
    assert set(course.machine.run("virsh", "list", "--name").split()) == {"web", "instance-00000001"}
    guest.reached()
    assert guest.boot() != boot


def test_guests_start_again_after_the_machine_did(course: OuterCourse, guest: Guest) -> None:
    guest.reached()
    boot = guest.boot()
    course.machine.off()
    course.machine.boot()
    with course.machine.network():
        assert course.nacre("status").stdout.startswith("No cloud runs")
        assert up(course)[0] == 0
        guest.reached()
        assert guest.boot() != boot
        assert course.machine.run("virsh", "list", "--name").split() == ["instance-00000001"], "the owner's is the owner's to start"


def test_wipe_leaves_nothing_but_the_owners(course: OuterCourse, guest: Guest, before: dict[str, object]) -> None:
    theirs = "web" in course.machine.run("virsh", "list", "--all", "--name")
    said = course.nacre("down", "--wipe").stdout
    assert said.startswith(f"Wiped: nothing of {course.home} is left.") and not course.home.exists()
    if theirs:
        assert "Left alone, because others made it: bridge br-lan, guest web." in said
        assert "br-lan" in (course.machine.place.folder / "lib/openvswitch/conf.db").read_text()
        course.machine.run("sh", "-c", f"rm -f /etc/libvirt/qemu/web.xml {FIRST_RUN}; for link in br-lan ovs-netdev; do ip link delete $link; done")
    assert course.machine.looks() == before


@pytest.fixture(scope="module")
def systemd() -> Iterator[OuterCourse]:
    with played(systemd=True) as made:
        yield made


def test_where_systemd_runs_it_keeps_the_cloud(systemd: OuterCourse) -> None:
    """Process 1 is the real systemd with the distribution's units of libvirtd and Open vSwitch."""
    before = systemd.machine.looks()
    control = partial(systemd.machine.run, "systemctl", "--no-pager")
    with systemd.machine.network():
        status, said = up(systemd)
        assert status == 0, said
        assert systemd.machine.run("systemd-analyze", "verify", "/etc/systemd/system/nacre.service") == ""
        assert control("is-enabled", "nacre").strip() == "enabled" and control("is-active", "libvirtd", "ovs-vswitchd").split() == ["active"] * 2
        guests.prepare(systemd)
        guest = guests.create(systemd, "vm1")
        guest.reached()
        boot = guest.boot()
        served = systemd.machine.run("pgrep", "dnsmasq")
        control("restart", "nacre")
        assert "guests go on" in systemd.nacre("down").stdout
        assert "nacre.service" not in control("list-units", "--state=active") and "enabled" not in control("show", "-P", "UnitFileState", "nacre")
        assert roles(systemd) == RUNNING - OURS - {"virtlogd"} | {"virtlogd"} & roles(systemd)
        assert guest.boot() == boot and systemd.machine.run("pgrep", "dnsmasq") == served
        assert up(systemd)[0] == 0
        guest.reached()
    systemd.machine.off()
    systemd.machine.boot_with_systemd()
    with systemd.machine.network():
        guest.reached(180)
        assert guest.boot() != boot, "nobody typed anything since the machine booted"
        assert systemd.nacre("down", "--wipe").stdout.startswith("Wiped")
        after = systemd.machine.looks()
    kept = {"files": {**dict(before["files"]), **{name: after["files"][name] for name in ("etc/openvswitch", "lib/openvswitch", "log/openvswitch")}}}  # type: ignore[call-overload, index]
    assert after == {**before, **kept}, "the distribution's own files of the switch stay"
