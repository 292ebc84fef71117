"""Named points at which a process of the crash tests can be killed, and one record of those that were passed.

One order at a time is armed in `<home>/run/armed.json`: the n-th passing of a point since then kills a process, the one that passes it or
another. Whoever strikes takes the order away first, by a rename that only one can do, so there is one kill an order. While an order is
armed every passing is a line in `<home>/run/passed`; one without a point only records.
"""

import json
import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nacre.cli import alive


@dataclass(frozen=True)
class Order:
    """`at`: "<role> <point>"; `number`: which passing; `victim`: a role, or several with blanks between them."""

    at: str = ""
    number: int = 1
    victim: str = ""

    def __str__(self) -> str:
        return f"{self.victim} killed at {self.at}{f' #{self.number}' if self.number > 1 else ''}"


class Points:
    """As one process passes them."""

    def __init__(self, run: Path, role: str) -> None:
        self.run, self.role = run, role
        self._lock = threading.Lock()
        self._order = ""
        self._count: Counter[str] = Counter()

    def passes(self, name: str) -> None:
        name = f"{self.role} {name}"
        with self._lock:
            try:
                told = (self.run / "armed.json").read_text()
            except FileNotFoundError:
                return
            if told != self._order:
                self._order, self._count = told, Counter()
            order = Order(**json.loads(told)["order"])
            self._count[name] += 1
            with open(self.run / "passed", "a") as record:
                record.write(f"{name}\n")
            if (order.at, order.number) == (name, self._count[name]):
                with suppress(FileNotFoundError):
                    (self.run / "armed.json").rename(self.run / "struck.json")
                    kill(self.run, order.victim.split(), self.role)


def kill(run: Path, victims: list[str], me: str = "") -> None:
    """SIGKILL to these roles; to the caller's own last."""
    for role in sorted(victims, key=lambda role: role == me):
        if role == me:
            os.kill(os.getpid(), signal.SIGKILL)
        elif found := alive.watch(run, role):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(found[1], signal.SIGKILL)
            os.close(found[1])


class Armed:
    """The tests' side."""

    def __init__(self, run: Path) -> None:
        self.run, self._number = run, 0

    def arm(self, order: Order) -> None:
        self.end()
        self._number += 1
        part = self.run / "armed.part"
        part.write_text(json.dumps({"number": self._number, "order": asdict(order)}))
        part.rename(self.run / "armed.json")

    def end(self) -> tuple[bool, list[tuple[str, int]]]:
        """Whether it struck, and (point, which passing) of all that were passed, in order."""
        struck, record = (self.run / "struck.json").exists(), self.run / "passed"
        seen, count = [], Counter[str]()
        for line in record.read_text().splitlines() if record.exists() else ():
            count[line] += 1
            seen.append((line, count[line]))
        for path in (self.run / "armed.json", self.run / "struck.json", record):
            path.unlink(missing_ok=True)
        return struck, seen
