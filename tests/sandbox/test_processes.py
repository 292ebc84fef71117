import os
from pathlib import Path

import msgspec

from nacre.sandbox import processes
from nacre.sandbox.processes import HostProcess


def test_another_process_with_the_same_pid_is_not_it(tmp_path: Path) -> None:
    me = processes.identify(os.getpid())
    assert processes.alive(me)
    assert not processes.alive(msgspec.structs.replace(me, start=me.start - 1))
    assert not processes.alive(msgspec.structs.replace(me, boot="another"))


def test_identity_file(tmp_path: Path) -> None:
    path = tmp_path / "process1.json"
    assert processes.read_identity(path) is None
    me = processes.identify(os.getpid())
    processes.write_identity(path, me)
    assert processes.read_identity(path) == me
    path.write_text("{")
    assert processes.read_identity(path) is None


def test_a_zombie_is_gone() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    identity = processes.identify(child)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(identity)
    os.waitpid(child, 0)


def test_roles() -> None:
    seen = {500: 1, 507: 7, 510: 10, 590: 90, 595: 95, 600: 100}
    names = {500: "python3", 507: "ovsdb-server", 510: "libvirtd", 590: "qemu-system-x86", 595: "dnsmasq", 600: "bash"}
    daemons = {"ovsdb-server": {"pid": 7, "restarts": 0}, "libvirtd": {"pid": 10, "restarts": 2}, "virtlogd": {"pid": 0, "restarts": 5}}
    assert processes.roles(seen, names, daemons) == [
        HostProcess("ovsdb-server", 507, 7, 0),
        HostProcess("libvirtd", 510, 10, 2),
        HostProcess("guest", 590, 90, 0),
        HostProcess("dnsmasq", 595, 95, 0),
    ]
