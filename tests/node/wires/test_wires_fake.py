import contextlib
from pathlib import Path

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


def test_what_a_killed_agent_had_wired_is_found_by_the_next(tmp_path: Path) -> None:
    class Dies(FakeWires):
        def _make(self, document: Document) -> None:
            if document.kind == "router":
                raise KeyboardInterrupt
            super()._make(document)

    network, router = Document("network", "n", 1, {"mtu": 1450}), Document("router", "r", 1, {})
    killed = Dies(folder=tmp_path / "wires")
    killed.recover()
    with contextlib.suppress(KeyboardInterrupt):
        killed.apply(wanted(network, router))
    wires = FakeWires(folder=tmp_path / "wires")
    wires.recover()
    assert [one["cause"] for one in wires.survey({})["found"]] == ["nobody wants it"]
    assert [one["name"] for one in wires.survey(wanted(network, router))["found"]] == ["router r"]
    assert wires.apply(wanted(router)) == {"router": {"r": 1}}
    assert [path.name for path in (tmp_path / "wires").iterdir()] == ["router-r.json"]
