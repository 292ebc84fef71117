"""What `nacre conformance` makes of what Tempest tells: whose tests they are, what explains a skip, the reports, the exit status."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nacre.cli.conformance import EXCLUDED, documents, results
from nacre.cli.conformance.results import Exclusions, Outcome, Run, Selection
from nacre.cli.trouble import Trouble

API = "tempest.api.compute.servers.test_x"
A, B, C = f"{API}.One.test_a[id-1,smoke]", f"{API}.One.test_b[id-2]", f"{API}.Two.test_c[id-3]"
V = "tempest.api.volume.test_v.Vol.test_v[id-4]"
LINES = """
# a comment
flag compute-feature-enabled.shelve : not offered yet
skip (?i)cinder is not available : no block storage in the catalog
test \\.test_b\\b : asks for what no cloud has
fake \\.Two\\. : looks into a guest
"""


def run(*outcomes: Outcome, excluded: list[str] | None = None, off: list[str] | None = None, wanted: list[str] | None = None) -> Run:
    made = Run(Selection("compute", ("--service", "compute")), False, Exclusions(LINES, "lines"), excluded or [], off or [])
    for outcome in outcomes:
        made.add(outcome)
    made.complete(wanted if wanted is not None else [outcome.name for outcome in outcomes if outcome.name.startswith("tempest")], 12.3)
    return made


def test_names() -> None:
    names = (A, V, f"setUpClass ({API}.One)", "tempest.scenario.test_s.S.test", "tempest.serial_tests.api.compute.x")
    assert [results.service(name) for name in names] == ["compute", "volume", "compute", "scenario", "compute"]
    assert results.attributes(A) == ["id-1", "smoke"] and results.plain(A) == f"{API}.One.test_a"


def test_all_is_well() -> None:
    found = run(Outcome(A, "success", 1.5), Outcome(V, "skip", 0, "Vol skipped as Cinder is not available"), excluded=[B],
                off=["compute-feature-enabled.shelve"])  # fmt: skip
    assert found.good and not found.unexplained
    assert results.last_line(found) == "compute: 1 passed, 0 failed, 2 skipped in 12 s"
    assert "1 skipped: no block storage in the catalog" in results.table(found) and "asks for what no cloud has" in results.table(found)


@pytest.mark.parametrize(
    "found",
    [run(), run(Outcome(V, "skip", 0, "cinder is not available")), run(Outcome(A, "fail", 1)), run(Outcome(A, "success", 1), wanted=[A, C]),
     run(Outcome(A, "success", 1), Outcome(C, "skip", 0, "because")), run(Outcome(A, "success", 1), off=["image-feature-enabled.import_image"]),
     run(Outcome(A, "success", 1), Outcome(f"tearDownClass ({API}.One)", "fail", 0))],
    ids=["nothing ran", "only skips", "a failure", "not told of", "an unexplained skip", "an unexplained flag", "not taken down"],
)  # fmt: skip
def test_all_is_not_well(found: Run) -> None:
    assert not found.good


def test_a_class_speaks_for_its_tests() -> None:
    whole = Outcome(f"setUpClass ({API}.One)", "fail", 3.0, detail="Traceback\nBoom")
    found = run(whole, Outcome(C, "success", 1), wanted=[A, B, C])
    assert (found.count("failed"), found.count("passed")) == (2, 1) and found.outcomes[A].detail == whole.detail
    assert set(found.outcomes) == {A, B, C}


@pytest.mark.parametrize("line", ["flag x", "skip : reason", "skip a :  ", "perhaps a : reason", "test ( : reason"])
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(Trouble, match="lines:1"):
        Exclusions(line, "lines")


def test_the_gist_of_a_failure() -> None:
    ssh = "Traceback (most recent call last):\n  File x\ntempest.lib.SSHExecCommandFailed: Command 'curl', stderr:\nno curl\n\nstdout:\n"
    assert results.gist(ssh).startswith("tempest.lib.SSHExecCommandFailed: Command")
    assert results.gist("a\nb\n") == "b" and results.gist("") == ""


def test_what_needs_a_guest_runs_where_there_is_one() -> None:
    assert Exclusions(LINES, "", fake=True).test(C) == "looks into a guest" and Exclusions(LINES, "").test(C) is None


def test_the_list_of_the_clone_can_be_read() -> None:
    results.exclusions(EXCLUDED, fake=True)


def test_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(Outcome(A, "success", 1), Outcome(C, "fail", 2, detail="Traceback\n\x1b[1mValueError: no\n"), excluded=[B])
    results.write(tmp_path, found)
    told = json.loads((tmp_path / "results.json").read_text())
    assert (told["passed"], told["failed"], told["skipped"], told["command"]) == (1, 1, 1, "./nacre conformance --service compute")
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("compute", "3", "1", "1")
    assert results.failures(results.read(tmp_path)) == [C] == results.same([C], [A, B, C])
    assert results.same([f"tearDownClass ({API}.One)"], [A, B, C]) == [A, B]
    assert results.tell_failures(results.read(tmp_path)) == 1
    assert "ValueError: no" in capsys.readouterr().out
    with pytest.raises(Trouble, match="There is no report"):
        results.read(tmp_path / "elsewhere")
    results.write(tmp_path, run(Outcome(A, "success", 1)))
    with pytest.raises(Trouble, match="Nothing failed"):
        results.failures(results.read(tmp_path))


def test_the_page_keeps_what_other_commands_said(tmp_path: Path) -> None:
    page = tmp_path / "conformance.md"
    documents.write(page, run(Outcome(A, "success", 1)))
    other = run(Outcome(A, "success", 1), Outcome(C, "success", 1))
    other.selection = Selection("all", ("--smoke",))
    documents.write(page, other)
    documents.write(page, run(Outcome(A, "fail", 1)))
    text = page.read_text()
    assert text.count("## `") == 2 and "`compute: 0 passed, 1 failed" in text and "`all: 2 passed, 0 failed" in text
