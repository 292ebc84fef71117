"""Which segment a network gets: type drivers local, flat, vlan, vxlan, gre, geneve. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nacre.core.config import Config
from nacre.network.faults import refused

TUNNELS = ("vxlan", "gre", "geneve")
_OVERHEAD = {"vxlan": 50, "geneve": 50, "gre": 42}
LEAST_MTU = 68  # of IPv4, and of virtio
_HIGHEST = {"vxlan": (1 << 24) - 1, "geneve": (1 << 24) - 1, "gre": (1 << 32) - 1}


@dataclass(frozen=True)
class Segment:
    """`number` None: any free one of `ranges` (first, last)."""

    network_type: str
    physical_network: str | None = None
    number: int | None = None
    ranges: tuple[tuple[int, int], ...] = ()


def mtu(network_type: str, physical: int) -> int:
    """What fits into a frame of the underlay, `physical` bytes."""
    return physical - _OVERHEAD.get(network_type, 0)


def tenant_choices(config: Config) -> list[Segment]:
    """What a network gets that names nothing, in the order to try."""
    found = []
    for kind in config.ml2.tenant_network_types:
        if kind == "local":
            found.append(Segment("local"))
        elif kind == "vlan":
            found += [Segment("vlan", physical, None, ranges) for physical, ranges in vlan_ranges(config).items() if ranges]
        elif kind in TUNNELS:
            found.append(Segment(kind, None, None, tunnel_ranges(config, kind)))
    return found


def provider(config: Config, kind: str, physical: str | None, number: int | None) -> Segment:
    """The segment that an administrator names, or some free one of it. Raises InvalidInput."""
    if kind not in config.ml2.type_drivers:
        raise refused(f"network_type value '{kind}' not supported")
    if kind == "local":
        if physical or number is not None:
            raise refused(f"{'physical_network' if physical else 'segmentation_id'} prohibited for local provider network")
        return Segment("local")
    if kind in TUNNELS:
        return _tunnel(config, kind, physical, number)
    if not physical and (kind == "flat" or number is not None):
        raise refused(f"physical_network required for {'flat' if kind == 'flat' else 'VLAN'} provider network")
    if kind == "flat":
        known = config.ml2_type_flat.flat_networks
        if number is not None:
            raise refused("segmentation_id prohibited for flat provider network")
        if "*" not in known and physical not in known:
            raise refused(f"physical_network '{physical}' unknown for flat provider network")
        return Segment("flat", physical, 0)
    return _vlan(config, physical, number)


def _tunnel(config: Config, kind: str, physical: str | None, number: int | None) -> Segment:
    if physical:
        raise refused(f"provider:physical_network specified for {kind} network")
    if number is not None and not 1 <= number <= _HIGHEST[kind]:
        raise refused(f"segmentation_id out of range (1 through {_HIGHEST[kind]})")
    return Segment(kind, None, number, tunnel_ranges(config, kind))


def _vlan(config: Config, physical: str | None, number: int | None) -> Segment:
    known = vlan_ranges(config)
    if physical is not None and physical not in known:
        raise refused(f"physical_network '{physical}' unknown for VLAN provider network")
    if number is not None and not 1 <= number <= 4094:
        raise refused("segmentation_id out of range (1 through 4094)")
    if physical is None:
        physical = next((name for name, ranges in known.items() if ranges), None)
        if physical is None:
            raise refused("physical_network required for VLAN provider network")
    return Segment("vlan", physical, number, known[physical])


def vlan_ranges(config: Config) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """physical network -> ranges, of `name[:first:last]`."""
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for entry in config.ml2_type_vlan.network_vlan_ranges:
        name, *ends = entry.split(":")
        found[name] = found.get(name, ()) + (((int(ends[0]), int(ends[1])),) if ends else ())
    return found


def tunnel_ranges(config: Config, kind: str) -> tuple[tuple[int, int], ...]:
    written: Sequence[str] = {
        "vxlan": config.ml2_type_vxlan.vni_ranges, "geneve": config.ml2_type_geneve.vni_ranges, "gre": config.ml2_type_gre.tunnel_id_ranges,
    }[kind]  # fmt: skip
    pairs = [entry.split(":") for entry in written]
    return tuple((int(first), int(last)) for first, last in pairs)
