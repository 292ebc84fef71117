"""`nacre policy check --user U --project P RULE`: whether the rule allows it, and the lines that decided."""

import json
from typing import Any

from nacre.cli.asking import ask
from nacre.cli.trouble import Trouble
from nacre.core.config import Home


def check(home: Home, question: dict[str, Any], *, as_json: bool) -> int:
    """0 when it is allowed, 1 when it is refused. Raises Trouble."""
    found = ask(home, "policy", question)
    for step in found["steps"]:
        step["where"] = step["where"].replace(str(home.reach), str(home.path))
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))
    return 0 if found["allowed"] else 1


def target(pairs: list[str]) -> dict[str, str]:
    """Raises Trouble for what is not KEY=VALUE."""
    wrong = next((pair for pair in pairs if not pair.partition("=")[1]), None)
    if wrong is not None:
        raise Trouble(f"{wrong} is not KEY=VALUE, as in  --target target.user.id=7d1c...")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def lines(found: dict[str, Any]) -> list[str]:
    roles = ", ".join(found["roles"]) or "no roles"
    told = [f"{'ALLOWED' if found['allowed'] else 'REFUSED'}: {found['rule']} of {found['service']}, for {found['user']} ({roles})."]
    told.append("Decided by:" if found["allowed"] else "None of these is so:" if not any(step["holds"] for step in found["steps"]) else "Because:")
    for step in found["steps"]:
        told.append(f"  {step['check']}  is {'so' if step['holds'] else 'not so'}")
        told.append(f"      {step['where']}: \"{step['rule']}\": \"{step['expression']}\"")
    return told
