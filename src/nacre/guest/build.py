"""Builds the test guest: a small disk image that behaves like CirrOS, from Debian packages only.

Debian's cloud kernel (see kernel.py for how it starts in 64 MiB), busybox, dropbear, resize2fs, blkid, lsblk and a `sudo` of a few lines;
one ext4 partition behind an MBR, started by extlinux. What the guest does is in `files/`. User `cirros`, password `gocubsgo`.

Traps met: extlinux needs ext4 without 64bit and checksums, and a mounted file system (loader.py). Debian's busybox runs its applets
inside its own shell, so busybox itself is setuid; it drops the privilege for all applets but su, passwd, ping and the like. dropbear's
PATH lacks the sbin folders. An initrd in LZ4 costs 8 MiB while it is unpacked, gzip nothing. Creating the files of tracefs costs 9 MiB
and per-CPU memory with memory cgroups 4 MiB: both are off in extlinux.conf.
"""

import gzip
import hashlib
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

import nacre
from nacre.guest import kernel
from nacre.node.commands import CommandFailed, run

FILES = Path(__file__).with_name("files")
PACKAGES = (
    "busybox-static",
    "dropbear-bin",
    "e2fsprogs",
    "extlinux",
    "syslinux-common",
    "kmod",
    "util-linux",
    "cpio",
    "lz4",
    "gcc",
    "qemu-utils",
)
DISK_MIB = 56
SECTOR, FIRST_SECTOR = 512, 2048
MBR = Path("/usr/lib/EXTLINUX/mbr.bin")
FOLDERS = (
    *("bin", "sbin", "usr/bin", "usr/sbin", "usr/lib", "lib", "lib64", "boot", "etc/dropbear", "home/cirros", "root"),
    *("dev", "proc", "sys", "run", "tmp", "mnt", "var/lib", "var/log"),
)
BINARIES = ("/usr/sbin/dropbear", "/usr/bin/dbclient", "/usr/bin/dropbearkey", "/sbin/resize2fs", "/sbin/blkid", "/usr/bin/lsblk")
# dropbear's PATH is /usr/bin:/bin
ALSO_IN_BIN = ("ip", "ifconfig", "route", "arping", "mke2fs", "fdisk", "reboot", "poweroff", "getty", "login", "su")
LEFT_OUT = ("busybox", "dpkg", "dpkg-deb", "rpm", "rpm2cpio", "linuxrc", "init")
TO_FIND_ROOT = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
TO_FIND_ROOT_ON_IDE = ("ata_piix",)
LATER = (
    *("virtio_net", "virtio_balloon", "virtio_console", "virtio-rng", "ata_piix", "ata_generic", "sr_mod", "button", "evdev"),
    *("isofs", "vfat", "nls_cp437", "nls_iso8859-1", "nls_utf8", "nls_ascii", "overlay"),
    *("8021q", "e1000", "rtl8139", "8139cp", "8139too", "vxlan", "bridge", "dummy", "ip_tables", "iptable_filter"),
)
FEATURES = "^64bit,^metadata_csum,^metadata_csum_seed,^orphan_file,^huge_file"


KERNELS = Path("/opt/nacre")


class Kernel(msgspec.Struct, frozen=True):
    """Debian's cloud kernel below `tree`: the machine's own, or the package's files unpacked for us."""

    tree: Path
    version: str

    @property
    def image(self) -> Path:
        return self.tree / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        return self.tree / "lib/modules" / self.version


class GuestBuildError(Exception):
    """The image cannot be built; the message says what is missing."""


def fingerprint() -> str:
    """Changes when an image built now could differ from one built before: our files, the packages' versions."""
    digest = hashlib.sha256()
    for file in sorted([*FILES.rglob("*"), *Path(__file__).parent.glob("*.py")]):
        if file.is_file():
            digest.update(f"{file.relative_to(FILES.parent)}\0".encode() + file.read_bytes() + b"\0")
    digest.update(run(["dpkg-query", "--show", *PACKAGES]).encode())
    digest.update(_kernel().version.encode())
    return digest.hexdigest()


