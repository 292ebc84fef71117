"""Imports point down: services → core; node → core; sandbox → core and node's commands; only `program` and `cli` know everybody.

Inside a service the rooms may import as in the table of the design: what belongs to a layer above never leaks into one below.
"""

import pytest

from rules.source import SERVICES, Module, imports, modules

WHOLE_PROGRAM = {"program", "cli", "__main__"}
MAY = {
    "core": {"core"},
    "node": {"core", "node"},
    "sandbox": {"core", "sandbox", "node.commands"},
    "guest": {"core", "guest", "node.commands"},
    **{service: {"core", *SERVICES} for service in SERVICES},
}
# Rooms of one service → the rooms of the same service that they may import. A room not named here may be imported by all of them.
ROOMS = {
    "routes": {"api", "bodies", "rules", "service"},
    "api": {"bodies", "service", "states", "rules"},
    "bodies": {"service", "states"},
    "service": {"service", "tables", "states", "plan", "tasks", "documents"},
    "states": set(),
    "tables": {"tables", "states"},
    "plan": {"plan", "states"},
    "tasks": {"tasks", "service", "tables", "states", "plan"},
    "loops": {"loops", "plan", "tables", "service", "states"},
}


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name or "nacre")
def test_directions(module: Module) -> None:
    if module.room in WHOLE_PROGRAM or not module.room or module.name == "":
        return
    allowed = MAY.get(module.room)
    assert allowed is not None, f"nacre/{module.room} is a new part: say here what it may import."
    for name, line in imports(module).items():
        assert any(name == part or name.startswith(part + ".") for part in allowed), (
            f"{module.path}:{line} imports nacre.{name}: {module.room} may import only {', '.join(sorted(allowed))}."
        )


@pytest.mark.parametrize("module", [module for module in modules() if module.room in SERVICES], ids=lambda module: module.name)
def test_services_meet_at_their_fronts(module: Module) -> None:
    for name, line in imports(module).items():
        service, _, inner = name.partition(".")
        if service in SERVICES and service != module.room:
            assert not inner, f"{module.path}:{line} imports nacre.{name}: other services are reached by their front, nacre.{service}, alone."


@pytest.mark.parametrize("module", [module for module in modules() if module.room in SERVICES], ids=lambda module: module.name)
def test_rooms(module: Module) -> None:
    room = module.name.split(".")[1] if "." in module.name else ""
    if room not in ROOMS:
        return
    for name, line in imports(module).items():
        service, _, inner = name.partition(".")
        other = inner.partition(".")[0]
        if service == module.room and other in ROOMS and other != room:
            assert other in ROOMS[room], f"{module.path}:{line}: {room} may not import {other}; it may import {sorted(ROOMS[room])}."
