import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nacre.sandbox import init


@pytest.mark.parametrize(
    ("ran", "last", "pause"),
    [(1.0, 0.0, 0.0), (3600.0, 5.0, 0.0), (0.2, 0.0, 0.5), (0.2, 0.5, 1.0), (0.2, 4.0, 5.0), (0.2, 5.0, 5.0)],
)
def test_pause_before_restart(ran: float, last: float, pause: float) -> None:
    assert init.pause_before_restart(ran, last) == pause


def wait_for(seen: Callable[[], bool], limit: float = 5.0) -> None:
    deadline = time.monotonic() + limit
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_supervises_and_keeps_its_state_file(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    daemons = [{"role": "steady", "argv": ["/bin/sleep", "60"]}, {"role": "broken", "argv": ["/bin/sh", "-c", "echo no; exit 3"]}]
    spec = {"state": str(state), "logs": str(tmp_path), "daemons": daemons}
    script = init.__file__
    process = subprocess.Popen([sys.executable, "-I", "-S", "-E", script, json.dumps(spec)], stderr=subprocess.DEVNULL)

    def seen(role: str) -> dict[str, int]:
        found: dict[str, dict[str, int]] = json.loads(state.read_text()) if state.exists() else {}
        return found.get(role, {"pid": 0, "restarts": -1})

    try:
        wait_for(lambda: seen("steady")["pid"] > 0)
        time.sleep(init.YOUNG)
        first = seen("steady")["pid"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: seen("steady")["pid"] not in (0, first), limit=1.0)
        assert seen("steady")["restarts"] == 1
        # 0.5 and 1 s apart: about two endings so far, not hundreds
        assert 1 <= seen("broken")["restarts"] <= 4
        assert set((tmp_path / "broken.log").read_text().split()) == {"no"}
    finally:
        process.kill()
        process.wait()
        os.kill(seen("steady")["pid"], signal.SIGKILL)
