"""Does KVM really work here? libvirt advertises it wherever /dev/kvm exists, also where guests on it hang.

Two questions: does the processor say so (vmx or svm; a machine without them may still have the device), and does a guest of one sector
come to its end? The sector writes one byte to qemu's exit port. The answer is kept until the machine boots again.
"""

import json
import subprocess
import tempfile
from pathlib import Path

_LIMIT = 5.0
_EXIT_PORT = 0xF4
# mov al,0x10 ; out 0xf4,al ; hlt ; jmp back to hlt
_CODE = bytes([0xB0, 0x10, 0xE6, _EXIT_PORT, 0xF4, 0xEB, 0xFD])
_STATUS = (0x10 << 1) | 1


def boots(accelerator: str) -> bool:
    """A guest of one sector reaches its end in five seconds with that accelerator of qemu's."""
    with tempfile.NamedTemporaryFile(suffix=".raw") as disk:
        disk.write(_CODE.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        argv = ["qemu-system-x86_64", "-accel", accelerator, "-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1"]
        argv += ["-drive", f"file={disk.name},format=raw,if=ide,readonly=off"]
        try:
            done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LIMIT, check=False)
        except (subprocess.TimeoutExpired, OSError):
            return False
    return done.returncode == _STATUS


def kvm_works(kept: Path) -> bool:
    """The answer, from the file `kept` if it is of this boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        known = json.loads(kept.read_text())
        if known["boot"] == boot:
            return bool(known["kvm"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    works = _processor_can() and Path("/dev/kvm").exists() and boots("kvm")
    kept.write_text(json.dumps({"boot": boot, "kvm": works}))
    return works


def _processor_can() -> bool:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return bool({"vmx", "svm"} & set(line.split()))
    return False
