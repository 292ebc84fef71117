"""Placement: who offers how much of what, and who has taken how much of it.

Owns resource providers, their inventories, traits and aggregates, and the allocations of consumers. Compute's scheduler looks
at those `with_room`, decides, and `claim`s in the transaction of its decision; hosts' reports call `set_inventory`. All of these act as the
system. Users (administrators) see the same rows through the upstream API.
"""

from nacre.placement.names import RESOURCE_CLASSES, TRAITS
from nacre.placement.plan import Inventory, Resources
from nacre.placement.service.fronts import (
    Candidate,
    allocated,
    candidates,
    claim,
    consumers,
    hold,
    join_aggregate,
    leave_aggregate,
    release,
    set_inventory,
    with_room,
)

__all__ = [
    "RESOURCE_CLASSES", "TRAITS", "Candidate", "Inventory", "Resources", "allocated", "candidates", "claim", "consumers", "hold", "join_aggregate",
    "leave_aggregate", "release", "set_inventory", "with_room",
]  # fmt: skip
