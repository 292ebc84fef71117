"""Calls to a host that has died fail soon, calls to one that is only late to be heard after our own pause do not, tombstones never."""

import time
from pathlib import Path

import pytest

from conftest import make_cloud
from nacre.core import node_api, nodes
from nacre.core.caller import System
from nacre.core.cloud import Cloud

WHO = System("req-dead")


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return make_cloud(tmp_path / "home")


def silent(cloud: Cloud, seconds: float) -> None:
    with cloud.db.write(WHO) as tx:
        nodes.heard_of(tx, ["h"], seconds)


def test_calls_of_a_dead_host_fail(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        nodes.register(tx, "h")
        call, tombstone = nodes.call(tx, "h", nodes.NewCall("ensure_image", {}, 900)), nodes.call(tx, "h", nodes.NewCall("absent_server", {}, None))

    def outcome(call_id: str) -> tuple[str, str | None]:
        with cloud.db.read() as conn:
            state, _, error, _ = nodes.outcome(conn, call_id)
            return state, error

    silent(cloud, 3600)  # so long was the cloud down: the host comes in a moment
    node_api.expire_calls(cloud, WHO)
    assert outcome(call)[0] == "open"
    silent(cloud, 1)
    node_api.expire_calls(cloud, WHO)
    assert cloud.memory["silent hosts"] == {}
    silent(cloud, nodes.DEAD_AFTER + 1)
    node_api.expire_calls(cloud, WHO)
    assert outcome(call)[0] == "open"
    cloud.memory["silent hosts"]["h"] = time.monotonic() - node_api.GRACE
    node_api.expire_calls(cloud, WHO)
    assert outcome(call) == ("failed", "host h is down") and outcome(tombstone)[0] == "open"


def test_a_call_that_is_late_fails(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        nodes.register(tx, "h")
        call = nodes.call(tx, "h", nodes.NewCall("ensure_power", {}, -1))
    silent(cloud, 1)
    node_api.expire_calls(cloud, WHO)
    with cloud.db.read() as conn:
        assert nodes.outcome(conn, call)[2] == "host h did not answer in time"
