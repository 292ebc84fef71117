"""How a verb asks about what is in the database: by a short job that becomes the unprivileged user first (processes.py).

So it is answered while the api is down, too. A question that has no answer is told in one sentence; nothing is changed by asking.
"""

import json
import os
import subprocess
from typing import Any

from nacre.cli import layout, supervisor
from nacre.cli.trouble import Trouble, typed
from nacre.core.config import ConfigError, Home, load


def ask(home: Home, what: str, question: dict[str, Any], seconds: float = 120) -> Any:
    """The job's answer. Raises Trouble with its reason."""
    if os.geteuid():
        raise Trouble(f"This needs root: type  sudo ./nacre {what}")
    if not layout.is_home(home.path):
        raise Trouble(f"There is no cloud in {home.path}: name its folder with --home.")
    try:
        load(home.path / "nacre.toml")
    except ConfigError as error:
        raise Trouble(str(error)) from error
    try:
        done = subprocess.run(supervisor.command(home, "job", what), input=json.dumps(question), capture_output=True, text=True,
                              env=supervisor.ENVIRONMENT, cwd="/", timeout=seconds, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Trouble(f"There was no answer within {seconds:.0f} s. More:  {typed('logs', home.path)} up") from None
    if done.returncode:
        raise Trouble(f"{done.stderr.strip().rpartition(chr(10))[2] or 'there was no answer'}. More:  {typed('logs', home.path)} up")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise Trouble(answer["refused"])
    return answer["told"]
