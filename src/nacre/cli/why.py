"""`nacre why ID`: the timeline of a request, from HTTP to the commands of hosts, in milliseconds since it began; of a resource, the
requests that touched it, and the timeline of the last.
"""

import json
from datetime import datetime
from typing import Any

from nacre.cli.asking import ask
from nacre.core.config import Home

_DEPTH = {"http": 0, "change": 1, "task": 1, "log": 1, "step": 2, "call": 3, "command": 4}


def show(home: Home, name: str, request: str | None, *, as_json: bool) -> None:
    """Raises Trouble."""
    found = ask(home, "why", {"id": name, "request": request})
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    told = []
    if found["requests"]:
        told += [f"Requests that touched {found['id']}, newest first:", ""]
        told += [f"  {_moment(one['at'])}  {one['id']}  {', '.join(one['did']) or '-'}  by {one['user_id'] or 'the system'}"
                 for one in found["requests"]]  # fmt: skip
        told.append("")
    for one in found["documents"]:
        told.append(f"Host {one['host']} has its {one['kind']} document, which is {'true' if one['true'] else 'NOT TRUE yet'} there.")
    began = datetime.fromisoformat(found["events"][0]["at"])
    told += [f"{found['request_id']} began {_moment(found['events'][0]['at'])}", ""]
    for event in found["events"]:
        told += _event(event, began)
    return told


def _event(event: dict[str, Any], began: datetime) -> list[str]:
    offset = (datetime.fromisoformat(event["at"]) - began).total_seconds() * 1000
    indent = "  " * _DEPTH.get(event["kind"], 1)
    where = f" on {event['host']}" if event["host"] and event["kind"] in ("call", "step") else ""
    took = f"   {event['ms']:.1f} ms" if event["ms"] is not None else ""
    first = f"{offset:+12.1f} ms  {indent}{event['text']}{where}{took}"
    below = [text for text in (event["problem"], event["inside"]) if text]
    return [first, *(f"{'':17}{indent}  | {line}" for text in below for line in text.splitlines())]


def _moment(text: str) -> str:
    return text[:23].replace("T", " ") + "Z"
