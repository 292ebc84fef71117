from nacre.node.wires.driver import Document, Wires
from nacre.node.wires.fake import FakeWires


def wanted(*documents: Document) -> dict[str, dict[str, Document]]:
    found: dict[str, dict[str, Document]] = {}
    for document in documents:
        found.setdefault(document.kind, {})[document.id] = document
    return found


def test_applies_what_it_knows_and_reports_no_other_kind() -> None:
    wires: Wires = FakeWires()
    everything = wanted(Document("port", "p", 3, {}), Document("network", "n", 7, {}), Document("server", "s", 1, {}))
    assert wires.apply(everything) == {"port": {"p": 3}, "network": {"n": 7}}
    assert wires.apply({}) == {}


def test_a_port_without_its_tap_is_not_reported_until_the_tap_comes() -> None:
    wires = FakeWires(taps=())
    rung: list[int] = []
    wires.watch(lambda: rung.append(1))
    everything = wanted(Document("port", "p", 3, {}))
    assert wires.apply(everything) == {}
    wires.plug("p")
    assert rung == [1]
    assert wires.apply(everything) == {"port": {"p": 3}}
    wires.unplug("p")
    assert wires.apply(everything) == {}


def test_a_broken_document_does_not_stop_the_others() -> None:
    wires = FakeWires()
    wires.broken.add(("router", "r"))
    assert wires.apply(wanted(Document("router", "r", 1, {}), Document("dhcp", "n", 2, {}))) == {"dhcp": {"n": 2}}
