"""The hosts of a home: sandboxes, or the machine itself where `up --on-host` made it so."""

from nacre.cli import layout
from nacre.core.config import Home
from nacre.sandbox.face import Host
from nacre.sandbox.host import SandboxHost
from nacre.sandbox.machine import MachineHost


def on_host(home: Home) -> bool:
    return bool(layout.recall(home).get("on_host"))


def of(home: Home, number: int) -> Host:
    return MachineHost(home) if number == 1 and on_host(home) else SandboxHost(home, number)


def known(home: Home) -> list[Host]:
    """The hosts that this home has had, the one that holds the cables last."""
    folders = [path.name for path in (home.path / "hosts").glob("*") if path.name.isdigit() and path.is_dir()]
    return [of(home, number) for number in sorted(map(int, folders), reverse=True)]
