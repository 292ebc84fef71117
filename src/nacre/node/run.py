"""The process `nacre node`: one agent with a real hypervisor and real wires, or any number with fakes.

It runs inside the host's namespaces (or on the machine itself) until SIGTERM. A host's `folder` holds `instances/` and, for the agent
alone, `node/`, whose lock lets a second agent wait until the first one is gone. libvirt and the switch are imported only when used:
an agent with fakes weighs little.

`python -m nacre.node.run --home DIR --number N --wanted FILE` does without a control plane (node/feed_file.py).
"""

import argparse
import fcntl
import json
import logging
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from nacre.core.config import Config, Home, load
from nacre.node import log_files
from nacre.node.agent import Agent
from nacre.node.commands import run as run_command
from nacre.node.disks.bases import Keep
from nacre.node.feed import SocketSource, Source
from nacre.node.feed_file import FileSource
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.wires.fake import FakeWires

log = logging.getLogger(__name__)
_STACK = 512 * 1024


def run(home: Home, config: Config, hosts: Mapping[str, Path], *, wanted: Path | None = None) -> None:
    """Serves `hosts` (name -> folder) until SIGTERM or SIGINT, or until the control plane takes the host no more. Without fakes there is one."""
    threading.stack_size(_STACK)
    agents, locks, over = [], [], threading.Event()
    for host, folder in hosts.items():
        (folder / "node").mkdir(parents=True, exist_ok=True)
        (folder / "node").chmod(0o700)
        locks.append((folder / "node" / "lock").open("a"))
        fcntl.flock(locks[-1], fcntl.LOCK_EX)
        source = FileSource(wanted) if wanted else _control_plane(home, host, folder, over)
        make = _fake_agent if config.nacre.hypervisor == "fake" else _real_agent
        agents.append(make(config, host, folder, source))
    try:
        for agent in agents:
            agent.start()
        log.info("serving %s", ", ".join(hosts))
        over.wait()
    finally:
        for agent in agents:
            agent.stop()
    raise SystemExit("the control plane takes this host no more")


def _control_plane(home: Home, host: str, folder: Path, over: threading.Event) -> Source:
    """A host that joined has a certificate; the others are known by their socket."""
    joined = folder / "node" / "tls"
    if not joined.exists():
        return SocketSource(home.node_socket(host))
    from nacre.node.feed_tls import TlsSource

    return TlsSource(host, joined, over.set)


def _fake_agent(config: Config, host: str, folder: Path, source: Source) -> Agent:
    hypervisor = FakeHypervisor(host, folder=folder / "node" / "guests")
    return Agent(host, folder / "node", source, hypervisor, FakeWires(folder=folder / "node" / "wires"), address="192.0.2.1")


def _real_agent(config: Config, host: str, folder: Path, source: Source) -> Agent:
    from nacre.node.disks.config_drive import ConfigDrives
    from nacre.node.disks.file import FileDisks
    from nacre.node.disks.image_cache import ImageCache
    from nacre.node.hypervisor.libvirt import LibvirtHypervisor
    from nacre.node.wires.openvswitch import OpenVSwitchWires

    served = Path("/run/nacre")
    log_files.keep_small([(folder / "log", "*.log"), (folder / "log/openvswitch", "*.log"), (served / "dhcp", "*/log"), (served / "ra", "*/log")])
    instances = folder / "instances"
    drives = ConfigDrives(config.DEFAULT.config_drive_format, source.config_drive)
    disks = FileDisks(instances, ImageCache(instances / "_base", source.image, _keep(config, instances)), drives)
    hypervisor = LibvirtHypervisor(instances, disks, config.libvirt, config.vnc, state=folder / "node")
    wires = OpenVSwitchWires(folder / "node", source.metadata, source.keep_password, config.DEFAULT.dhcp_lease_duration)
    return Agent(host, folder / "node", source, hypervisor, wires, address=_underlay_address())


def _keep(config: Config, instances: Path) -> Keep:
    """Bases go earlier when less than the host's reserve, or a twentieth of its disk, is free."""
    instances.mkdir(parents=True, exist_ok=True)
    free = max(config.DEFAULT.reserved_host_disk_mb << 20, shutil.disk_usage(instances).total // 20)
    return Keep(float(config.image_cache.remove_unused_original_minimum_age_seconds), free)


def _underlay_address() -> str:
    """The IPv4 address of the cable between hosts, which the wires move to a bridge where they must; on a real machine, and that need not
    have a network, the one that it uses towards others."""
    links = json.loads(run_command(["ip", "-j", "-4", "addr", "show", "scope", "global"]))
    found = {link["ifname"]: entry["local"] for link in links for entry in link["addr_info"]}
    return found.get("br-phy") or found.get("eth0") or _way_out()


def _way_out() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.254", 9))  # of a datagram socket: nothing is sent
            return str(asked.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def main() -> None:
    """For tests and for people: one agent without a control plane."""
    parser = argparse.ArgumentParser(prog="nacre node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--number", type=int, default=1)
    parser.add_argument("--host", help="its name; nacre-<number> if not given")
    parser.add_argument("--wanted", type=Path, required=True, help="a file of wanted documents and calls")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    home = Home(given.home)
    folder = home.reach / "hosts" / str(given.number)
    run(home, load(home.path / "nacre.toml"), {given.host or f"nacre-{given.number}": folder}, wanted=given.wanted)


if __name__ == "__main__":
    main()
