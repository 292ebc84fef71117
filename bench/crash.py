"""`nacre bench crash [--kills N] [--real] [--seed S]`: processes of a throwaway cloud are killed with SIGKILL at random while clients work;
then everything comes to rest, and nothing that was acknowledged may be lost, nothing may differ from what the hosts have (`nacre doctor`),
and a server that nobody touched must have run all the while.

Killed are api, worker, node and supervisor; with --real, where guests are real, also libvirtd, virtlogd, ovs-vswitchd, ovsdb-server and
dnsmasq. When the supervisor dies `nacre up` is typed again, else nothing is. What the seed gives is which process dies when and what each
client does next; what those meet is up to the machine. Exit status 1 when anything was lost, stuck, broken or different.
"""

import argparse
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workload import PATHS, Api, Client, Site, Tally

CLONE = Path(__file__).resolve().parents[1]
OURS = ("api", "worker", "node", "up")
REAL = ("libvirtd", "virtlogd", "ovs-vswitchd", "ovsdb-server", "dnsmasq")
_SETTLED, _WIRED = 300.0, 60.0


class Trouble(Exception):
    """The bench cannot go on; the message is one sentence."""


@dataclass(frozen=True)
class Shape:
    """How much at once, and how often something dies (seconds between kills, at least and at most)."""

    clients: int
    pause: float
    kills: tuple[float, float]
    options: tuple[str, ...]


FAKE = Shape(6, 0.05, (0.2, 1.2), ("--hypervisor", "fake", "--fake-hosts", "3"))
GUESTS = Shape(2, 4.0, (4.0, 10.0), ())


