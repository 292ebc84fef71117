"""`nacre explain server ID`: the scheduler's decision per host and filter, and what would have to change for the server to fit."""

import json
from typing import Any

from nacre.cli.asking import ask
from nacre.core.config import Home


def show(home: Home, server: str, *, as_json: bool) -> None:
    """Raises Trouble."""
    found = ask(home, "explain", {"server": server})
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    wanted = ", ".join(f"{amount} {name}" for name, amount in found["wanted"].items())
    told = [f"Server {found['name']} ({found['server_id']}) is {found['status']} {'on host ' + found['host'] if found['host'] else 'on no host'}.",
            f"It takes {wanted}."]  # fmt: skip
    decision = found["decision"]
    if decision is None:
        told.append("No decision of the scheduler is kept for it.")
    else:
        told += ["", f"Decided {decision['at'][:23].replace('T', ' ')}Z by {decision['request_id']}: "
                     + (f"host {decision['host']}" if decision["placed"] else "no host")]  # fmt: skip
        told += [f"  {number}. {host['host']}: {_free(host)}" for number, host in enumerate(decision["candidates"], 1)]
        told += [f"  not {row['host']}: {row['reason']} ({row['filter']})" for row in decision["refused"]]
        told += [f"  and {decision['more']} more hosts"] if decision["more"] else []
    return told + (_now(found["now"]) if "now" in found else [])


def _free(host: dict[str, Any]) -> str:
    return ", ".join(f"{amount:g} {name} free" for name, amount in sorted(host["free"].items())) + f", {host['servers']} servers"


def _now(now: dict[str, Any]) -> list[str]:
    told = ["", f"Now {now['fits']} of {now['hosts']} hosts would take it:"]
    for host, verdicts in now["verdicts"].items():
        told.append(f"  {host}")
        told += [f"    {verdict['filter']}: {verdict['reason'] or 'passes'}" for verdict in verdicts]
    changes = [change for change in (now["change"], now["admin_change"]) if change]
    return told + (["", *changes] if changes else [])
