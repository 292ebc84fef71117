"""The verbs by which `nacre doctor` looks at a host and repairs it (docs/node-contract.md).

`survey` changes nothing. What the others take away is judged here once more, at the time: a guest's tap, folder or base that a domain
names stays, whatever the control plane thought. They repair by what is wanted now, so each may be repeated and none is fenced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nacre.node.calls import Call, Verb
from nacre.node.deadline import Deadline, NodeError
from nacre.node.documents import Documents
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.wires.driver import Wires

MOST = 2000


class _Named(msgspec.Struct):
    host: str
    names: list[str] = []


def verbs(hypervisor: Hypervisor, wires: Wires, documents: Documents, look_again: Callable[[], None]) -> Mapping[str, Verb]:
    def survey(call: Call, deadline: Deadline) -> dict[str, Any]:
        seen = msgspec.to_builtins(hypervisor.survey())
        found = {name: rows[:MOST] for name, rows in seen.items()}
        return found | {"wires": wires.survey(documents.wanted()), "index": documents.index()}

    def repair_wires(call: Call, deadline: Deadline) -> dict[str, Any]:
        names = msgspec.convert(call.args, _Named).names
        used = {tap for domain in hypervisor.survey().domains for tap in domain.taps}
        wires.repair(documents.wanted(), [name for name in names if name not in used])
        look_again()
        return {}

    def set_aside(call: Call, deadline: Deadline) -> dict[str, Any]:
        names = msgspec.convert(call.args, _Named).names
        known = {domain.id for domain in hypervisor.survey().domains} | set(documents.wanted().get("server", {}))
        if there := known & set(names):
            raise NodeError(f"server {min(there)} is on this host")
        return {"moved": {name: hypervisor.set_aside(name) for name in names}}

    def absent_base(call: Call, deadline: Deadline) -> dict[str, Any]:
        for name in msgspec.convert(call.args, _Named).names:
            hypervisor.absent_base(name)
        return {}

    table = {"survey": survey, "repair_wires": repair_wires, "set_aside": set_aside, "absent_base": absent_base}
    return {name: Verb(run, "host", change=False) for name, run in table.items()}
