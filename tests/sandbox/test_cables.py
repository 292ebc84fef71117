import pytest

from nacre.sandbox import cables


@pytest.mark.parametrize(
    ("number", "seen", "laid"),
    [
        (1, {"lo"}, ["eth0", "eth-ext", "ext-out"]),
        (1, {"lo", "eth0", "eth-ext"}, ["ext-out"]),
        (1, {"eth0", "eth-ext", "ext-out", "br-int"}, []),
        (2, {"lo"}, ["eth0", "eth-ext"]),
    ],
)
def test_lays_what_is_missing(number: int, seen: set[str], laid: list[str]) -> None:
    assert [cable.inner for cable in cables.plan(number, seen)] == laid


def test_hosts_share_a_fabric_and_no_name_or_address() -> None:
    laid = [cable for number in (1, 2, 3) for cable in cables.plan(number, set())]
    assert len({cable.outer for cable in laid}) == len(laid)
    addresses = [cable.address for cable in laid if cable.address]
    assert addresses == ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24"]
