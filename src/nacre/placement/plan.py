"""Whether resources fit: pure decisions over inventories and what is used.

    capacity = int((total - reserved) * allocation_ratio)

One consumer takes of a class at least min_unit, at most max_unit, a multiple of step_size, and never more than capacity - used.
Source: OpenStack placement, "Inventory" and "Allocations".
"""

from collections.abc import Mapping
from dataclasses import dataclass

Resources = Mapping[str, int]


@dataclass(frozen=True)
class Inventory:
    """What one provider offers of one resource class."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = 2147483647
    step_size: int = 1
    allocation_ratio: float = 1.0

    @property
    def capacity(self) -> int:
        return int((self.total - self.reserved) * self.allocation_ratio)


def refusals(wanted: Resources, inventories: Mapping[str, Inventory], used: Resources) -> list[str]:
    """One sentence for each class that does not fit; empty when all do."""
    return [text for name, amount in sorted(wanted.items()) if (text := _refusal(name, amount, inventories.get(name), used.get(name, 0)))]


def _refusal(name: str, amount: int, offered: Inventory | None, used: int) -> str:
    if offered is None:
        return f"{name}: {amount} requested, none offered"
    if amount > offered.capacity - used:
        return f"{name}: {amount} requested, {max(0, offered.capacity - used)} of {offered.capacity} free"
    if amount < offered.min_unit:
        return f"{name}: {amount} requested, at least {offered.min_unit} at a time"
    if amount > offered.max_unit:
        return f"{name}: {amount} requested, at most {offered.max_unit} at a time"
    if amount % offered.step_size:
        return f"{name}: {amount} requested, only multiples of {offered.step_size}"
    return ""