class Throwaway:
    """A cloud of this clone in a folder of its own."""

    def __init__(self, folder: Path, port: int, options: Sequence[str]) -> None:
        self.home, self.port, self.options = folder / "home", port, options

    def nacre(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([str(CLONE / "nacre"), *words, "--home", str(self.home)], capture_output=True, text=True, timeout=900, check=False)
        if check and done.returncode:
            raise Trouble(f"nacre {' '.join(words)} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        return done

    def up(self) -> None:
        self.nacre("up", "--port", str(self.port), *self.options)

    def processes(self) -> list[tuple[str, int]]:
        """(role, pid), our own and those of the hosts."""
        return [(row["role"], row["pid"]) for row in json.loads(self.nacre("status", "--json").stdout)["processes"]]

    def unfinished(self) -> list[str]:
        """What the cloud is at."""
        asked = ("SELECT kind || ' ' || state || ' ' || resource FROM tasks WHERE finished_at IS NULL",
                 "SELECT verb || ' on ' || host FROM node_calls WHERE state = 'open'",
                 "SELECT task_state || ' server ' || id FROM servers WHERE task_state IS NOT NULL",
                 "SELECT 'saving image ' || id FROM images WHERE status = 'saving'",
                 "SELECT d.kind || ' ' || d.id FROM documents d JOIN document_hosts h ON d.kind = h.kind AND d.id = h.id "
                 "WHERE h.applied != d.version")  # fmt: skip
        with closing(sqlite3.connect(f"file:{self.home}/db/nacre.db?mode=ro", uri=True, timeout=20)) as base:
            return [row[0] for query in asked for row in base.execute(query)]


@contextmanager
def throwaway(port: int, shape: Shape) -> Iterator[Throwaway]:
    with tempfile.TemporaryDirectory(prefix="nacre-crash-") as folder:
        cloud = Throwaway(Path(folder), port, shape.options)
        try:
            cloud.up()
            yield cloud
        finally:
            cloud.nacre("down", "--wipe", check=False)


class Killer:
    """Kills a process after the other, each of a role that chance names among those that run."""

    def __init__(self, cloud: Throwaway, roles: Sequence[str], chance: random.Random) -> None:
        self.cloud, self.roles, self.chance = cloud, roles, chance
        self.killed: Counter[str] = Counter()

    def run(self, kills: int, between: tuple[float, float]) -> None:
        while self.killed.total() < kills:
            time.sleep(self.chance.uniform(*between))
            wanted = self.chance.choice(self.roles)
            found = [pid for role, pid in self.cloud.processes() if role == wanted or role.rstrip("0123456789") == f"{wanted}-"]
            if found and _kill(self.chance.choice(found)):
                self.killed[wanted] += 1
            if wanted == "up":
                self.cloud.up()


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _site(cloud: Throwaway, admin: Api) -> Site:
    """Flavors, an external network and one that all share."""

    def made(kind: str, path: str, body: Any) -> Any:
        status, answer = admin("POST", path, {kind: body})
        if status >= 300:
            raise Trouble(f"{path}: {status} {answer}")
        return answer[kind]["id"]

    for name, ram in (("1", 64), ("2", 96)):
        made("flavor", "/compute/v2.1/flavors", {"id": name, "name": name, "ram": ram, "vcpus": 1, "disk": 1})
    physical = {"provider:network_type": "flat", "provider:physical_network": "external", "router:external": True}
    outside = made("network", PATHS["network"], {"name": "outside", **physical})
    made("subnet", PATHS["subnet"], {"network_id": outside, "ip_version": 4, "cidr": "172.24.4.0/22", "enable_dhcp": False})
    inside = made("network", PATHS["network"], {"name": "inside", "shared": True})
    subnet = made("subnet", PATHS["subnet"], {"network_id": inside, "ip_version": 4, "cidr": "172.16.0.0/20"})
    router = made("router", PATHS["router"], {"name": "router", "external_gateway_info": {"network_id": outside}})
    admin("PUT", f"{PATHS['router']}/{router}/add_router_interface", {"subnet_id": subnet})
    project = admin("GET", "/identity/v3/projects?name=admin")[1]["projects"][0]["id"]
    admin("PUT", f"/compute/v2.1/os-quota-sets/{project}", {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
    admin("PUT", f"/network/v2.0/quotas/{project}", {"quota": {"network": -1, "subnet": -1, "router": -1, "port": -1}})
    return Site(admin("GET", PATHS["image"])[1]["images"][0]["id"], ("1", "2"), outside, inside)


class Bystander:
    """A server that nobody touches."""

    def __init__(self, cloud: Throwaway, admin: Api, site: Site) -> None:
        self.cloud, self.admin = cloud, admin
        order = {"name": "bystander", "imageRef": site.image, "flavorRef": "1", "networks": [{"uuid": site.inside}]}
        self.id = admin("POST", PATHS["server"], {"server": order})[1]["server"]["id"]
        end = time.monotonic() + 180
        while self._shown()["status"] == "BUILD":
            if time.monotonic() > end:
                raise Trouble("The first server does not become ACTIVE within 180 s.")
            time.sleep(0.2)
        self.before = self._started()

    def _shown(self) -> Any:
        return self.admin.patiently("GET", f"{PATHS['server']}/{self.id}")[1]["server"]

    def _started(self) -> str:
        """Another one after every start of its guest."""
        if self.cloud.options:
            path = f"{PATHS['server']}/{self.id}/action"
            return str(self.admin.patiently("POST", path, {"os-getConsoleOutput": {}})[1]["output"])
        guests = [pid for role, pid in self.cloud.processes() if role == "guest"]
        pid = next((pid for pid in guests if self.id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()), 0)
        if not pid:
            return "gone"
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"

    def disturbed(self) -> list[str]:
        shown, now = self._shown(), self._started()
        if shown["status"] != "ACTIVE" or now != self.before:
            return [f"the server that nobody touched is {shown['status']}, its guest was {self.before!r} and is {now!r}"]
        return []


def _settled(cloud: Throwaway) -> list[str]:
    """What is still at work after a long while; nothing, normally."""
    end = time.monotonic() + _SETTLED
    while (found := cloud.unfinished()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def run(cloud: Throwaway, kills: int, seed: int, shape: Shape, roles: Sequence[str]) -> int:
    """Prints what happened; the number of things that are not as they must be."""
    admin, tally, stop = Api(cloud.home, cloud.port, "admin"), Tally(), threading.Event()
    site = _site(cloud, admin)
    bystander = Bystander(cloud, admin, site)
    clients = [Client(admin, site, f"c{number}", random.Random(f"{seed} {number}"), tally) for number in range(shape.clients)]
    threads = [threading.Thread(target=client.run, args=(stop, shape.pause)) for client in clients]
    killer, begun = Killer(cloud, roles, random.Random(f"{seed} killer")), time.monotonic()
    for thread in threads:
        thread.start()
    try:
        killer.run(kills, shape.kills)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    ended = time.monotonic()
    stuck = _settled(cloud)
    rested = time.monotonic()
    lost = [one for client in clients for one in client.lost()]
    wrong = {"broken": tally.broken, "stuck": stuck, "acknowledged and lost": lost, "disturbed": bystander.disturbed(), "differences": _doctor(cloud)}
    killed = ", ".join(f"{role} {number}" for role, number in sorted(killer.killed.items()))
    print(f"{tally.told()}; {ended - begun:.0f} s")
    print(f"kills {killer.killed.total()}: {killed}; at rest after {rested - ended:.1f} s")
    for name, found in wrong.items():
        print("\n  ".join([f"{name}: {len(found)}", *found[:20]]))
    return sum(len(found) for found in wrong.values())


def _doctor(cloud: Throwaway) -> list[str]:
    """What differs, and goes on to: a switch that was killed last is wired again within seconds."""
    end = time.monotonic() + _WIRED
    while True:
        done = cloud.nacre("doctor", "--json", check=False)
        if not done.stdout:
            return [f"the doctor says nothing: {done.stderr.strip()[-300:]}"]
        found = json.loads(done.stdout)["found"]
        if not found or time.monotonic() > end:
            return [f"{one['kind']} {one['what']} on {one['host']}: {one['cause']}" for one in found]
        time.sleep(2)


def _positive(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"{word} is no number of kills")
    return int(word)


def main(arguments: Sequence[str]) -> int:
    """The exit status. Raises Trouble."""
    parser = argparse.ArgumentParser("nacre bench crash", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=_positive, default=100, metavar="N", help="how many  [100]")
    parser.add_argument("--real", action="store_true", help="real guests and switches, whose daemons are killed, too")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of an earlier run  [a new one]")
    parser.add_argument("--port", type=int, help="of the throwaway cloud  [a free one]")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="the logs of a run that went wrong go there")
    given = parser.parse_args(arguments)
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre bench crash")
    shape, roles = (GUESTS, (*OURS, *REAL)) if given.real else (FAKE, OURS)
    print(f"seed {given.seed}", flush=True)
    with throwaway(given.port or _free_port(), shape) as cloud:
        wrong = run(cloud, given.kills, given.seed, shape, roles)
        if wrong and given.keep:
            subprocess.run(["cp", "-a", str(cloud.home / "logs"), str(cloud.home / "db"), str(given.keep)], check=False)
    return int(wrong > 0)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
