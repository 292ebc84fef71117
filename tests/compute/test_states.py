"""The table of states, the scheduler's decision, and a property: whatever happens, a server is in a state of the table."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.compute import loops, plan, states
from nacre.core.config import Default
from nacre.core.errors import Conflict

PAIRS = [(vm, task) for vm, tasks in states.VALID.items() for task in tasks]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("method", states.VERBS)
def test_every_verb_begins_in_a_state_of_the_table(pair: tuple[str, str | None], method: str) -> None:
    try:
        verb = states.check("x", method, *pair)
    except Conflict as refused:
        assert refused.message.startswith("Cannot '") and "instance x while it is in" in refused.message
        return
    if verb.during is not None and pair[0] != states.DELETED:
        assert verb.during in states.VALID[pair[0]]


@given(st.lists(st.tuples(st.sampled_from(sorted(states.VERBS)), st.sampled_from(["done", "failed", "seen"]), st.sampled_from([*states.POWER,
    "missing"]))))
def test_no_path_leaves_the_table(events: list[tuple[str, str, str]]) -> None:
    vm, task = states.ACTIVE, None
    ends = {"start": states.ACTIVE, "stop": states.STOPPED, "reboot": states.ACTIVE, "reboot_hard": states.ACTIVE, "pause": states.PAUSED,
            "unpause": states.ACTIVE, "suspend": states.SUSPENDED, "resume": states.ACTIVE, "snapshot": states.ACTIVE, "backup": states.ACTIVE,
            "rebuild": states.ACTIVE, "resize": states.RESIZED, "confirm_resize": states.ACTIVE, "revert_resize": states.ACTIVE,
            "rescue": states.RESCUED, "unrescue": states.ACTIVE, "delete": states.DELETED}  # fmt: skip
    for method, what, power in events:
        if what == "seen" and task is None:
            vm = states.reconciled(vm, power)
        elif vm != states.DELETED:
            try:
                during = states.check("x", method, vm, task).during
            except Conflict:
                continue
            if during is not None:
                assert during in states.VALID[vm]
                vm = ends[method] if what == "done" else states.ERROR if method == "delete" else vm
        assert task in states.VALID[vm]
        assert states.status(vm, task)
        assert states.wanted_power(vm, task) in ("running", "paused", "shutdown")


def test_upstreams_words() -> None:
    with pytest.raises(Conflict, match="Cannot 'stop' instance abc while it is in vm_state stopped"):
        states.check("abc", "stop", "stopped", None)
    with pytest.raises(Conflict, match="Cannot 'reboot' instance abc while it is in task_state deleting"):
        states.check("abc", "reboot_hard", "active", "deleting")


def test_statuses_lead_back_to_their_states() -> None:
    assert states.having_status(["shutoff"]) == [
        (states.STOPPED, task) for task in states.VALID[states.STOPPED] if task not in ("rebuilding", "resize_prep", "resize_finish")]  # fmt: skip
    assert ("stopped", "rebuilding") in states.having_status(["rebuild"])
    assert states.having_status(["REBOOT"]) == [("active", "rebooting")]
    assert states.having_status(["nonsense"]) == []
    for vm, task in PAIRS:
        assert (vm, task) in states.having_status([states.status(vm, task)])


@pytest.mark.parametrize(("vm", "power", "after"), [
    ("active", "shutdown", "stopped"), ("active", "crashed", "stopped"), ("active", "missing", "stopped"), ("stopped", "running", "active"),
    ("paused", "running", "active"), ("paused", "shutdown", "stopped"), ("active", "paused", "active"), ("building", "shutdown", "building"),
    ("error", "running", "error"), ("deleted", "running", "deleted")])  # fmt: skip
def test_what_a_host_saw(vm: str, power: str, after: str) -> None:
    assert states.reconciled(vm, power) == after


def host(name: str, **values: object) -> plan.Host:
    return plan.Host(**{"name": name, "provider_id": name, "generation": 1, "alive": True, **values})  # type: ignore[arg-type]


FILTERS = ("ComputeFilter", "ResourcesFilter", "ImagePropertiesFilter")


def test_each_refusal_names_its_filter() -> None:
    hosts = [host("a", alive=False), host("b", disabled=True, disabled_reason="repair"), host("c", missing=("VCPU: 2 wanted, 1 left",)),
             host("d", resources={"cpu_arch": "aarch64"}), host("e", zone="other"), host("f", resources={"cpu_arch": "x86_64"})]  # fmt: skip
    choice = plan.choose(hosts, plan.Request({"VCPU": 2}, {"hw_architecture": "x86_64"}, zone="nova"), FILTERS)
    assert [h.name for h in choice.candidates] == ["f"]
    assert {name: refusal[0] for name, refusal in choice.refused.items()} == {
        "a": "ComputeFilter", "b": "ComputeFilter", "c": "ResourcesFilter", "d": "ImagePropertiesFilter", "e": "AvailabilityZoneFilter"}  # fmt: skip
    told = plan.no_valid_host(plan.choose(hosts[:3], plan.Request({"VCPU": 2}), FILTERS))
    assert told.startswith("No valid host was found. ")
    assert "b: its compute service is disabled (repair) (ComputeFilter)" in told and "c: VCPU: 2 wanted, 1 left (ResourcesFilter)" in told
    assert "no compute host has reported yet" in plan.no_valid_host(plan.choose([], plan.Request({}), FILTERS))


def test_the_emptiest_host_first_and_at_most_five() -> None:
    hosts = [host(f"h{n}", free={"MEMORY_MB": n * 100, "VCPU": n, "DISK_GB": n}) for n in range(8)]
    random.Random(1).shuffle(hosts)
    assert [h.name for h in plan.choose(hosts, plan.Request({}), FILTERS).candidates] == ["h7", "h6", "h5", "h4", "h3"]


@pytest.mark.parametrize(("request_", "filters", "first"), [
    (plan.Request({}), (), set()), (plan.Request({}, host="b", group=plan.Group("affinity", 1, {"a": 1})), (), {"b"}),
    (plan.Request({}, hints={"same_host": ["x", "y"]}, hosts_of={"x": "a"}), ("SameHostFilter",), {"a"}),
    (plan.Request({}, hints={"same_host": "x"}, hosts_of={"x": "a"}), (), set()),
    (plan.Request({}, group=plan.Group("soft-affinity", 1, {"a": 1, "b": 2})), (), {"a", "b"}),
    (plan.Request({}, group=plan.Group("anti-affinity", 1, {"a": 1})), (), set())])  # fmt: skip
def test_the_hosts_that_a_request_is_about(request_: plan.Request, filters: tuple[str, ...], first: set[str]) -> None:
    assert set(plan.named(request_, filters)) == first


def test_hints_and_a_host_by_name() -> None:
    hosts = [host("a"), host("b")]
    there = {"x": "a"}
    assert [h.name for h in plan.choose(hosts, plan.Request({}, hints={"same_host": "x"}, hosts_of=there), ("SameHostFilter",)).candidates] == ["a"]
    assert [h.name for h in plan.choose(hosts, plan.Request({}, hints={"different_host": ["x"]}, hosts_of=there),
                                        ("DifferentHostFilter",)).candidates] == ["b"]
    assert [h.name for h in plan.choose(hosts, plan.Request({}, host="b"), FILTERS).candidates] == ["b"]
    with pytest.raises(KeyError):
        plan.choose(hosts, plan.Request({}), ("NoSuchFilter",))


def test_ratios_and_reserves_become_inventory() -> None:
    seen = {"vcpus": 2, "memory_mb": 2000, "disk_gb": 100}
    offered = loops.inventories(seen, Default(cpu_allocation_ratio=16.0, reserved_host_memory_mb=512, reserved_host_disk_mb=1025))
    assert offered["VCPU"]["total"] * offered["VCPU"]["allocation_ratio"] == 32
    assert (offered["MEMORY_MB"]["reserved"], offered["DISK_GB"]["reserved"]) == (512, 2)
    assert loops.inventories({}, Default()) == {}