def build(out: Path, log: Callable[[str], None]) -> None:
    """Write the image (qcow2, 56 MiB virtual) to `out`, whole or not at all. Needs root. Raises GuestBuildError, CommandFailed, OSError."""
    with tempfile.TemporaryDirectory(prefix="nacre-guest-", dir=out.parent, ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        source = _kernel()
        root = work / "root"
        log(f"guest image: kernel {source.version}")
        _make_root(root)
        _compile_sudo(root / "usr/bin/sudo", work)
        _copy_modules(root, source, (*TO_FIND_ROOT, *LATER))
        _make_boot(work / "boot", source, work, log)
        _set_owners(root)
        _make_disk(root, work)
        run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(work / "disk"), str(work / "guest.qcow2")], timeout=120)
        os.replace(work / "guest.qcow2", out)
        log(f"guest image: {out.stat().st_size / 1e6:.1f} MB")


def _kernel() -> Kernel:
    for tree in (*sorted(KERNELS.glob("kernel-*"), reverse=True), Path("/")):
        found = [path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*cloud-amd64")]
        if found:
            return Kernel(tree, max(found, key=lambda name: [int(part) for part in name.replace("-", ".").split(".") if part.isdigit()]))
    raise GuestBuildError(f"no kernel in {KERNELS}/kernel-* nor in /boot: install linux-image-cloud-amd64")


# The root file system


def _make_root(root: Path) -> None:
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(FILES / "root", root, dirs_exist_ok=True)
    for file in root.rglob("*"):
        if file.is_file():
            file.chmod(0o755 if file.read_bytes()[:2] == b"#!" else 0o644)
    (root / "var/run").symlink_to("../run")
    (root / "sbin/init").symlink_to("/bin/busybox")
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    _link_applets(root)
    for program in BINARIES:
        _copy_program(Path(program), root)
    (root / "usr/bin/ssh").symlink_to("dbclient")


def _link_applets(root: Path) -> None:
    listed = [Path(line) for line in run(["/bin/busybox", "--list-full"]).split()]
    for applet in [*listed, *(Path("bin") / name for name in ALSO_IN_BIN)]:
        place = root / applet
        if applet.name not in LEFT_OUT and not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to("/bin/busybox")
    for name in ("getty", "reboot"):
        if not os.path.lexists(root / "sbin" / name):
            (root / "sbin" / name).symlink_to("/bin/busybox")


def _copy_program(program: Path, root: Path) -> None:
    """`program` and the libraries it is linked to, each under the path by which it is looked for."""
    needed = [word for word in run(["ldd", str(program)]).split() if word.startswith("/")]
    for name in [str(program), *needed]:
        target = root / name.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)
            target.chmod(0o755)


def _compile_sudo(target: Path, work: Path) -> None:
    run(["gcc", "-Os", "-s", "-o", str(work / "sudo"), str(FILES / "sudo.c")], timeout=60)
    shutil.copy2(work / "sudo", target)


def _set_owners(root: Path) -> None:
    for place in [root, *root.rglob("*")]:
        os.chown(place, 0, 0, follow_symlinks=False)
    os.chown(root / "home/cirros", 1000, 1000)
    as_root = ("usr/bin/sudo", "bin/busybox", "sbin/blkid")  # without udev only root can look at devices
    for name, mode in (*((program, 0o4755) for program in as_root), ("etc/shadow", 0o600), ("root", 0o700), ("tmp", 0o1777)):
        (root / name).chmod(mode)
    root.chmod(0o755)


# Kernel, modules, initrd


def _module_files(source: Kernel, names: Iterable[str]) -> list[Path]:
    """Files of the modules and of what they need, in the order of loading; a name that is built in or unknown has none."""
    found: dict[Path, None] = {}
    for name in names:
        shown = _show_depends(source, name)
        found |= dict.fromkeys(Path(words[1]) for words in map(str.split, shown.splitlines()) if words[:1] == ["insmod"])
    return list(found)


def _show_depends(source: Kernel, name: str) -> str:
    try:
        return run(["modprobe", "--dirname", str(source.tree), "--set-version", source.version, "--show-depends", name])
    except CommandFailed:
        return ""


