"""os-server-external-events: what other services tell of servers. Ours need no telling, all rows being in one database; a service beside
the cloud learns which of its servers are known, with upstream's codes."""

from typing import Any

from nacre.compute.bodies import events as bodies
from nacre.compute.service import servers
from nacre.core.errors import NotFound
from nacre.core.http import Call, Reply


def create(call: Call) -> Reply:
    """200 when all servers are there, 207 when some are, else 404; one that is on no host yet is 422."""
    events = bodies.told(call.body, call.version)
    hosts = servers.hosts_of(call.caller, {event.server_uuid for event in events})
    shown: list[dict[str, Any]] = []
    for event in events:
        code = 404 if event.server_uuid not in hosts else 200 if hosts[event.server_uuid] else 422
        shown.append(bodies.view(event, code))
    good = sum(each["code"] == 200 for each in shown)
    if not good:
        raise NotFound("No instances found for any event")
    return Reply({"events": shown}, 200 if good == len(shown) else 207)
