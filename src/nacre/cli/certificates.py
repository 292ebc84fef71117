"""The identity of a host: its key and certificate in `<home>/hosts/<n>/node/tls`, which only root can enter (node/feed_tls.py).

Host 1 is where the API runs and has none: it is known by its unix socket. A further host on this machine is admitted when it is started
and its identity is not usable; one that joined keeps what joining gave it. When the control plane has refused a host, its reason lies
beside the identity and the node is not started any more, until the host joins anew.
"""

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from nacre.cli import layout
from nacre.cli.processes import host_name, host_numbers
from nacre.core import tls
from nacre.core.config import Config, Home
from nacre.node.feed_tls import AUTHORITY, CONTROLLER, IDENTITY, REFUSED
from nacre.sandbox import cables


def folder(home: Home, number: int) -> Path:
    return home.path / "hosts" / str(number) / "node" / "tls"


def refused(home: Home, number: int) -> dict[str, str] | None:
    """`code` and `reason` of the control plane's refusal."""
    try:
        found = json.loads((folder(home, number) / REFUSED).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def controller(port: int) -> str:
    """Where hosts reach the node API: at the underlay address of host 1."""
    return f"{cables.underlay_address(1)}:{port}"


def keep(home: Home, number: int, key: bytes, answer: Mapping[str, str], port: int) -> None:
    """A new identity, in place of the one before."""
    place = folder(home, number)
    place.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o700)
    place.chmod(0o700)
    layout.write(place / CONTROLLER, controller(port), 0o600)
    layout.write(place / AUTHORITY, answer["ca"], 0o600)
    layout.write(place / IDENTITY, key.decode() + answer["certificate"], 0o600)
    (place / REFUSED).unlink(missing_ok=True)


def ensure(home: Home, config: Config, number: int, admit: list[str], environment: Mapping[str, str]) -> None:
    """Before a host's node starts: `admit` is the command that has one of ours admitted. Raises OSError, RuntimeError."""
    port, place = config.nacre.node_port, folder(home, number)
    if number == 1 or not port or config.nacre.hypervisor == "fake":
        return
    ca = (home.path / "ca.pem").read_text()
    told = (refused(home, number) or {}).get("code")
    if number in host_numbers(config) and (told == "unknown" or not (told or _usable(home, place))):
        key, csr = tls.request(host_name(number))
        order = json.dumps({"host": host_name(number), "csr": csr.decode()})
        done = subprocess.run(admit, input=order, capture_output=True, text=True, env=dict(environment), cwd="/", timeout=180, check=False)
        if done.returncode:
            raise RuntimeError(f"{host_name(number)} gets no certificate: {done.stderr.strip().rpartition(chr(10))[2]}")
        keep(home, number, key, {"certificate": done.stdout, "ca": ca}, port)
    elif place.exists():
        layout.write(place / AUTHORITY, ca, 0o600)
        layout.write(place / CONTROLLER, controller(port), 0o600)


def _usable(home: Home, place: Path) -> bool:
    try:
        return tls.usable((place / IDENTITY).read_bytes(), (home.path / "keys/node-ca.crt").read_bytes(), datetime.now(UTC))
    except OSError:
        return False