def _copy_modules(root: Path, source: Kernel, names: Iterable[str]) -> list[str]:
    """Copy modules below `root`; returns their paths there."""
    files = {file: file.relative_to(source.tree) for file in _module_files(source, names)}
    for file, place in files.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        run(["strip", "--strip-debug", str(target)])
    folder = root / "lib/modules" / source.version
    for name in ("modules.builtin", "modules.order"):
        shutil.copy2(source.modules / name, folder / name)
    run(["depmod", "--basedir", str(root), source.version])
    for extra in ("*.bin", "modules.builtin*", "modules.symbols", "modules.devname", "modules.softdep"):
        for file in folder.glob(extra):
            file.unlink()
    return [f"/{place}" for place in files.values()]


def _make_boot(boot: Path, source: Kernel, work: Path, log: Callable[[str], None]) -> None:
    boot.mkdir()
    image = source.image.read_bytes()
    try:
        image = kernel.slim(image, work)
    except kernel.UnknownKernel as error:
        log(f"guest image: the kernel is used as it is ({error}); it needs 96 MiB of memory")
    (boot / "vmlinuz").write_bytes(image)
    (boot / "initrd").write_bytes(_initrd(source, work))
    shutil.copy2(FILES / "extlinux.conf", boot / "extlinux.conf")


def _initrd(source: Kernel, work: Path) -> bytes:
    tree = work / "initrd"
    for name in ("bin", "dev", "proc", "sys", "mnt", "lib"):
        (tree / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", tree / "bin/busybox")
    shutil.copy2(FILES / "initrd/init", tree / "init")
    (tree / "init").chmod(0o755)
    first = _copy_modules(tree, source, TO_FIND_ROOT)
    late = _copy_modules(tree, source, TO_FIND_ROOT_ON_IDE)
    for name, modules in (("modules", first), ("modules.late", late)):
        (tree / name).write_text("".join(f"{module}.gz\n" for module in modules))
    for file in sorted((tree / "lib").rglob("*")):  # the smallest guests have no room for these unpacked
        if file.suffix == ".ko":
            Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        if file.is_file():
            file.unlink()
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = work / "initrd.cpio"
    arguments = ["--create", "--format=newc", "--owner=0:0", "--quiet", f"--directory={tree}", f"--file={archive}"]
    run(["cpio", *arguments], stdin=names + "\n")
    return gzip.compress(archive.read_bytes(), mtime=0)


# The disk


def partition_table(sectors: int) -> bytes:
    """The 66 bytes at offset 446 of a disk with one bootable Linux partition from FIRST_SECTOR to its end."""
    first = struct.pack("<B3sB3sII", 0x80, b"\x00\x02\x00", 0x83, b"\xff\xff\xff", FIRST_SECTOR, sectors - FIRST_SECTOR)
    return first + bytes(48) + b"\x55\xaa"


def _make_disk(root: Path, work: Path) -> None:
    sectors = DISK_MIB * (1 << 20) // SECTOR
    partition, disk, point = work / "partition", work / "disk", work / "mounted"
    with partition.open("wb") as file:
        file.truncate((sectors - FIRST_SECTOR) * SECTOR)
    layout = ["-b", "4096", "-m", "0", "-N", "4096", "-J", "size=4", "-E", "lazy_itable_init=1,root_owner=0:0,resize=16777216"]
    named = ["-q", "-F", "-L", "cirros-rootfs", "-O", FEATURES, "-d", str(root)]
    run(["mkfs.ext4", *named, *layout, str(partition)])
    point.mkdir()
    install = [sys.executable, "-m", "nacre.guest.loader", str(partition), str(work / "boot"), str(point)]
    environment = ["env", "--chdir=/", f"PYTHONPATH={Path(nacre.__file__).parent.parent}", "PYTHONSAFEPATH=1"]
    run(["unshare", "--mount", "--propagation", "private", "--", *environment, *install])
    with disk.open("wb") as file:
        file.write(MBR.read_bytes()[:440].ljust(446, b"\0") + partition_table(sectors))
        file.seek(FIRST_SECTOR * SECTOR)
        with partition.open("rb") as source:
            while piece := source.read(1 << 20):
                if piece.count(0) == len(piece):
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    file.write(piece)
        file.truncate(sectors * SECTOR)
