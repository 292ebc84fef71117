"""The private folders of a sandbox host, and the configuration libvirt and Open vSwitch find in them.

Everything lives in `<home>/hosts/<n>/`; each private folder is mounted over the machine's folder of that purpose. What describes the
host (`/etc/libvirt/*.conf`) is written anew at each start from what the machine's packages installed, so package upgrades arrive;
what the host made (domains, the switch's database, logs) stays. `/run` starts empty, as after a boot. Nothing outside the home changes.
"""

import grp
import os
import pwd
import shutil
import uuid
from pathlib import Path

from nacre.core.config import Home
from nacre.node.commands import run

PRIVATE = {
    "run": Path("/run"),
    "etc/libvirt": Path("/etc/libvirt"),
    "etc/openvswitch": Path("/etc/openvswitch"),
    "lib/libvirt": Path("/var/lib/libvirt"),
    "lib/openvswitch": Path("/var/lib/openvswitch"),
    "log/libvirt": Path("/var/log/libvirt"),
    "log/openvswitch": Path("/var/log/openvswitch"),
    "cache/libvirt": Path("/var/cache/libvirt"),
}
KVM = Path("/dev/kvm")
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
RUN_FOLDERS = ("lock", "netns", "openvswitch", "libvirt", "nacre")

LIBVIRTD = """
# Added for this host. Only root reaches the socket; nothing listens on TCP.
listen_tls = 0
listen_tcp = 0
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""

# remember_owner keeps counts in extended attributes that outlive a killed sandbox; mandatory access control profiles of the machine
# know nothing of the paths in here.
QEMU = """
# Added for this host.
security_driver = "none"
user = "libvirt-qemu"
group = "kvm"
dynamic_ownership = 1
remember_owner = 0
stdio_handler = "logd"
"""


def host_uuid(home: Home, number: int) -> uuid.UUID:
    """libvirt refuses a migration between hosts with the same UUID, and all hosts of a machine would have the machine's."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"nacre:{home.mark}:{number}")


def _walkable(folder: Path) -> None:
    """Let unprivileged daemons pass through a folder of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = folder.stat().st_mode & 0o7777
    if mode | 0o711 != mode:
        folder.chmod(mode | 0o711)


def _like(model: Path, folder: Path) -> None:
    """`folder` with owner and mode of the machine's `model`, and likewise its subfolders, empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if not model.is_dir():
        return
    pairs = [(model, folder)] + [(child, folder / child.name) for child in model.iterdir() if child.is_dir() and not child.is_symlink()]
    for source, target in pairs:
        target.mkdir(exist_ok=True)
        shutil.copystat(source, target)
        shutil.chown(target, source.stat().st_uid, source.stat().st_gid)


def _libvirt(home: Home, number: int, folder: Path) -> None:
    machine = PRIVATE["etc/libvirt"]
    for source in sorted(machine.glob("*.conf")):
        shutil.copy2(source, folder / source.name)
    if (machine / "nwfilter").is_dir() and not (folder / "nwfilter").exists():
        shutil.copytree(machine / "nwfilter", folder / "nwfilter")
    with (folder / "libvirtd.conf").open("a") as file:
        file.write(LIBVIRTD.format(uuid=host_uuid(home, number)))
    with (folder / "qemu.conf").open("a") as file:
        file.write(QEMU + ("namespaces = []\n" if _kvm_denied() else ""))


def covered(host: Path) -> list[tuple[Path, Path]]:
    """(file, device) pairs to be mounted over devices that guests could not use anyway.

    libvirt probes as root whether QEMU can use KVM and believes the answer only while libvirt-qemu may open /dev/kvm too; where that is
    not so it would probe anew, for many seconds, at every start of a guest. Its private /dev for each guest cannot hold such a cover, so
    it makes none then (`namespaces` in qemu.conf).
    """
    nothing = host / "no-kvm"
    if not _kvm_denied():
        return []
    nothing.touch(mode=0o000)
    return [(nothing, KVM)]


def _kvm_denied() -> bool:
    return KVM.exists() and not _may_open(KVM, "libvirt-qemu", "kvm")


def _may_open(device: Path, user: str, group: str) -> bool:
    """Whether processes of `user` in `group` may read and write `device`, by its mode."""
    seen = device.stat()
    groups = {grp.getgrnam(group).gr_gid, *os.getgrouplist(user, pwd.getpwnam(user).pw_gid)}
    shift = 6 if seen.st_uid == pwd.getpwnam(user).pw_uid else 3 if seen.st_gid in groups else 0
    return (seen.st_mode >> shift) & 0o6 == 0o6


def _switch_database(host: Path) -> None:
    database, link = host / "lib/openvswitch/conf.db", host / "etc/openvswitch/conf.db"
    if not database.exists():
        run(["ovsdb-tool", "create", str(database), str(SCHEMA)])
    elif run(["ovsdb-tool", "needs-conversion", str(database), str(SCHEMA)]).strip() == "yes":
        run(["ovsdb-tool", "convert", str(database), str(SCHEMA)])
    if not link.is_symlink():
        link.symlink_to("/var/lib/openvswitch/conf.db")


def prepare(home: Home, number: int) -> Path:
    """Make what host `number` needs before it starts; nothing of it may be running. Returns its folder as the machine sees it.

    Raises OSError, CommandFailed.
    """
    host = home.path / "hosts" / str(number)
    for folder in (home.path, host.parent, host, host / "instances"):
        _walkable(folder)
    shutil.rmtree(host / "run", ignore_errors=True)
    for name, place in PRIVATE.items():
        if name in {"etc/libvirt", "run"}:
            (host / name).mkdir(parents=True, exist_ok=True)
        else:
            _like(place, host / name)
    for name in RUN_FOLDERS:
        (host / "run" / name).mkdir()
    (host / "run/lock").chmod(0o1777)
    _libvirt(home, number, host / "etc/libvirt")
    _switch_database(host)
    return host
