"""What the API listens on inside hosts, so that one address is the API's outside and inside, and hosts find the node API at host 1.

Only root can make these sockets. The api makes those for hosts that run before it gives up its privileges; the job that starts a host makes
them for a host that comes later and hands them over (core/handover.py).
"""

import errno
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from nacre.cli.processes import host_numbers
from nacre.core import handover
from nacre.core.config import Config, Home
from nacre.core.serve import Inside
from nacre.sandbox.host import SandboxError, SandboxHost

_log = logging.getLogger("nacre")


def inside(home: Home, config: Config) -> Inside:
    """For the api, before it gives up its privileges."""
    ear = handover.ear(_ear(home))
    found: dict[tuple[str, str], socket.socket] = {}
    for number in host_numbers(config):
        host = SandboxHost(home, number)
        if host.running():
            found |= {(role, host.name): one for role, one in _made(host, config)}
    return Inside(found, ear)


def hand_over(home: Home, config: Config, number: int) -> None:
    """For a host that was just made sure of."""
    if number not in host_numbers(config):
        return
    host = SandboxHost(home, number)
    for role, one in _made(host, config) if host.running() else ():
        with one:
            if handover.send(_ear(home), role, host.name, one):
                _log.info("%s: the api listens inside", host.name)


def _ear(home: Home) -> Path:
    return home.path / "run" / "listeners.sock"


def _made(host: SandboxHost, config: Config) -> Iterator[tuple[str, socket.socket]]:
    """What does not listen there yet."""
    wanted = [("api", config.nacre.host, config.nacre.port)]
    if host.number == 1 and config.nacre.node_port:
        wanted.append(("nodes", "0.0.0.0", config.nacre.node_port))
    for role, address, port in wanted:
        try:
            yield role, host.listen(address, port)
        except (SandboxError, OSError) as error:
            if not (isinstance(error, OSError) and error.errno == errno.EADDRINUSE):
                _log.warning("the api does not listen in %s: %s", host.name, error)
