"""A cloud that moves only when it is told to: the test is the caller, the worker and the host, in any order.

The host keeps what it has done and seen until it is told to report, so results come late, twice and out of order, and what was seen before
a move arrives after it. It refuses what its fences refuse. `settle` lets everything run to its end.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import sqlalchemy as sa
from starlette.testclient import TestClient

from conftest import make_cloud
from core import durability as harness
from fake_node import ADDRESS, SteppedNode
from nacre import identity, image, network, program
from nacre.compute import loops
from nacre.core import node_api, nodes, quota, worker
from nacre.core.caller import System
from nacre.network.service.placing import alive_hosts

WHO = System("req-race")
HOST = "nacre-1"


class LateNode(SteppedNode):
    """`results` are done and not reported, `sights` are seen and not reported: (the number that the report says, what was seen)."""

    def __init__(self, cloud: Any, folder: Path) -> None:
        self.number, self.up = 0, True
        self.results: list[dict[str, Any]] = []
        self.sights: list[tuple[int, dict[str, Any]]] = []
        super().__init__(cloud, HOST, folder)

    def report(self) -> None:
        self.look()
        self.tell_seen(len(self.sights) - 1)
        self.live()

    def live(self) -> None:
        if self.up:
            self._live()

    def look(self) -> None:
        seen = {"servers": {key: msgspec.to_builtins(value) for key, value in self.hypervisor.servers().items()}, "address": ADDRESS,
                "resources": msgspec.to_builtins(self.hypervisor.resources()), "agents": {"dhcp": True, "l3": True, "openvswitch": True}}  # fmt: skip
        self.sights.append((self.number, seen))

    def tell_seen(self, at: int) -> None:
        """One of the sights arrives; the newest is on time, an older one was long on its way and nobody waits for its answer."""
        number, seen = self.sights.pop(at)
        answer = self._app()._report(node_api.Report(seen=seen, number=number))
        if at == len(self.sights):
            self.number = answer["number"]

    def run_call(self, at: int) -> None:
        """Does one of the open calls, whether its result is on its way already or not."""
        with self.cloud.db.read() as conn:
            calls = nodes.open_calls(conn, self.host)
        if calls and self.up:
            call = calls[at % len(calls)]
            verb = self.verbs[call.verb]
            name = call.args.get(verb.resource) or (call.args.get("spec") or {}).get("id")
            fenced = verb.change and not self.fences.admit(str(name), (1, call.number))
            self.results.append({"id": call.id, "ok": False, "error": "fenced"} if fenced else self._do(call, False, ()))

    def tell_result(self, at: int, again: bool) -> None:
        if self.results:
            result = self.results[at % len(self.results)]
            self._app()._report(node_api.Report(results=[result]))
            if not again:
                self.results.remove(result)

    def tell_applied(self) -> None:
        with self.cloud.db.read() as conn:
            held = nodes.held_by(conn, self.host)
        self._app()._report(node_api.Report(applied=held))

    def settle(self) -> bool:
        """Whether there was anything to do or to tell."""
        with self.cloud.db.read() as conn:
            calls, held = nodes.open_calls(conn, self.host), nodes.held_by(conn, self.host)
            wanted = [(kind, key) for kind, versions in held.items() for key in versions]
            applied = not wanted or nodes.missing(conn, self.host, wanted) is None
        told = {result["id"] for result in self.results}
        for call in calls:
            if call.id not in told:
                self.run_call(calls.index(call))
        moved = bool(self.results) or not applied
        while self.results:
            self.tell_result(0, False)
        if not applied:
            self.tell_applied()
        return moved


@dataclass
class Stage:
    """`ask(method, path, body)` is the API; a 5xx is never an answer."""

    cloud: Any
    node: LateNode
    http: TestClient
    image: str
    project: str
    turn: int = 0
    log: list[str] = field(default_factory=list)

    def sign_in(self) -> None:
        who = {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": "x"}}}
        asked = {"auth": {"identity": who, "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}}
        self.http.headers["x-auth-token"] = self.http.post("/identity/v3/auth/tokens", json=asked).headers["x-subject-token"]

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        answer = self.http.request(method, path, json=body)
        self.log.append(f"{method} {path} {body or ''} {answer.status_code}")
        assert answer.status_code < 500, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return answer

    def work(self, fault: Callable[[str, str], None] = lambda when, step: None) -> bool:
        """One worker runs one task as far as it goes; a kill leaves its lease to nobody."""
        self.turn += 1
        try:
            return worker.run_one(self.cloud, f"worker-{self.turn}", WHO, fault)
        except harness.Killed:
            self.lose_leases()
            return True

    def lose_leases(self) -> None:
        with self.cloud.db.write(WHO) as tx:
            tx.execute(harness.tasks.update().where(harness.tasks.c.state == "running").values(until=0.0))

    def silence(self, up: bool) -> None:
        self.node.up = up
        with self.cloud.db.write(WHO) as tx:
            nodes.heard_of(tx, [HOST], 0.0 if up else nodes.DEAD_AFTER + 1)

    def settle_calls(self) -> None:
        """Everything that was asked for comes to its end."""
        for _ in range(300):
            worked = self.work()
            if not self.node.settle() and not worked:
                return
        raise AssertionError("it never comes to rest")

    def settle(self) -> None:
        """The same, then the host reports and the loops look."""
        self.silence(True)
        self.settle_calls()
        for _ in range(2):
            self.node.sights.clear()
            self.node.report()
            loops.agree(self.cloud, WHO)
        self.node.settle()


def make(folder: Path, database: str) -> Stage:
    cloud = make_cloud(folder / "cloud", database=database)
    with cloud.db.write(WHO) as tx:
        identity.bootstrap(tx, cloud, {"admin": "x", "demo": "x"}, program.SERVICES)
        network.bootstrap(tx)
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1, 0, 0)
    (folder / "image").write_bytes(header + b"\0" * (4 << 16))
    project = identity.project_named(cloud, "admin")
    image.register(cloud, WHO, name="small", file=folder / "image", project_id=project)
    with cloud.db.read() as conn:
        image_id = conn.execute(sa.text("SELECT id FROM images")).scalar_one()
    node = LateNode(cloud, folder)
    node.hypervisor.vcpus = 4096
    node.report()
    loops.offer(cloud, WHO)
    with cloud.db.write(WHO) as tx:
        quota.set_limits(tx, project, "compute", {"instances": 5, "cores": 12, "ram": -1})
    with cloud.db.read() as conn:
        assert alive_hosts(conn, "l3") == [HOST]
    http = TestClient(program.app(cloud), headers={"openstack-api-version": "compute 2.90"}, raise_server_exceptions=False)
    made = Stage(cloud, node, http, image_id, project)
    made.sign_in()
    for number, vcpus in (("1", 1), ("2", 2)):
        body = {"id": number, "name": number, "vcpus": vcpus, "ram": 64, "disk": vcpus}
        assert made.ask("POST", "/compute/v2.1/flavors", {"flavor": body}).status_code == 200
    return made
