"""`nacre doctor`: how the database and the hosts differ, each with its cause; exit status 0 when they do not. `--fix` repairs."""

import json
from typing import Any

from nacre.cli import alive
from nacre.cli.asking import ask
from nacre.cli.trouble import Trouble, typed
from nacre.core.config import Home

SECONDS = 600


def run(home: Home, *, fix: bool, as_json: bool) -> int:
    """The exit status. Raises Trouble."""
    asked = {"fix": fix}
    try:
        running = alive.holder(home.path / "run", "api")
    except PermissionError:
        running = 1
    if not running and (home.path / "run").is_dir():
        raise Trouble(f"The api does not run, so no host can be asked: type  {typed('up', home.path)}")
    found = ask(home, "doctor", asked, SECONDS)
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))
    return int(found["differences"] > 0)


def lines(found: dict[str, Any]) -> list[str]:
    told = [f"repaired  {_one(one)}" for one in found["repaired"]]
    told += [f"{_one(one)}" + (f"\n    --fix would {one['cure']}" if one["cure"] else "\n    this is left to you") for one in found["found"]]
    told += [f"left      {_one(one)}" for one in found["left"]]
    return [*told, f"differences: {found['differences']}"]


def _one(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one['what']}{' on ' + one['host'] if one['host'] and one['host'] != one['what'] else ''}: {one['cause']}"
