"""A sandbox host with the openvswitch driver in it, and guests that are namespaces with a cable into br-int."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.core.config import Home
from nacre.sandbox.host import SandboxHost

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Guest:
    port: str
    mac: str
    address: str

    @property
    def tap(self) -> str:
        return f"tap{self.port[:11]}"


class Host:
    """A sandbox host with a driver process in it."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        self.sandbox = SandboxHost(Home(folder), number)
        self.sandbox.ensure()
        self.log = folder / f"driver{number}.log"
        self.driver: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src"}
        state = self.sandbox.folder / "node"
        argv = self.sandbox.command([sys.executable, f"{ROOT}/tests/node/wires/remote.py", str(state)])
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.driver.stdout and self.driver.stdout.readline() == "ready\n", self.log.read_text()[-3000:]

    def order(self, **order: Any) -> Any:
        assert self.driver and self.driver.stdin and self.driver.stdout
        self.driver.stdin.write(json.dumps(order) + "\n")
        self.driver.stdin.flush()
        answer = json.loads(self.driver.stdout.readline())
        assert "error" not in answer, answer
        return answer["value"]

    def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return self.order(apply=wanted)["applied"]

    def settle(self, wanted: dict[str, Any], seconds: float = 10) -> None:
        """Apply until everything is reported."""
        everything = {kind: {id_: version for id_, (version, _) in documents.items()} for kind, documents in wanted.items() if documents}
        end = time.monotonic() + seconds
        while (applied := self.apply(wanted)) != everything:
            assert time.monotonic() < end, (applied, self.log.read_text()[-4000:])
            time.sleep(0.2)

    def revalidate(self) -> None:
        """Wait until the datapath has dropped what it remembered of older flows; the switch itself begins with it at once. The first of
        two rounds may have begun before the change."""
        for _ in range(2):
            self.run("ovs-appctl", "revalidator/wait")

    def stop(self) -> None:
        if self.driver and self.driver.stdin and self.driver.stdout:
            self.driver.stdin.close()
            self.driver.wait(10)
            self.driver.stdout.close()
            self.driver = None

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> str:
        done = subprocess.run(self.sandbox.command(argv), capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def succeeds(self, *argv: str, timeout: float = 30) -> bool:
        return subprocess.run(self.sandbox.command(argv), capture_output=True, timeout=timeout, check=False).returncode == 0

    def begin(self, name: str, *argv: str) -> subprocess.Popen[str]:
        """A process inside a guest, for the caller to end; its output is a pipe."""
        inside = self.sandbox.command(["ip", "netns", "exec", name, *argv])
        return subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def guest(self, name: str, guest: Guest, mtu: int = 1450) -> None:
        """What libvirt does when a guest starts: a tap on br-int that names its port."""
        tap = guest.tap
        self.run("ip", "netns", "add", name)
        peer = ["peer", "name", "eth0", "netns", name, "address", guest.mac, "mtu", str(mtu)]
        self.run("ip", "link", "add", "name", tap, "type", "veth", *peer)
        self.run("ethtool", "-K", tap, "tx", "off")
        self.within(name, "ethtool", "-K", "eth0", "tx", "off")
        self.run("ip", "link", "set", tap, "up")
        self.within(name, "ip", "link", "set", "lo", "up")
        self.within(name, "ip", "link", "set", "eth0", "up")
        self.run("ovs-vsctl", "--may-exist", "add-port", "br-int", tap, "--", "set", "interface", tap, f"external_ids:iface-id={guest.port}")

    def within(self, name: str, *argv: str, check: bool = True, timeout: float = 30) -> str:
        return self.run("ip", "netns", "exec", name, *argv, check=check, timeout=timeout)

    def address(self, name: str) -> str:
        """By DHCP, as a guest gets it. Returns what the server said."""
        options = ["-n", "-q", "-f", "-t", "5", "-T", "1", "-O", "mtu", "-O", "staticroutes", "-s", f"{ROOT}/tests/machine/udhcpc.sh"]
        return self.within(name, "busybox", "udhcpc", "-i", "eth0", *options)

    def pings(self, name: str, address: str, count: int = 1) -> bool:
        return self.succeeds("ip", "netns", "exec", name, "ping", "-c", str(count), "-i", "0.2", "-W", "1", address)

    def talks(self, name: str, address: str, port: int) -> bool:
        return self.succeeds("ip", "netns", "exec", name, "socat", "-u", "OPEN:/dev/null", f"TCP:{address}:{port},connect-timeout=1")
