"""A machine played by namespaces: own network, mounts, processes and name, its own `/run`, and folders of libvirt and Open vSwitch as their
packages leave them. What a cloud does to "the machine itself" happens in here.

Process 1 is the sandbox's init with no daemon to keep, or systemd. A boot ends every process and empties `/run`; the other folders stay.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine.course import ROOT, Course, free_port, until
from nacre.core.config import Home
from nacre.node.commands import run
from nacre.sandbox import folders, namespaces, processes
from nacre.sandbox.host import SandboxHost

SOURCE = ROOT / "src"
KEPT = {**folders.PRIVATE, "etc/systemd/system": Path("/etc/systemd/system"), "var/log/journal": Path("/var/log/journal")}
VENDOR, GENERATORS = Path("/usr/lib/systemd/system"), Path("/usr/lib/systemd/system-generators")
UNITS = (
    *(f"{name}.target" for name in ("sysinit", "basic", "multi-user", "shutdown", "network", "network-online", "network-pre", "local-fs",
                                    "remote-fs", "sockets", "timers", "paths", "slices", "umount", "final")),
    "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "virtlogd.service", "virtlogd.socket",
    "virtlogd-admin.socket", "virtlockd.service", "virtlockd.socket", "virtlockd-admin.socket", "openvswitch-switch.service",
    "ovsdb-server.service", "ovs-vswitchd.service", "ovs-record-hostname.service", "system.slice", "machine.slice",
)  # fmt: skip
SYSTEMD = """\
set -e
{binds}
umount -l /sys && mount -t sysfs sysfs /sys && mount -t cgroup2 none /sys/fs/cgroup
umount -l /proc && mount -t proc proc /proc
ip link set lo up
export container=other
exec /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=0 > '{log}' 2>&1
"""
NETNS = "/run/netns"  # which `ip netns add` mounts onto itself when it is first typed


class Outer:
    """`folder` holds its private folders; the host of the same home is entered as any sandbox is."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.place = SandboxHost(self.home, 1)
        for name, place in KEPT.items():
            if place.is_dir():
                shutil.copytree(place, self.place.folder / name, symlinks=True, ignore=shutil.ignore_patterns("*") if name == "run" else None)
        (self.place.folder / "log").mkdir(exist_ok=True)
        if folders._kvm_denied():  # as folders.covered explains; this is the played machine's own configuration
            with (self.place.folder / "etc/libvirt/qemu.conf").open("a") as file:
                file.write("namespaces = []\n")

    def boot(self) -> None:
        host = self.place.folder
        shutil.rmtree(host / "run")
        for name in ("lock", "netns", "nacre"):
            (host / "run" / name).mkdir(parents=True)
        (host / "run/lock").chmod(0o1777)
        binds = [(str(host / name), str(place)) for name, place in KEPT.items() if place.is_dir()]
        spec = {
            "home": str(self.home.path), "reach": str(self.home.reach), "folder": str(host), "hostname": "played", "daemons": [],
            "binds": [*binds, *((str(file), str(device)) for file, device in folders.covered(host))],
            "identity": str(host / "process1.json"), "fabric": False,
        }  # fmt: skip
        environment = dict(os.environ, PYTHONPATH=str(SOURCE), PYTHONSAFEPATH="1")
        subprocess.run([sys.executable, "-m", "nacre.sandbox.launch"], input=json.dumps(spec), text=True, check=True,
                       env=environment, cwd="/", timeout=30)  # fmt: skip
        until((host / "daemons.json").exists, 60)

    def boot_with_systemd(self) -> None:
        """Process 1 is systemd with the units that a machine for this has, and none of the real machine's."""
        host = self.place.folder
        units = host / "lib/systemd/system"
        if not units.exists():
            units.mkdir(parents=True)
            (host / "lib/systemd/none").mkdir()
            for name in UNITS:
                if (VENDOR / name).exists():
                    shutil.copy2(VENDOR / name, units / name)
        shutil.rmtree(host / "run")
        (host / "run/lock").mkdir(parents=True)
        (host / "run/lock").chmod(0o1777)
        places = [(host / name, place) for name, place in KEPT.items() if place.is_dir()]
        places += [(units, VENDOR), (host / "lib/systemd/none", GENERATORS), *folders.covered(host)]
        binds = "\n".join(f"mount --bind '{source}' '{place}'" for source, place in places)
        (host / "boot").write_text(SYSTEMD.format(binds=binds, log=host / "log/systemd.log"))
        group = f"mount -t cgroup2 none /mnt && mkdir -p /mnt/{self.home.mark} && echo $$ > /mnt/{self.home.mark}/cgroup.procs && umount /mnt"
        spaces = "exec unshare --cgroup --pid --fork --mount --net --uts --ipc --propagation slave bash"
        words = ["unshare", "--mount", "bash", "-c", f"{group} && {spaces} '{host / 'boot'}'"]
        starter = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

        def first() -> str:
            return Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().strip()

        processes.write_identity(self.place._identity_file, processes.identify(int(str(until(first, 30)))))
        until(lambda: self.state() in ("running", "degraded"), 120)

    def state(self) -> str:
        words = self.place.command(["systemctl", "is-system-running"])
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()

    def off(self) -> None:
        """As when the power goes."""
        identity = processes.read_identity(self.place._identity_file)
        if identity and processes.alive(identity):
            namespace = processes.pid_namespace(identity.pid)
            os.kill(identity.pid, signal.SIGKILL)
            until(lambda: not (namespace and processes.members(namespace)), 60)
        group = f"/mnt/{self.home.mark}"
        clear = f"mount -t cgroup2 none /mnt && if [ -d {group} ]; then find {group} -depth -type d -exec rmdir {{}} +; fi"
        until(lambda: subprocess.run(["unshare", "--mount", "sh", "-c", clear], check=False).returncode == 0, 30)  # its last process may be going

    def run(self, *words: str, stdin: str | None = None) -> str:
        return run(self.place.command(words), stdin=stdin, timeout=120)

    @contextmanager
    def network(self) -> Iterator[None]:
        """The calling thread, and what it starts, in the machine's network."""
        with open(f"/proc/{self.place.pid()}/ns/net", "rb") as own, namespaces.visiting(own.fileno(), namespaces.CLONE_NEWNET, "net"):
            yield

    def looks(self) -> dict[str, object]:
        """Everything of the machine that a cloud could leave changed."""
        links = json.loads(self.run("ip", "-json", "address", "show"))
        return {
            "links": sorted((link["ifname"], link.get("address"), [info["local"] for info in link["addr_info"] if info["scope"] != "link"])
                            for link in links),
            "routes": self.run("ip", "-4", "route", "show", "table", "all"),
            "namespaces": self.run("ip", "netns", "list"),
            "nftables": self.run("nft", "list", "ruleset"),
            "forwarding": self.run("sysctl", "-n", "net.ipv4.ip_forward"),
            "mounts": sorted({line.split()[4] for line in self.run("cat", "/proc/self/mountinfo").splitlines()} - {NETNS}),
            "processes": sorted(self.run("ps", "-e", "-o", "comm=").split()),
            "guests": sorted(path.name for path in (self.place.folder / "etc/libvirt/qemu").glob("*.xml")),
            "files": {name: sorted(str(path.relative_to(self.place.folder / name)) for path in (self.place.folder / name).rglob("*"))
                      for name in ("etc/openvswitch", "etc/systemd/system", "lib/openvswitch", "log/openvswitch", "run/nacre")},
        }  # fmt: skip


@dataclass
class OuterCourse(Course):
    """A clone, home and student on a played machine. Commands are typed there."""

    machine: Outer

    def _run(self, words: list[str], timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        return super()._run(self.machine.place.command(words, cwd=str(self.work)), timeout, check)


@contextmanager
def played(*, systemd: bool = False) -> Iterator[OuterCourse]:
    """A machine that runs, with a clone on it and no cloud."""
    folder = Path(tempfile.mkdtemp(prefix="nacre-outer-"))
    folder.chmod(0o711)
    shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"), symlinks=True)
    (folder / "student").mkdir()
    machine = Outer(folder / "machine")
    try:
        machine.boot_with_systemd() if systemd else machine.boot()
        yield OuterCourse(folder / "clone", folder / "home", folder / "student", free_port(), machine)
    finally:
        machine.off()
        shutil.rmtree(folder)
