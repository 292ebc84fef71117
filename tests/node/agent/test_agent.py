import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nacre.node.agent import Agent
from nacre.node.deadline import Deadline, NodeError, Unreachable
from nacre.node.feed import SocketSource
from nacre.node.hypervisor.driver import Power, SeenServer, ServerSpec, Wanted
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.wires.driver import ControlPlaneDown
from nacre.node.wires.fake import FakeWires
from node.agent.controller import Controller, serving

SERVER = "6c1f1b4e-0000-4000-8000-000000000001"
OTHER = "6c1f1b4e-0000-4000-8000-000000000002"


def spec(server_id: str = SERVER, number: int = 1) -> dict[str, Any]:
    image = {"image_id": "i", "disk_format": "raw", "size": 1, "hash_algo": "sha512", "hash_value": "0"}
    return {"id": server_id, "number": number, "name": "n", "project_id": "p", "vcpus": 1, "memory_mb": 64, "root_gb": 1, "image": image}


class Gated(FakeHypervisor):
    """Verbs wait at `gate` and write down what they began."""

    def __init__(self, folder: Path) -> None:
        super().__init__("h", folder=folder)
        self.gate = threading.Event()
        self.gate.set()
        self.began: list[str] = []
        self.refusals = self.away = 0
        self.lost = False
        self.at_once = self.most_at_once = 0

    def _take_time(self, deadline: Deadline) -> None:
        if self.away:
            self.away -= 1
            raise Unreachable("the hypervisor does not answer")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while not self.gate.is_set():
                if self.lost:
                    raise NodeError("what it needs is lost")
                deadline.sleep(0.01)
        finally:
            self.at_once -= 1

    def start_again(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer | None:
        if self.refusals:
            self.refusals -= 1
            raise NodeError("there is no bridge yet")
        return super().start_again(spec, power, deadline)

    def ensure_server(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer:
        self.began.append(f"server {spec.number}")
        return super().ensure_server(spec, power, deadline)

    def ensure_power(self, server_id: str, power: Wanted, deadline: Deadline, *, hard: bool = False, timeout: float = 60) -> Power:
        self.began.append(power)
        return super().ensure_power(server_id, power, deadline, hard=hard, timeout=timeout)


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder, self.controller, self.wires = folder, Controller(), FakeWires()
        self.socket = folder / "node.sock"
        self.hypervisor = Gated(folder / "guests")
        self.agent: Agent | None = None
        self.stack = ExitStack()
        self.listen()

    def listen(self) -> None:
        self.stack.enter_context(serving(self.controller, self.socket))

    def start(self) -> Agent:
        self.agent = Agent("h", self.folder / "node", SocketSource(self.socket), self.hypervisor, self.wires)
        self.agent.start()
        return self.agent

    def restart(self, refusals: int = 0) -> Agent:
        if self.agent:
            self.agent.stop()
        self.hypervisor = Gated(self.folder / "guests")
        self.hypervisor.refusals = refusals
        self.wires = FakeWires()
        return self.start()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with made.stack:
        yield made
        made.hypervisor.gate.set()
        if made.agent:
            made.agent.stop()


def test_documents_are_applied_and_reported_and_go_again(node: Node) -> None:
    node.controller.want("network", "n1", 7, {"mtu": 1450})
    node.controller.want("port", "p1", 2, {"tap": "tapx"})
    node.start()
    node.controller.until(lambda: node.controller.applied == {"network": {"n1": 7}, "port": {"p1": 2}})
    node.controller.want("port", "p1", 3, {"tap": "tapx"})
    node.controller.until(lambda: node.controller.applied["port"] == {"p1": 3})
    assert node.controller.feeds[-1]["have"]["network"] == {"n1": 7}
    with node.controller.bell:
        del node.controller.documents["port", "p1"]
        node.controller.bell.notify_all()
    node.controller.until(lambda: "port" not in node.controller.feeds[-1]["have"])
    node.wires.plug("p9")
    assert (node.agent is not None and "port" not in node.agent.documents.wanted()) or not node.agent.documents.wanted()["port"]


def test_a_document_waits_for_its_tap(node: Node) -> None:
    node.wires.taps = set()
    node.controller.want("port", "p1", 1, {})
    node.controller.want("network", "n1", 1, {})
    node.start()
    node.controller.until(lambda: "network" in node.controller.applied)
    assert node.controller.applied.get("port", {"p1": 0}) == {"p1": 0}
    node.wires.plug("p1")
    node.controller.until(lambda: node.controller.applied.get("port") == {"p1": 1}, 0.9)


def test_a_call_is_run_and_what_it_made_is_seen(node: Node) -> None:
    node.start()
    node.controller.call("c1", "ensure_server", {"spec": spec(), "power": "paused"})
    result = node.controller.result("c1")
    timing = result.pop("timing")
    assert result == {"id": "c1", "ok": True, "value": {"power": "paused", "domain": "instance-00000001"}}
    assert abs(timing["at"] - time.time()) < 10 and 0 <= timing["waited_ms"] < 5000 and 0 <= timing["ms"] < 5000 and timing["commands"] == []
    node.controller.call("c2", "ensure_power", {"server_id": SERVER, "power": "running"})
    assert node.controller.result("c2")["value"] == {"power": "running"}
    node.controller.until(lambda: node.controller.seen["servers"] == {SERVER: {"power": "running", "domain": "instance-00000001"}})
    assert node.controller.seen["unknown"] == {"servers": [SERVER]}
    assert node.controller.seen["resources"]["hypervisor_hostname"] == "h"
    assert node.controller.seen["agents"]["l3"] is True
    node.hypervisor.turn_off(SERVER)
    node.controller.until(lambda: node.controller.seen["servers"][SERVER]["power"] == "shutdown", 1)


def test_a_result_survives_a_restart_of_the_agent(node: Node) -> None:
    node.controller.refuse_reports = True
    agent = node.start()
    node.controller.call("c1", "ensure_server", {"spec": spec()})
    node.controller.until(lambda: [r.id for r in agent.calls.results.all()] == ["c1"])
    node.restart()
    node.controller.refuse_reports = False
    assert node.controller.result("c1")["ok"] is True
    assert node.hypervisor.began == [], "it was not run a second time"
    node.controller.until(lambda: not list((node.folder / "node/results").iterdir()))


def test_calls_of_one_server_run_in_order_and_of_others_side_by_side(node: Node) -> None:
    node.hypervisor.gate.clear()
    node.start()
    node.controller.call("a1", "ensure_server", {"spec": spec()})
    node.controller.call("a2", "ensure_power", {"server_id": SERVER, "power": "shutdown"})
    node.controller.call("a3", "ensure_power", {"server_id": SERVER, "power": "running"})
    node.controller.call("b1", "ensure_server", {"spec": spec(OTHER, 2)})
    node.controller.until(lambda: node.hypervisor.at_once == 2)
    node.hypervisor.gate.set()
    for call_id in ("a1", "a2", "a3", "b1"):
        assert node.controller.result(call_id)["ok"]
    began = [what for what in node.hypervisor.began if what != "server 2"]
    assert began == ["server 1", "shutdown", "running"]
    assert node.hypervisor.most_at_once == 2


def test_a_call_that_takes_too_long_is_answered(node: Node) -> None:
    node.hypervisor.gate.clear()
    node.start()
    node.controller.call("slow", "ensure_server", {"spec": spec()}, deadline=0.2)
    node.controller.call("next", "ensure_power", {"server_id": SERVER, "power": "running"}, deadline=0.3)
    result = node.controller.result("slow", 2)
    assert not result["ok"] and ("longer than 0.2 s" in result["error"] or result["error"] == "deadline exceeded")
    assert not node.controller.result("next", 2)["ok"]
    assert node.controller.times_answered == {"slow": 1, "next": 1}


def test_an_older_attempt_is_refused_also_after_a_restart(node: Node) -> None:
    node.start()
    node.controller.call("new", "ensure_server", {"spec": spec()}, fence=(2, 1))
    assert node.controller.result("new")["ok"]
    node.restart()
    node.controller.call("old", "absent_server", {"server_id": SERVER}, fence=(1, 9))
    assert node.controller.result("old") == {"id": "old", "ok": False, "error": "fenced"}
    assert SERVER in node.hypervisor.servers()
    node.controller.call("same", "ensure_power", {"server_id": SERVER, "power": "shutdown"}, fence=(2, 1))
    assert node.controller.result("same")["ok"]


def test_a_newer_attempt_stops_the_older_one_under_way(node: Node) -> None:
    node.hypervisor.gate.clear()
    node.start()
    node.controller.call("old", "ensure_server", {"spec": spec()}, fence=(1, 1))
    node.controller.call("queued", "ensure_power", {"server_id": SERVER, "power": "running"}, fence=(1, 1))
    node.controller.until(lambda: node.hypervisor.at_once == 1)
    node.controller.call("new", "absent_server", {"server_id": SERVER}, fence=(1, 2))
    assert node.controller.result("old")["error"] == "fenced"
    assert node.controller.result("queued")["error"] == "fenced"
    node.hypervisor.gate.set()
    assert node.controller.result("new")["ok"]
    assert node.hypervisor.servers() == {}


def test_reboot_happens_once_a_fence_whatever_is_repeated(node: Node) -> None:
    node.start()
    node.controller.call("c", "ensure_server", {"spec": spec()})
    node.controller.result("c")
    before = node.hypervisor.incarnation(SERVER)
    for call_id in ("r1", "r2"):
        node.controller.call(call_id, "reboot_server", {"server_id": SERVER, "hard": True}, fence=(1, 2))
        assert node.controller.result(call_id)["value"] == {"power": "running"}
    once = node.hypervisor.incarnation(SERVER)
    assert once != before
    node.restart()
    node.controller.call("r3", "reboot_server", {"server_id": SERVER}, fence=(1, 2))
    assert node.controller.result("r3")["ok"] and node.hypervisor.incarnation(SERVER) == once
    node.controller.call("r4", "reboot_server", {"server_id": SERVER}, fence=(1, 3))
    assert node.controller.result("r4")["ok"] and node.hypervisor.incarnation(SERVER) != once


def test_reads_are_neither_fenced_nor_queued(node: Node) -> None:
    node.start()
    node.controller.call("c", "ensure_server", {"spec": spec()}, fence=(5, 1))
    node.controller.result("c")
    node.hypervisor.gate.clear()
    node.controller.call("wait", "ensure_power", {"server_id": SERVER, "power": "shutdown"}, fence=(5, 1))
    node.controller.call("log", "console_log", {"server_id": SERVER, "lines": None}, fence=(0, 0))
    assert node.controller.result("log")["value"] == {"output": "n start 1\n"}


@pytest.mark.parametrize(
    ("verb", "args", "error"),
    [
        ("make_coffee", {}, "this node knows no make_coffee"),
        ("ensure_power", {}, "ensure_power without server_id"),
        ("ensure_power", {"server_id": SERVER, "power": "sideways"}, "the call cannot be read"),
        ("ensure_power", {"server_id": SERVER, "power": "running"}, f"there is no server {SERVER} on this host"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_reason(node: Node, verb: str, args: dict[str, Any], error: str) -> None:
    node.start()
    node.controller.call("c", verb, args)
    result = node.controller.result("c")
    assert not result["ok"] and result["error"].startswith(error)


def test_the_agent_outlives_the_control_plane(node: Node) -> None:
    node.controller.want("network", "n1", 1, {})
    node.start()
    node.controller.until(lambda: "network" in node.controller.applied)
    node.stack.close()
    assert node.agent is not None
    node.agent.source.close()
    node.restart()
    assert node.agent is not None and "n1" in node.agent.documents.wanted()["network"], "what was wanted is still known"
    node.controller = Controller()
    node.controller.want("network", "n2", 1, {})
    node.listen()
    node.controller.until(lambda: "n2" in node.controller.applied.get("network", {}), 10)
    node.controller.until(lambda: node.agent is not None and "n1" not in node.agent.documents.wanted()["network"])
    assert node.agent.documents.index() == {"network": {"n2": 1}}


def test_a_restored_cloud_is_believed_anew(node: Node) -> None:
    node.controller.want("network", "n1", 1, {"mtu": 1})
    node.controller.want("network", "n2", 1, {"mtu": 1})
    agent = node.start()
    node.controller.until(lambda: "network" in node.controller.applied)
    node.controller.applied.clear()
    with node.controller.bell:
        node.controller.epoch = 2
        del node.controller.documents["network", "n2"]
        node.controller.want("network", "n1", 1, {"mtu": 2})
    node.controller.until(lambda: node.controller.applied == {"network": {"n1": 1}})
    assert {key: document.body for key, document in agent.documents.wanted()["network"].items()} == {"n1": {"mtu": 2}}
    node.controller.epoch = 1
    node.controller.want("network", "n1", 5, {"mtu": 3})
    node.controller.until(lambda: len(node.controller.feeds) > 4)
    assert agent.documents.wanted()["network"]["n1"].body == {"mtu": 2}, "a control plane of an older epoch is not followed"


def test_after_a_boot_only_what_is_still_wanted_here_starts(node: Node) -> None:
    node.start()
    third = SERVER[:-1] + "3"
    for number, server_id in enumerate((SERVER, OTHER, third), 1):
        node.controller.call(server_id, "ensure_server", {"spec": spec(server_id, number)})
        assert node.controller.result(server_id)["ok"]
    assert node.agent is not None
    node.controller.until(lambda: node.agent is not None and node.agent.after_boot.over)
    node.agent.stop()
    for server_id in (SERVER, OTHER, third):
        node.hypervisor.turn_off(server_id)
    node.controller.want("server", SERVER, 1, {"host": "h", "power": "running", "spec": spec()})
    node.controller.want("server", OTHER, 1, {"host": "elsewhere", "power": "running", "spec": spec(OTHER, 2)})
    node.controller.want("server", third, 1, {"host": "h", "power": "shutdown", "spec": spec(third, 3)})
    node.controller.want("server", "unmade", 1, {"host": "h", "power": "running", "spec": spec("unmade", 4)})
    node.restart()
    node.controller.until(lambda: "server" in node.controller.applied)
    powers = {key: seen.power for key, seen in node.hypervisor.servers().items()}
    assert powers == {SERVER: "shutdown", OTHER: "shutdown", third: "shutdown"}, "no boot, so nobody is started"
    (node.folder / "node/boot").write_text("an earlier boot")
    node.restart()
    node.controller.until(lambda: node.agent is not None and node.agent.after_boot.over)
    powers = {key: seen.power for key, seen in node.hypervisor.servers().items()}
    assert powers == {SERVER: "running", OTHER: "shutdown", third: "shutdown"}


def test_after_a_boot_a_failing_start_is_tried_again_and_nothing_told_of_it(node: Node) -> None:
    agent = node.start()
    node.controller.call("c", "ensure_server", {"spec": spec()})
    assert node.controller.result("c")["ok"]
    node.controller.until(lambda: agent.after_boot.over and SERVER in node.controller.seen["servers"])
    agent.stop()
    node.hypervisor.turn_off(SERVER)
    node.controller.want("server", SERVER, 1, {"host": "h", "power": "running", "spec": spec()})
    (node.folder / "node/boot").write_text("an earlier boot")
    node.controller.powers.clear()
    agent = node.restart(refusals=1)
    node.controller.until(lambda: agent.after_boot.over)
    node.controller.until(lambda: node.controller.powers)
    assert node.controller.powers == {"running"} and node.hypervisor.refusals == 0


def test_a_call_waits_for_a_hypervisor_that_comes_back(node: Node) -> None:
    node.start()
    node.hypervisor.away = 2
    node.controller.call("c", "ensure_server", {"spec": spec(), "power": "running"})
    result = node.controller.result("c")
    assert result.pop("timing")["ms"] >= 1000, "two pauses"
    assert result == {"id": "c", "ok": True, "value": {"power": "running", "domain": "instance-00000001"}}
    assert node.hypervisor.began == ["server 1"] * 3
    node.hypervisor.away = 1000
    node.controller.call("late", "ensure_power", {"server_id": SERVER, "power": "shutdown"}, fence=(1, 2), deadline=0.8)
    late = node.controller.result("late")
    assert not late["ok"] and "does not answer" in late["error"]


def test_metadata_and_images(node: Node) -> None:
    node.controller.images["i1"] = b"x" * 3_000_000
    source = SocketSource(node.socket)
    assert source.metadata("network", "n1", "10.0.0.5") == {"server_id": "n110.0.0.5"}
    assert source.metadata("router", "r1", "10.0.0.5") is None
    with source.image("i1") as file:
        assert sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b"")) == 3_000_000
    with pytest.raises(NodeError, match="not available"), source.image("i2"):
        pass
    node.stack.close()
    with pytest.raises(ControlPlaneDown):
        source.metadata("network", "n1", "10.0.0.5")


def test_an_image_that_is_lost_on_its_way_is_asked_for_again(node: Node) -> None:
    """The api was killed meanwhile: what it owes comes a moment later, so nothing has failed."""
    node.controller.images["i1"] = b"x" * 3_000_000
    source = SocketSource(node.socket)

    def fetched() -> int:
        with source.image("i1") as file:
            return sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))

    for trouble in ("cut_off", "troubles"):
        setattr(node.controller, trouble, 1)
        with pytest.raises(Unreachable, match="image i1"):
            fetched()
        assert fetched() == 3_000_000
    node.controller.troubles = 1
    node.start()
    node.controller.call("c", "ensure_server", {"spec": spec(), "power": "running"})
    assert node.controller.result("c")["ok"]
    node.controller.call("snapshot", "upload_image", {"server_id": SERVER, "image_id": "i2", "power": "running"}, fence=(1, 2))
    assert node.controller.result("snapshot")["ok"] and node.controller.taken["i2"].startswith(b"QFI")
    node.stack.close()
    with pytest.raises(Unreachable, match="could not be fetched"):
        fetched()
    with pytest.raises(Unreachable, match="could not be sent"):
        source.put_image("i2", io.BytesIO(b"content"))


def test_a_result_that_a_power_cut_has_cut_off_is_no_result(node: Node) -> None:
    node.start()
    node.controller.refuse_reports = True
    node.controller.call("c", "ensure_server", {"spec": spec(), "power": "running"})
    node.controller.until(lambda: list((node.folder / "node/results").glob("c")))
    node.agent.stop()
    (node.folder / "node/results/c").write_bytes(b"")
    node.controller.refuse_reports = False
    node.restart()
    assert node.controller.result("c")["ok"], "the call came again"


def test_the_end_of_the_agent_is_no_failure_of_what_was_under_way(node: Node) -> None:
    node.start()
    node.hypervisor.gate.clear()
    node.controller.call("c", "ensure_server", {"spec": spec(), "power": "running"})
    node.controller.until(lambda: node.hypervisor.began)
    node.agent.stop()
    node.hypervisor.lost = True
    node.controller.until(lambda: node.hypervisor.at_once == 0)
    time.sleep(0.05)
    assert not list((node.folder / "node/results").iterdir())
    node.restart()
    assert node.controller.result("c")["ok"]


class Unsteady(FakeWires):
    """Its first looks at its own daemons, and at its agents, fail in a way that nobody has thought of."""

    failures = 0

    def _fail(self) -> None:
        if self.failures < 4:
            self.failures += 1
            raise RuntimeError("dictionary changed size during iteration")

    def trouble(self) -> Mapping[str, str]:
        self._fail()
        return super().trouble()

    def agents(self) -> Mapping[str, bool]:
        self._fail()
        return super().agents()


def test_an_error_that_nobody_has_thought_of_ends_no_loop(node: Node) -> None:
    node.wires = wires = Unsteady()
    node.controller.want("network", "n1", 7, {"mtu": 1450})
    node.start()
    node.controller.until(lambda: node.controller.applied.get("network") == {"n1": 7})
    assert wires.failures == 4
