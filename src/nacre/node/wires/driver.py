"""The contract between the agent and whatever wires a host.

Wires belong to reconciliation alone: the agent hands over the whole of what the host should have, again and again, and is told what
is true now. Nothing is ever told *what changed*, so the path after a restart is the path of every day.

`apply` is called by one thread at a time. `changed` of `watch` may be called from another thread at any moment; it must only ring.
`Lookup` is called from threads of the driver's own, several at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

KINDS = ("host", "outside", "network", "port", "dhcp", "router", "security_group", "address_set", "forwarding")
"""The kinds of documents that wires answer for; any other kind is passed over and never reported."""


@dataclass(frozen=True)
class Document:
    """One wanted document. `body` is as docs/node-contract.md says and is never changed by anybody."""

    kind: str
    id: str
    version: int
    body: dict[str, Any]


Wanted = Mapping[str, Mapping[str, Document]]
"""kind -> id -> document: the whole of what this host should have."""

Applied = dict[str, dict[str, int]]
"""kind -> id -> version of the document that is true now."""


class ControlPlaneDown(Exception):
    """A lookup could not be answered because nobody answers; what was answered before may be used."""


Lookup = Callable[[str, str, str], dict[str, Any] | None]
"""("network" | "router", its id, a guest's address) -> the answer of `GET /node/v1/metadata`, or None when there is no such guest.
Raises ControlPlaneDown."""


Keep = Callable[[str, str, str, str], int]
"""(..., a password that the guest leaves for its user) -> the status of `POST /node/v1/metadata`. Raises ControlPlaneDown."""


class Wires(Protocol):
    def recover(self) -> None:
        """Once, at the agent's start: bridges and base flows, and a look at what exists. Disturbs nothing that is right."""

    def apply(self, wanted: Wanted) -> Applied:
        """Make it true. A document that cannot be made true yet (a tap that is not there, a failure, which is logged) is left out of
        the answer and tried again at the next call; it never stops the others. Raises nothing that one document could cause."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back when a port came or went, dnsmasq died or the switch restarted: it is time to apply again."""

    def agents(self) -> Mapping[str, bool]:
        """Which parts are alive: openvswitch, dhcp, l3, metadata."""

    def trouble(self) -> Mapping[str, str]:
        """Daemon -> what is wrong with it, of those that wires need. Returns at once."""

    def survey(self, wanted: Wanted) -> dict[str, Any]:
        """How the host differs from what is wanted; changes nothing. {"found": [{"kind", "name", "cause"}], "taps": [{"name", "port_id"}] of
        guests, "others": [{"kind", "name"}] that others made}."""

    def repair(self, wanted: Wanted, taps: Sequence[str]) -> None:
        """Nothing is taken for done any more, so that the next `apply` looks at everything; servers of rooms that nobody wants end, and
        these guests' taps go, where no document wants them."""

    def close(self) -> None:
        """Stop watching and serving metadata. Wires stay as they are: guests must not notice."""
