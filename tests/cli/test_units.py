"""The unit file, read back by a parser of systemd's own rules for quoting; systemd itself reads it in tests/machine/test_on_host.py."""

import configparser
import re
from pathlib import Path

import pytest

from nacre.cli import supervisor, units
from nacre.core.config import Home


def words(line: str) -> list[str]:
    """As systemd splits a command line of quoted words."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)', line)
    assert '"' + '" "'.join(found) + '"' == line
    plain = [re.sub(r"\\(.)", r"\1", word) for word in found]
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


@pytest.mark.parametrize("folder", ["/var/lib/nacre", "/srv/100% of $HOME", '/srv/a "quoted" \\ name'])
def test_the_unit_runs_this_very_program(folder: str) -> None:
    home = Home(Path(folder))
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(units.text(home))
    assert set(parser.sections()) == {"Unit", "Service", "Install"}
    service = parser["Service"]
    assert words(service["ExecStart"]) == supervisor.command(home, "up", "--supervise")
    assert dict(word.split("=", 1) for word in words(service["Environment"])) == supervisor.ENVIRONMENT
    assert (service["KillMode"], service["Restart"]) == ("process", "on-failure")
    assert {"libvirtd.service", "openvswitch-switch.service"} <= set(parser["Unit"]["After"].split())
