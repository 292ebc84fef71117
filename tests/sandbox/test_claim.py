from pathlib import Path

import pytest

from nacre.core.config import Home
from nacre.sandbox import claim
from nacre.sandbox.claim import Claim, Seen

HOME = Home(Path("/srv/cloud"))
GUEST = f"<disk type='file'><source file='{HOME.host(1)}/instances/1f/disk'/></disk>"


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        (Seen(), []),
        (Seen(links=frozenset({"lo", "eth0", "br-lan"}), bridges=frozenset({"br-lan"}), guests={"web": "<domain/>"}), []),
        (Seen(bridges=frozenset({"br-int", "br-ex"}), links=frozenset({"br-int", "br-ex"})), ["bridge br-int"]),
        (Seen(links=frozenset({"br-tun", "eth-ext"})), ["interface br-tun", "interface eth-ext"]),
        (Seen(links=frozenset({"br-ex"})), ["interface br-ex, which is no bridge of Open vSwitch"]),
        (Seen(tables=frozenset({("inet", "filter"), ("netdev", "nacre")})), ["nftables table netdev nacre"]),
        (Seen(rooms=frozenset({"qdhcp-1"})), ["namespace qdhcp-1"]),
        (Seen(guests={"instance-00000001": "<domain/>", "instance-0000000a": GUEST, "instance-web": ""}), ["guest instance-00000001"]),
        (Seen(user="/srv/other"), ["the cloud in /srv/other"]),
        (Seen(user="/srv/cloud"), []),
    ],
)
def test_what_stands_in_the_way(seen: Seen, named: list[str]) -> None:
    assert claim.foreign(seen, HOME, ["br-ex"]) == named


def test_a_claim_is_kept(tmp_path: Path) -> None:
    assert claim.read(tmp_path / "machine.json") is None
    claim.write(tmp_path / "machine.json", Claim(held=True, theirs=("br-ex",)))
    assert claim.read(tmp_path / "machine.json") == Claim(True, ("br-ex",))
