"""`up`, `status`, `down` and the supervisor on a real machine, from a clone and in a home that only root can enter."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.course import Course, free_port, fresh, until

pytestmark = pytest.mark.machine
OURS = {"up", "api", "worker", "node"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Course]:
    with fresh("--hypervisor", "fake", "--fake-hosts", "2") as made:
        yield made


@pytest.fixture
def running(cloud: Course) -> Course:
    cloud.nacre("up")
    return cloud


def processes(cloud: Course) -> dict[str, dict[str, Any]]:
    return {row["role"]: row for row in json.loads(cloud.nacre("status", "--json").stdout)["processes"]}


def cloud_log(cloud: Course) -> str:
    """The end of the supervisor's log, for messages of assertions."""
    return cloud.nacre("logs", "up").stdout[-3000:]


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def below(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, owner and group of everything from / down to `folder`."""
    return {str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.parents)}


def test_each_process_shows_what_it_is(running: Course) -> None:
    seen = processes(running)
    assert seen.keys() == OURS
    for role, row in seen.items():
        assert f"nacre {role} " in arguments(row["pid"]) and arguments(row["pid"]).endswith(f"--home {running.home}")
        assert 1 < row["pss_mb"] < 300
    assert seen["up"]["pss_mb"] <= 25, "the supervisor stays small"


def test_only_the_supervisor_keeps_privileges(running: Course) -> None:
    for role, row in processes(running).items():
        status = Path(f"/proc/{row['pid']}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if role == "up":
            continue
        assert "0" not in facts["Uid"].split() and "0" not in facts["Gid"].split(), role
        assert facts["NoNewPrivs"] == "1" and int(facts["CapEff"], 16) == 0 and not facts["Groups"].strip(), role


def test_nothing_outside_the_home_changes(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    before = below(locked)
    with fresh("--hypervisor", "fake") as other:
        assert other.home.parent.stat().st_mode & 0o777 == 0o700
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(other.home) not in mounts and "/run/nacre" not in mounts, "the machine's own mounts stay as they were"
    assert below(locked) == before


def test_up_again_changes_nothing(running: Course) -> None:
    before, files = processes(running), {path: path.read_bytes() for path in running.home.glob("keystonerc_*")}
    begun = time.monotonic()
    said = running.nacre("up").stdout
    assert time.monotonic() - begun < 5
    assert {role: row["pid"] for role, row in processes(running).items()} == {role: row["pid"] for role, row in before.items()}
    assert {path: path.read_bytes() for path in files} == files
    assert f"https://127.0.0.1:{running.port}" in said and f". {running.home}/keystonerc_admin" in said


def test_two_at_once_make_one_cloud(running: Course) -> None:
    running.nacre("down")
    words = [str(running.clone / "nacre"), "up", "--home", str(running.home)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert processes(running).keys() == OURS


@pytest.mark.parametrize("role", ["api", "worker", "node"])
def test_a_dead_process_is_back_within_a_second(running: Course, role: str) -> None:
    for _ in range(3):
        time.sleep(1.1)
        before = processes(running)[role]
        os.kill(before["pid"], signal.SIGKILL)
        now = until(lambda before=before: (row := processes(running).get(role)) and row["pid"] != before["pid"] and row, 1.0, 0.05)
        said = cloud_log(running)
        assert now["restarts"] == before["restarts"] + 1, said  # type: ignore[index]


def test_one_that_keeps_dying_is_never_given_up(running: Course) -> None:
    before = processes(running)["worker"]["restarts"]
    end = time.monotonic() + 6
    while time.monotonic() < end:
        if row := processes(running).get("worker"):
            os.kill(row["pid"], signal.SIGKILL)
        time.sleep(0.1)
    running.nacre("up")  # what died before this command came is not its failure, and nothing waits out its pause
    after = processes(running)["worker"]["restarts"]
    assert 3 <= after - before <= 9, "slowed, not stopped"


def test_a_killed_supervisor_takes_nobody_with_it(running: Course) -> None:
    before = processes(running)
    os.kill(before["up"]["pid"], signal.SIGKILL)
    time.sleep(0.3)
    left = processes(running)
    assert left.keys() == OURS - {"up"}
    os.kill(left["worker"]["pid"], signal.SIGKILL)
    running.nacre("up")
    after = processes(running)
    assert after.keys() == OURS
    assert {role: after[role]["pid"] for role in ("api", "node")} == {role: before[role]["pid"] for role in ("api", "node")}
    os.kill(after["api"]["pid"], signal.SIGKILL)
    until(lambda: processes(running).get("api", after["api"])["pid"] != after["api"]["pid"], 1.0, 0.05)


def test_down_ends_them_also_without_a_supervisor(running: Course) -> None:
    os.kill(processes(running)["up"]["pid"], signal.SIGKILL)
    pids = [row["pid"] for row in processes(running).values()]
    running.nacre("down")
    assert processes(running) == {}
    for pid in pids:
        assert not Path(f"/proc/{pid}/smaps_rollup").exists() or str(running.home) not in arguments(pid)
    assert running.nacre("down").returncode == 0


def test_another_port(running: Course) -> None:
    old, new = running.port, free_port()
    running.nacre("up", "--port", str(new))
    try:
        assert f":{new}/" in (running.home / "clouds.yaml").read_text()
        assert running.openstack("demo", "token", "issue", "-f", "value", "-c", "project_id")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", old), 1).close()
    finally:
        running.nacre("up", "--port", str(old))


def test_a_taken_port_says_what_to_do(running: Course) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = running.nacre("up", "--port", str(taken.getsockname()[1]), check=False)
        assert said.returncode == 1 and "--port" in said.stderr.splitlines()[-1], said
    running.nacre("up", "--port", str(running.port))


def test_foreground_stays_and_ends_with_its_signal(running: Course) -> None:
    running.nacre("down")
    words = [str(running.clone / "nacre"), "up", "--home", str(running.home), "--foreground"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        assert any("is ready" in line for line in process.stdout)
        assert process.poll() is None and processes(running).keys() == OURS
        process.terminate()
        assert process.wait(30) == 0
    assert processes(running) == {}


def test_logs(running: Course) -> None:
    lines = [json.loads(line) for line in running.nacre("logs", "up", "--json").stdout.splitlines()]
    assert lines and all({"time", "level", "service", "request_id", "message"} <= line.keys() for line in lines)
    for path in (running.home / "logs").glob("*.log"):
        assert all(json.loads(line)["service"] == path.stem for line in path.read_text().splitlines()), path


def test_a_wrong_option_is_named(running: Course) -> None:
    toml = running.home / "nacre.toml"
    text = toml.read_text()
    toml.write_text(text.replace("[nacre]", "[nacre]\nprot = 1"))
    try:
        said = running.nacre("up", check=False)
        assert said.returncode == 1 and "prot" in said.stderr.splitlines()[-1]
    finally:
        toml.write_text(text)


def test_a_foreign_folder_is_not_wiped(running: Course, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    said = subprocess.run([running.clone / "nacre", "down", "--wipe", "--home", tmp_path], capture_output=True, text=True, check=False)
    assert said.returncode == 1 and (tmp_path / "thesis.tex").exists()
    empty = subprocess.run([running.clone / "nacre", "down", "--home", tmp_path / "nothing"], capture_output=True, check=False)
    assert empty.returncode == 0


def test_wipe_leaves_nothing() -> None:
    with fresh("--hypervisor", "fake") as other:
        pids = [row["pid"] for row in processes(other).values()]
        other.nacre("down", "--wipe")
        assert not other.home.exists() and not any(str(other.home) in arguments(pid) for pid in pids if Path(f"/proc/{pid}").exists())
        assert str(other.home) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture(scope="module")
def hosted() -> Iterator[Course]:
    """A cloud with a real host."""
    with fresh() as made:
        yield made


def answers_inside(cloud: Course) -> bool:
    url = f"https://127.0.0.1:{cloud.port}/identity/v3"
    program = "import ssl, sys, urllib.request as r; r.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2]), timeout=3)"
    return not cloud.exec("python3", "-c", program, url, str(cloud.home / "ca.pem"), check=False).returncode


def test_status_lists_the_daemons_of_the_host(hosted: Course) -> None:
    seen = processes(hosted)
    assert seen.keys() >= OURS | {"init", "ovsdb-server", "ovs-vswitchd", "virtlogd", "libvirtd"}
    for role in ("ovsdb-server", "ovs-vswitchd", "libvirtd"):
        assert role in arguments(seen[role]["pid"]) and seen[role]["host"] == "nacre-1"
    assert sum(seen[role]["pss_mb"] for role in OURS) <= 250
    assert answers_inside(hosted)


def test_down_leaves_the_host_alone(hosted: Course) -> None:
    before = processes(hosted)
    hosted.nacre("down")
    left = processes(hosted)
    assert not left.keys() & OURS and {role: row["pid"] for role, row in left.items()} == {
        role: row["pid"] for role, row in before.items() if role not in OURS
    }
    hosted.nacre("up")
    after = processes(hosted)
    assert all(after[role]["pid"] == row["pid"] for role, row in left.items()) and answers_inside(hosted)


def test_a_dead_host_comes_back_with_its_node_and_the_api_in_it(hosted: Course) -> None:
    before = processes(hosted)
    os.kill(before["init"]["pid"], signal.SIGKILL)
    until(lambda: processes(hosted).get("node", before["node"])["pid"] != before["node"]["pid"], 10)
    until(lambda: answers_inside(hosted), 10)
    assert processes(hosted)["init"]["pid"] != before["init"]["pid"]
    assert processes(hosted)["worker"]["pid"] == before["worker"]["pid"]


def test_guests_and_hosts_end_when_asked(hosted: Course) -> None:
    pids = [row["pid"] for row in processes(hosted).values()]
    hosted.nacre("down", "--guests")
    assert processes(hosted) == {} and not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    hosted.nacre("up")
    assert answers_inside(hosted)


def living_in(spaces: set[str]) -> dict[str, str]:
    """Processes in these namespaces. One that has ended is there until the machine's process 1 has looked after it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/ns/*"):
        try:
            if os.readlink(entry) in spaces:
                found[str(entry)] = arguments(int(entry.parts[2]))
        except OSError:
            continue
    return found


def test_wipe_leaves_nothing_of_a_host() -> None:
    links, mounts = os.listdir("/sys/class/net"), Path("/proc/self/mountinfo").read_text()
    with fresh() as other:
        pids = [row["pid"] for row in processes(other).values()]
        spaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in ("net", "mnt", "pid")}
        spaces -= {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}
        other.nacre("down", "--wipe")
        assert not other.home.exists() and not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
        until(lambda: not living_in(spaces), 10)
    assert os.listdir("/sys/class/net") == links and Path("/proc/self/mountinfo").read_text() == mounts
