"""Whatever is asked, in whatever order it is carried out, whoever dies or comes late: at rest everything is true (truth.py).

Hypothesis drives one cloud whose caller, workers and host are steps of their own (stage.py). In CI the examples are the same every time;
the long run takes new ones and prints how to repeat what failed.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from core import durability as harness
from nacre.compute import loops, states, tables
from races import stage as stages
from races import truth

SERVERS, NET = "/compute/v2.1/servers", "/network/v2.0"
_HELD = {"active", "paused", "stopped"}
# Upstream: in which vm_state a verb may begin when nothing is being done (nova/compute/api.py, check_instance_state).
BEGINS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "start": ({"os-start": None}, {"stopped"}),
    "stop": ({"os-stop": None}, {"active", "rescued", "error"}),
    "reboot": ({"reboot": {"type": "SOFT"}}, {"active"}),
    "reboot_hard": ({"reboot": {"type": "HARD"}}, _HELD | {"suspended", "error"}),
    "pause": ({"pause": None}, {"active"}),
    "unpause": ({"unpause": None}, {"paused"}),
    "suspend": ({"suspend": None}, {"active"}),
    "resume": ({"resume": None}, {"suspended"}),
    "rescue": ({"rescue": {}}, {"active", "stopped", "error"}),
    "unrescue": ({"unrescue": None}, {"rescued"}),
    "snapshot": ({"createImage": {"name": "shot"}}, _HELD | {"suspended"}),
    "rebuild": ({"rebuild": {"imageRef": ""}}, _HELD | {"error"}),
    "confirm_resize": ({"confirmResize": None}, {"resized"}),
    "revert_resize": ({"revertResize": None}, {"resized"}),
}
_OVERTAKEN = ("rebooting", "powering-on", "pausing", "unpausing")


DROPPED = ("port", "router", "floatingip", "security_group", "security_group_rule", "subnet", "network", "port")
STEPS = [name for name, weight in {
    "act": 14, "work": 6, "call": 6, "result": 2, "applied": 1, "look": 1, "sight": 2, "agree": 1, "destroy": 1, "silence": 1, "rest": 1, "die": 2,
    "stall": 2, "create": 2, "resize": 2, "delete": 2, "reset": 2, "attach": 2, "detach": 1, "port": 1, "regroup": 1, "drop": 2, "route": 2,
    "float": 2, "secure": 1}.items() for _ in range(weight)]  # fmt: skip


class Cloud(RuleBasedStateMachine):
    """`servers` were acknowledged and not deleted, of `doubtful` ones a delete was taken back, if it was not too late; the others are what
    the API said there is."""

    stage: stages.Stage

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[str] = []
        self.gone: list[str] = []
        self.doubtful: list[str] = []
        self.stage.log.clear()
        self.stage.sign_in()  # a long run outlives a token
        self.net = {kind: list[str]() for kind in ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule")}
        self.outside = self.make("network", name="out", **{"router:external": True, "provider:network_type": "vxlan"})
        self.make("subnet", network_id=self.outside, cidr="198.51.100.0/28", ip_version=4, enable_dhcp=False)
        inner = self.make("network", name="in")
        self.make("subnet", network_id=inner, cidr="10.9.0.0/28", ip_version=4)
        self.make("security_group", name="g")
        router = self.make("router", name="r", external_gateway_info={"network_id": self.outside})
        self.ask("PUT", f"{NET}/routers/{router}/add_router_interface", {"subnet_id": self.net["subnet"][1]}, (200,))
        self.make("floatingip", floating_network_id=self.outside)
        self.create(0, 1)
        self.stage.settle()

    def ask(self, method: str, path: str, body: Any = None, allowed: tuple[int, ...] = ()) -> Any:
        answer = self.stage.ask(method, path, body)
        assert answer.status_code in allowed or not allowed, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return answer

    def make(self, kind: str, **body: Any) -> str:
        answer = self.ask("POST", f"{NET}/{kind.replace('_', '-')}s", {kind: body}, (201, 400, 404, 409))
        if answer.status_code != 201:
            return ""
        self.net[kind].append(str(answer.json()[kind]["id"]))
        return self.net[kind][-1]

    def one(self, kind: str, at: int) -> str:
        found = self.net[kind]
        return found[at % len(found)] if found else "00000000-0000-0000-0000-000000000000"

    def server(self, at: int) -> str:
        found = [*self.servers[-2:], *self.gone[-1:], *self.doubtful[-1:]]
        return found[at % len(found)] if found else "00000000-0000-0000-0000-000000000000"

    def row(self, server_id: str) -> Any:
        with self.stage.cloud.db.read() as conn:
            return tables.by_id(conn, server_id)

    @rule(number=st.integers(0, 2**32 - 1))
    def go_on(self, number: int) -> None:
        """One step, chosen evenly: what shrinks is how many there are."""
        dice = random.Random(number)
        name, at, more = dice.choice(STEPS), dice.randrange(32), dice.randrange(4)
        self.stage.log.append(f"{name} {at} {more}")
        getattr(self, name)(at, more)
        truth.check_always(self.stage)

    # what users ask of servers

    def create(self, at: int, more: int) -> None:
        inner = self.net["network"][1:2]
        networks: Any = "none" if more == 0 or not inner else [{"uuid": inner[0]}] if more < 3 else [{"port": self.one("port", at)}]
        body = {"name": "s", "imageRef": self.stage.image, "flavorRef": "12"[at % 2], "networks": networks}
        answer = self.ask("POST", SERVERS, {"server": body}, (202, 400, 403, 409))
        if answer.status_code == 202:
            self.servers.append(answer.json()["server"]["id"])

    def act(self, at: int, more: int) -> None:
        """Mostly a verb that may begin now, sometimes any."""
        server_id = self.server(more)
        before = self.row(server_id)
        may = sorted(verb for verb in BEGINS if before is not None and self.may(before, verb))
        verb = may[at // 2 % len(may)] if may and at % 2 else sorted(BEGINS)[at % len(BEGINS)]
        body = {"rebuild": {"imageRef": self.stage.image}} if verb == "rebuild" else BEGINS[verb][0]
        status = self.ask("POST", f"{SERVERS}/{server_id}/action", body).status_code
        if before is None:
            assert status == 404
            return
        assert status in ((200, 202, 204, 400) if self.may(before, verb) else (409,)), (verb, before.vm_state, before.task_state, status)
        if status == 400:
            assert verb in ("confirm_resize", "revert_resize") and before.resized_from is None

    def may(self, row: Any, verb: str) -> bool:
        free = row.task_state is None or (verb == "reboot_hard" and row.task_state in _OVERTAKEN)
        return free and row.vm_state in BEGINS[verb][1] and row.host is not None

    def resize(self, at: int, more: int) -> None:
        row = self.row(self.server(more))
        flavor = "12"[at % 2] if row is None or at > 20 else {"1": "2"}.get(row.flavor_id, "1")
        self.ask("POST", f"{SERVERS}/{self.server(more)}/action", {"resize": {"flavorRef": flavor}}, (202, 400, 403, 404, 409))

    def delete(self, at: int, more: int) -> None:
        server_id = self.server(more)
        path = f"{SERVERS}/{server_id}"
        answer = self.ask("POST", f"{path}/action", {"forceDelete": None}) if at % 3 == 0 else self.ask("DELETE", path)
        assert answer.status_code in ((202, 204) if server_id in self.servers else (202, 204, 404))
        for there in (self.servers, self.doubtful):
            if server_id in there:
                there.remove(server_id)
                self.gone.append(server_id)

    def reset(self, at: int, more: int) -> None:
        server_id, to = self.server(more), ("active", "error")[at % 2]
        before = self.row(server_id)
        status = self.ask("POST", f"{SERVERS}/{server_id}/action", {"os-resetState": {"state": to}}, (202, 404, 409)).status_code
        assert (status == 404) == (before is None)
        assert status != 409 or (to == "active" and before.host is None and before.task_id is None)
        if status == 202 and server_id in self.gone:
            self.gone.remove(server_id)
            self.doubtful.append(server_id)

    def attach(self, at: int, more: int) -> None:
        body = {"port_id": self.one("port", at)} if at % 2 else {"net_id": self.one("network", 1)}
        self.ask("POST", f"{SERVERS}/{self.server(more)}/os-interface", {"interfaceAttachment": body}, (200, 400, 403, 404, 409))

    def detach(self, at: int, more: int) -> None:
        server_id = self.server(more)
        found = self.ask("GET", f"{SERVERS}/{server_id}/os-interface")
        there = [one["port_id"] for one in found.json()["interfaceAttachments"]] if found.status_code == 200 else []
        if there:
            self.ask("DELETE", f"{SERVERS}/{server_id}/os-interface/{there[at % len(there)]}", None, (202, 404, 409))

    # what users ask of the network

    def port(self, at: int, more: int) -> None:
        groups = {"security_groups": self.net["security_group"][:2]} if at % 2 else {}
        self.make("port", network_id=self.one("network", 1), **groups)

    def regroup(self, at: int, more: int) -> None:
        groups = {"security_groups": self.net["security_group"][:more]}
        self.ask("PUT", f"{NET}/ports/{self.one('port', at)}", {"port": groups}, (200, 400, 404, 409))

    def drop(self, at: int, more: int) -> None:
        kind = DROPPED[at % len(DROPPED)]
        found = self.one(kind, more)
        status = self.ask("DELETE", f"{NET}/{kind.replace('_', '-')}s/{found}", None, (204, 404, 409)).status_code
        if status == 204:
            self.net[kind].remove(found)
        if kind in ("network", "security_group"):  # what was under it went with it
            for under in ("subnet", "security_group_rule"):
                self.net[under] = [one for one in self.net[under] if one in self.there(under)]

    def there(self, kind: str) -> set[str]:
        return {one["id"] for one in next(iter(self.ask("GET", f"{NET}/{kind.replace('_', '-')}s").json().values()))}

    def route(self, at: int, more: int) -> None:
        path, way = f"{NET}/routers/{self.one('router', more)}", ("create", "gateway", "clear", "add", "remove")[at % 5]
        if way == "create" and len(self.net["router"]) < 2:
            self.make("router", name="r", **({"external_gateway_info": {"network_id": self.outside}} if more % 2 else {}))
        elif way in ("gateway", "clear"):
            info = {"network_id": self.outside} if way == "gateway" else {}
            self.ask("PUT", path, {"router": {"external_gateway_info": info}}, (200, 400, 404, 409))
        elif way in ("add", "remove"):
            self.ask("PUT", f"{path}/{way}_router_interface", {"subnet_id": self.one("subnet", 1)}, (200, 400, 404, 409))

    def float(self, at: int, more: int) -> None:
        if at % 4 == 0 and len(self.net["floatingip"]) < 3:
            self.make("floatingip", floating_network_id=self.outside)
        else:
            every = self.ask("GET", f"{NET}/ports").json()["ports"]
            plain = [one["id"] for one in every if not one["device_owner"].startswith("network:")]
            to = plain[at % len(plain)] if plain and at % 4 != 3 else None
            self.ask("PUT", f"{NET}/floatingips/{self.one('floatingip', more)}", {"floatingip": {"port_id": to}}, (200, 400, 404, 409))

    def secure(self, at: int, more: int) -> None:
        if at % 3 == 0 and len(self.net["security_group"]) < 3:
            self.make("security_group", name="g")
        else:
            self.make("security_group_rule", security_group_id=self.one("security_group", at), direction="ingress",
                      remote_group_id=self.one("security_group", more))  # fmt: skip

    # who carries it out

    def work(self, at: int, more: int) -> None:
        for _ in range(more + 1):
            self.stage.work()

    def die(self, at: int, more: int) -> None:
        """A worker is killed at a boundary."""
        left = [at % 4]

        def fault(when: str, step: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise harness.Killed

        self.stage.work(fault)

    def stall(self, at: int, more: int) -> None:
        """A worker loses its lease at a boundary, another takes the task as far as it goes, then the first one goes on."""
        left = [more]

        def fault(when: str, step: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                self.stage.lose_leases()
                self.stage.work()

        self.stage.work(fault)

    def call(self, at: int, more: int) -> None:
        self.stage.node.run_call(at)
        if more:
            self.stage.node.tell_result(-1, False)

    def result(self, at: int, more: int) -> None:
        self.stage.node.tell_result(at, more == 0)

    def applied(self, at: int, more: int) -> None:
        self.stage.node.tell_applied()

    def look(self, at: int, more: int) -> None:
        self.stage.node.look()

    def sight(self, at: int, more: int) -> None:
        if self.stage.node.sights:
            self.stage.node.tell_seen(at % len(self.stage.node.sights))

    def agree(self, at: int, more: int) -> None:
        loops.agree(self.stage.cloud, stages.WHO)

    def destroy(self, at: int, more: int) -> None:
        """As `virsh destroy`."""
        there = sorted(self.stage.node.hypervisor.servers())
        if there:
            self.stage.node.hypervisor.turn_off(there[at % len(there)])

    def silence(self, at: int, more: int) -> None:
        self.stage.silence(more > 0)

    def rest(self, at: int, more: int) -> None:
        self.stage.settle()
        self.check()

    def check(self) -> None:
        truth.check(self.stage)
        for server_id in self.servers:
            found = self.ask("GET", f"{SERVERS}/{server_id}", None, (200,)).json()["server"]
            assert found["status"] in {states.status(vm, None) for vm in states.VALID}
        for server_id in self.doubtful:
            self.ask("GET", f"{SERVERS}/{server_id}", None, (200, 404))
        for server_id in self.gone:
            self.ask("GET", f"{SERVERS}/{server_id}", None, (404,))
        for kind, ids in self.net.items():
            assert kind == "port" or self.there(kind) >= set(ids), kind

    def teardown(self) -> None:
        """At rest it is true, and everything can be taken away again."""
        try:
            self.stage.settle()
            self.check()
        finally:
            self.sweep()

    def sweep(self) -> None:
        ask = self.stage.ask
        for server in ask("GET", f"{SERVERS}").json()["servers"]:
            ask("DELETE", f"{SERVERS}/{server['id']}")
        self.stage.settle()
        for router in ask("GET", f"{NET}/routers").json()["routers"]:
            ask("PUT", f"{NET}/routers/{router['id']}", {"router": {"routes": []}})
        for kind in ("floatingip", "port", "router", "port", "security-group", "network"):
            for found in next(iter(ask("GET", f"{NET}/{kind}s").json().values())):
                if kind == "port" and found["device_owner"] == "network:router_interface":
                    ask("PUT", f"{NET}/routers/{found['device_id']}/remove_router_interface", {"port_id": found["id"]})
                elif kind == "port" and found["device_owner"].startswith("network:"):
                    continue
                elif found.get("name") != "default":
                    ask("DELETE", f"{NET}/{kind}s/{found['id']}")
        self.stage.settle()
        assert ask("GET", f"{NET}/networks").json()["networks"] == [] and not self.stage.node.hypervisor.servers()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[stages.Stage]:
    made = stages.make(tmp_path_factory.mktemp("stage"), fresh_database())
    yield made
    made.cloud.db.close()


def drive(stage: stages.Stage, **how: Any) -> None:
    """A failure prints its steps as they were asked and answered; they are even numbers for Hypothesis, so little is gained by shrinking."""
    try:
        run_state_machine_as_test(type("Driven", (Cloud,), {"stage": stage}), settings=settings(
            deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False, database=None,
            phases=(Phase.explicit, Phase.generate), **how))  # fmt: skip
    except BaseException:
        print("\n".join(stage.log))
        raise


def test_the_same_interleavings_every_time(stage: stages.Stage) -> None:
    drive(stage, max_examples=10, stateful_step_count=50, derandomize=True)


@pytest.mark.long
def test_other_interleavings_each_time(stage: stages.Stage) -> None:
    drive(stage, max_examples=400, stateful_step_count=60, print_blob=True)
