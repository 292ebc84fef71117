"""A sandbox host for real: daemons, exec, a guest, restarts, and that nothing is left behind. The home lies below a 0700 folder."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nacre.core.config import Home
from nacre.guest import build
from nacre.node.commands import CommandFailed, run
from nacre.sandbox import namespaces
from nacre.sandbox.host import SandboxError, SandboxHost

pytestmark = pytest.mark.machine

SOURCE = Path(build.__file__).parents[2]
TYPED = """
import sys
from pathlib import Path
from nacre.core.config import Home
from nacre.sandbox import exec
from nacre.sandbox.host import SandboxHost
sys.exit(exec.run(SandboxHost(Home(Path(sys.argv[1])), 1), sys.argv[2:]))
"""


def wait_for(seen: Callable[[], bool], limit: float) -> float:
    begin = time.monotonic()
    while not seen():
        assert time.monotonic() - begin < limit
        time.sleep(0.02)
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxHost]:
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    host = SandboxHost(Home(closed / "home"), 1)
    host.ensure()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("image") / "guest.qcow2"
    build.build(image, print)
    return image


def inside(host: SandboxHost, *argv: str) -> str:
    return run(host.command(argv))


def typed(host: SandboxHost, *argv: str) -> list[str]:
    return [sys.executable, "-c", TYPED, str(host.home.path), *argv]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def daemon_pid(host: SandboxHost, role: str) -> int:
    return next((process.pid for process in host.processes() if process.role == role), 0)


def test_daemons_answer_and_a_second_start_changes_nothing(host: SandboxHost) -> None:
    first = host.pid()
    assert {process.role for process in host.processes()} == {"ovsdb-server", "ovs-vswitchd", "virtlogd", "libvirtd"}
    host.ensure()
    assert host.pid() == first
    assert inside(host, "hostname").strip() == "nacre-1"
    assert inside(host, "virsh", "list", "--all").split()[:3] == ["Id", "Name", "State"]
    inside(host, "ovs-vsctl", "add-br", "br-probe", "--", "set", "bridge", "br-probe", "datapath_type=netdev")
    assert "br-probe" in inside(host, "ip", "link", "show")
    assert "br-probe" not in run(["ip", "link", "show"])
    inside(host, "ovs-vsctl", "del-br", "br-probe")


def test_process_1_is_nobodys_child_of_ours(host: SandboxHost) -> None:
    status = Path(f"/proc/{host.pid()}/status").read_text()
    parent = next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1]
    assert int(parent) != os.getpid()
    assert os.getsid(host.pid()) != os.getsid(0)


def test_the_machine_is_as_seen_outside(host: SandboxHost, tmp_path: Path) -> None:
    inside(host, "touch", str(tmp_path / "made-inside"))
    assert (tmp_path / "made-inside").exists()
    assert inside(host, "ls", str(host.home.reach / "hosts/1")) == inside(host, "ls", str(host.folder))
    unprivileged = host.command(["setpriv", "--reuid=65534", "--clear-groups", "ls", str(host.home.reach / "hosts/1/instances")])
    assert run(unprivileged) == ""
    assert not host.home.reach.exists()


def test_nothing_leads_out(host: SandboxHost) -> None:
    links = json.loads(inside(host, "ip", "-json", "-details", "link", "show"))
    assert {link["ifname"] for link in links} == {"lo", "eth0", "eth-ext", "ext-out"}
    assert run(["ip", "-brief", "link", "show", "type", "veth"]).find("eth-ext") < 0
    with pytest.raises(CommandFailed, match="unreachable"):
        inside(host, "ip", "route", "get", "198.51.100.1")


def test_exec_is_as_if_typed_here(host: SandboxHost, tmp_path: Path) -> None:
    done = subprocess.run(
        typed(host, "sh", "-c", 'pwd; echo "$WORD"; cat; hostname; exit 3'),
        input=b"from stdin\n",
        capture_output=True,
        cwd=tmp_path,
        env=environment(WORD="from here"),
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout.decode().splitlines() == [str(tmp_path), "from here", "from stdin", "nacre-1"]
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["true"], 0), (["sh", "-c", "kill -TERM $$"], 143), (["no-such-command"], 127), (["/etc/hostname"], 126)],
)
def test_exec_status(host: SandboxHost, argv: list[str], status: int) -> None:
    done = subprocess.run(typed(host, *argv), capture_output=True, env=environment(), check=False)
    assert done.returncode == status
    assert done.stdout == b""


def test_exec_passes_a_kill_on(host: SandboxHost) -> None:
    with subprocess.Popen(typed(host, "sh", "-c", "echo ready; exec sleep 60"), stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(5) == 143


def test_exec_on_a_terminal(host: SandboxHost) -> None:
    pid, terminal = pty.fork()
    if not pid:
        words = typed(host, "sh", "-c", "test -t 0 && stty size; trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done")
        os.execve(words[0], words, environment())
    termios.tcsetwinsize(terminal, (33, 99))
    output = b""
    sent = False
    while select.select([terminal], [], [], 60)[0]:
        try:
            output += os.read(terminal, 1024)
        except OSError:
            break
        if b"ready" in output and not sent:
            os.write(terminal, b"\x03")
            sent = True
    else:
        os.kill(pid, signal.SIGKILL)  # which is what hangs up its terminal
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert b"33 99" in output and b"caught" in output


def test_exec_stops_and_goes_on_with_its_group(host: SandboxHost) -> None:
    words = typed(host, "sh", "-c", "echo ready; read line; echo got $line")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), process_group=0) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            os.killpg(process.pid, signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            os.killpg(process.pid, signal.SIGCONT)
            assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
            time.sleep(0.1)
            assert os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG) == (0, 0)
        process.stdin.write(b"it\n")
        process.stdin.close()
        assert process.stdout.readline() == b"got it\n"
        assert process.wait(5) == 0


def test_spawned_processes_and_sockets_live_inside(host: SandboxHost) -> None:
    process = host.spawn(["sh", "-c", "exec sleep 60"])
    try:
        outside = os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/net")

        def entered() -> bool:
            return os.readlink(f"/proc/{process.pid}/ns/mnt") == os.readlink(f"/proc/{host.pid()}/ns/mnt")

        wait_for(entered, 2)
        for kind in ("net", "uts", "ipc", "pid"):
            assert os.readlink(f"/proc/{process.pid}/ns/{kind}") == os.readlink(f"/proc/{host.pid()}/ns/{kind}")
        assert (os.readlink("/proc/thread-self/ns/pid_for_children"), os.readlink("/proc/thread-self/ns/net")) == outside
    finally:
        process.kill()
        process.wait()
    with host.listen("127.0.0.1", 15999):
        assert "127.0.0.1:15999" in inside(host, "ss", "--listening", "--tcp", "--numeric")
        assert "127.0.0.1:15999" not in run(["ss", "--listening", "--tcp", "--numeric"])


def test_a_dead_daemon_is_back_within_a_second(host: SandboxHost) -> None:
    for role in ("libvirtd", "ovs-vswitchd"):
        before = daemon_pid(host, role)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda role=role, before=before: daemon_pid(host, role) not in (0, before), 1.0)  # type: ignore[misc]
    wait_for(lambda: subprocess.run(host.command(["virsh", "uri"]), capture_output=True, check=False).returncode == 0, 5)


GUEST = """<domain type='qemu'><name>probe</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type></os><features><acpi/></features><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{folder}/disk'/><target dev='vda' bus='virtio'/></disk>
<serial type='pty'><log file='{folder}/console.log' append='off'/></serial><memballoon model='virtio'/>
</devices></domain>"""


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_guest_of_64_mib_boots_and_outlives_libvirtd(host: SandboxHost, guest_image: Path, machine: str) -> None:
    instances = host.folder / "instances"
    base, folder = instances / f"base-{machine}", instances / machine
    reach = host.home.reach / "hosts/1/instances" / machine
    folder.mkdir()
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(guest_image), str(base)])
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"{reach.parent}/{base.name}", f"{reach}/disk", "1G"]
    run(host.command(overlay))
    (folder / "domain.xml").write_text(GUEST.format(machine=machine, folder=reach))
    inside(host, "virsh", "create", f"{reach}/domain.xml")
    try:
        guest = daemon_pid(host, "guest")
        assert Path(f"/proc/{guest}").owner() == "libvirt-qemu"
        before = daemon_pid(host, "libvirtd")
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: b"login:" in (folder / "console.log").read_bytes(), 60)
        assert b"GROWROOT: /dev/vda1" in (folder / "console.log").read_bytes()
        assert daemon_pid(host, "guest") == guest
        assert inside(host, "virsh", "domstate", "probe").strip() == "running"
    finally:
        inside(host, "virsh", "destroy", "probe")
    wait_for(lambda: daemon_pid(host, "guest") == 0, 5)


def test_a_second_host_reaches_the_first_and_needs_it(host: SandboxHost) -> None:
    second = SandboxHost(host.home, 2)
    second.ensure()
    try:
        run(second.command(["ping", "-c", "1", "-W", "2", "192.0.2.1"]))
        assert inside(second, "hostname").strip() == "nacre-2"
        uuids = [inside(each, "virsh", "capabilities").split("<uuid>")[1].split("<")[0] for each in (host, second)]
        assert uuids[0] != uuids[1]
    finally:
        second.stop()
    assert "u2" not in run(["nsenter", f"--net=/proc/{host.pid()}/root/run/nacre/fabric", "ip", "link", "show"])


def test_the_first_host_returns_to_the_cables_of_the_others(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first, *others = hosts = [SandboxHost(home, number) for number in (1, 2, 3)]

    def reaches(one: SandboxHost, number: int) -> str:
        return inside(one, "ping", "-c", "1", "-W", "2", f"192.0.2.{number}")

    try:
        for host in hosts:
            host.ensure()
        reaches(others[0], 1)
        cables = [inside(host, "ip", "-o", "link", "show", "eth0") for host in others]
        before = first.pid()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: not first.running(), 5)
        reaches(others[0], 3)
        first.ensure()
        for host in hosts:
            host.ensure()
        assert first.pid() != before and [inside(host, "ip", "-o", "link", "show", "eth0") for host in others] == cables
        reaches(others[0], 1)
        reaches(others[1], 1)
        assert "lladdr 02:6e:61:00:01:01" in inside(others[1], "ip", "neigh", "show", "192.0.2.1")
    finally:
        for host in reversed(hosts):
            host.stop()


def test_stop_leaves_nothing(tmp_path: Path) -> None:
    def seen() -> tuple[str, str]:
        return run(["ip", "-brief", "link", "show"]), Path("/proc/self/mountinfo").read_text()

    before = seen()
    home = Home(tmp_path / "home")
    host = SandboxHost(home, 1)
    with pytest.raises(SandboxError):
        SandboxHost(home, 2).ensure()
    assert not SandboxHost(home, 2).running()
    host.stop()
    host.ensure()
    inside(host, "ip", "netns", "add", "qrouter-probe")
    child = host.spawn(["sleep", "60"])
    members = [process.pid for process in host.processes()]
    host.stop()
    assert not host.running()
    assert host.processes() == []
    assert child.wait(2) != 0
    assert not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in members)
    with pytest.raises(SandboxError):
        host.command(["true"])
    host.stop()
    host.ensure()
    assert "qrouter-probe" not in inside(host, "ip", "netns", "list")
    host.stop()
    shutil.rmtree(home.path)
    assert seen() == before
    assert home.mark not in run(["ps", "-e", "-o", "args"])


def test_a_home_hidden_by_private_folders_is_refused() -> None:
    with pytest.raises(SandboxError, match="/run"):
        SandboxHost(Home(Path("/run/nacre-probe")), 1).ensure()
    assert not Path("/run/nacre-probe").exists()


def test_errors_of_the_kernel_are_told() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="setns"):
        namespaces.setns(file.fileno(), namespaces.CLONE_NEWNET)
