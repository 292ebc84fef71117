"""A cloud on the machine itself where systemd runs: `nacre.service` is its supervisor, so the machine's next boot starts it.

One unit, not one a process: the supervisor knows the order, the pauses and the jobs between them, the same with systemd and without.
It does not want libvirtd and Open vSwitch: the job that prepares the host starts them, and knows then whether they ran before.
`down` stops and disables it, `up` enables and starts it: what was typed last holds over a reboot. `KillMode=process`, because DHCP
servers of ours go on while we are down, as those of other OpenStack agents do.
"""

import os
from pathlib import Path

from nacre.cli import hosts, supervisor
from nacre.cli.layout import write
from nacre.cli.trouble import Trouble
from nacre.core.config import Home
from nacre.node.commands import CommandFailed
from nacre.sandbox import daemons, systemd

NAME = "nacre.service"
FILE = Path("/etc/systemd/system") / NAME
_MADE = "# Made by  nacre up --on-host  for the cloud in {home};  nacre down --wipe  takes it away."


def text(home: Home) -> str:
    """The unit file."""
    words = " ".join(_quoted(word) for word in supervisor.command(home, "up", "--supervise"))
    environment = " ".join(_quoted(f"{name}={value}") for name, value in supervisor.ENVIRONMENT.items())
    daemons_first = " ".join(daemons.UNITS)
    errors = str(home.path / "logs" / "up.err").replace("%", "%%")
    return f"""\
{_MADE.format(home=home.path)}
[Unit]
Description=Nacre cloud
Wants=network-online.target
After=network-online.target nftables.service {daemons_first}

[Service]
Type=exec
ExecStart={words}
Environment={environment}
StandardOutput=append:{errors}
StandardError=append:{errors}
KillMode=process
Restart=on-failure
RestartSec=1
TimeoutStopSec=60
TasksMax=infinity
UMask=0022

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str) -> str:
    """As one argument: systemd expands % and $ and unescapes backslashes."""
    for old, new in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(old, new)
    return f'"{word}"'


def wanted(home: Home) -> bool:
    """Whether the supervisor of this home is to be a unit."""
    return hosts.on_host(home) and systemd.booted()


def foreign(home: Home) -> bool:
    """Whether a unit of this name is somebody else's."""
    return FILE.exists() and not _ours(home)


def _ours(home: Home) -> bool:
    try:
        return FILE.read_text().splitlines()[:1] == [_MADE.format(home=home.path)]
    except FileNotFoundError:
        return False


def start(home: Home) -> None:
    """Raises Trouble."""
    if foreign(home):
        raise Trouble(f"{FILE} is not of the cloud in {home.path}. Take it away, then type the same command again.")
    try:
        os.close(os.open(home.path / "logs" / "up.err", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640))
        write(FILE, text(home), 0o644)
        systemd.control("daemon-reload")
        systemd.control("enable", "--now", NAME)
    except CommandFailed as error:
        raise Trouble(f"{error}. More:  journalctl -u {NAME}") from error


def stop(home: Home, *, wipe: bool = False) -> bool:
    """Whether it ran; it starts with the next `up`, not at a boot before that. With `wipe` the file goes. Raises Trouble."""
    if not _ours(home):
        return False
    try:
        ran = systemd.booted() and NAME in systemd.active([NAME])
        if systemd.booted():
            systemd.control("disable", "--now", NAME)
        if wipe:
            FILE.unlink()
            if systemd.booted():
                systemd.control("daemon-reload")
        return ran
    except CommandFailed as error:
        raise Trouble(f"{error}. Correct that, then type the same command again.") from error
