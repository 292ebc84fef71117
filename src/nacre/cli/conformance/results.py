"""What became of each test, what explains that it was skipped, and how that is told: table, results.json, junit.xml, exit status.

A class of tests that could not be set up, or was skipped whole, is told of once by Tempest; each of its tests counts here. A skip is
explained by a line of `excluded.txt` that matches Tempest's own words; one that is not is as bad as a failure. So is a feature flag that
keeps tests from running without a line of its own.
"""

import json
import re
import shlex
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nacre.cli.trouble import Trouble

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_WORDS = {"success": PASSED, "xfail": PASSED, "skip": SKIPPED}
_CLASS = re.compile(r"^(setUpClass|tearDownClass) \((?P<name>[\w.]+)\)$")
_EXCEPTION = re.compile(r"[\w.]*[A-Z]\w*: \S")
_UNTOLD = "The run ended without a word of it."


@dataclass(frozen=True)
class Outcome:
    """As Tempest tells it; `seconds` without what its class needed."""

    name: str
    status: str
    seconds: float
    reason: str = ""
    detail: str = ""
    log: str = ""

    @property
    def verdict(self) -> str:
        return _WORDS.get(self.status, FAILED)


@dataclass(frozen=True)
class Selection:
    """`label` begins the last line; `words` are what chose the tests on the command line."""

    label: str
    words: tuple[str, ...]


def plain(name: str) -> str:
    """Without its attributes."""
    return name.partition("[")[0]


def attributes(name: str) -> list[str]:
    return name.partition("[")[2].rstrip("]").split(",")


def service(name: str) -> str:
    """Whose test it is: of an API, or a scenario of several."""
    match = _CLASS.match(name)
    parts = [part for part in (match["name"] if match else plain(name)).split(".") if part != "serial_tests"]
    return parts[2] if parts[1:2] == ["api"] and len(parts) > 2 else "scenario"


def gist(detail: str) -> str:
    """What a failure says, in a line: the last one that begins with the name of an exception, else the last one."""
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or [""])[-1][:300]


class Exclusions:
    """Lines `flag SECTION.OPTION : reason`, `skip WORDS OF TEMPEST : reason`, `test NAME : reason`, `fake NAME : reason` (not run where no
    guest runs); all but the first are regular expressions."""

    def __init__(self, text: str, where: str, *, fake: bool = False) -> None:
        self.flags: dict[str, str] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], str]]] = {"skip": [], "test": [], "fake": []}
        self._fake = fake
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            what, _, reason = line.partition(" : ")
            kind, _, pattern = what.strip().partition(" ")
            if kind not in ("flag", *self._patterns) or not pattern or not reason.strip():
                raise Trouble(f"{where}:{number} is not  flag|skip|test|fake WHAT : reason")
            if kind == "flag":
                self.flags[pattern.strip()] = reason.strip()
                continue
            try:
                self._patterns[kind].append((re.compile(pattern.strip()), reason.strip()))
            except re.error as error:
                raise Trouble(f"{where}:{number}: {error}") from error

    def _reason(self, kind: str, text: str) -> str | None:
        return next((reason for pattern, reason in self._patterns[kind] if pattern.search(text)), None)

    def test(self, name: str) -> str | None:
        return self._reason("test", name) or (self._reason("fake", name) if self._fake else None)

    def skip(self, words: str) -> str | None:
        return self._reason("skip", words)


def exclusions(path: Path, *, fake: bool) -> Exclusions:
    """Raises Trouble naming the line."""
    return Exclusions(path.read_text(), str(path), fake=fake)


@dataclass
class Run:
    """A run and everything that reports say of it."""

    selection: Selection
    fake: bool
    exclusions: Exclusions
    excluded: list[str]
    switched_off: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] = outcome

    def complete(self, wanted: list[str], seconds: float) -> None:
        """Every test that was to run has an outcome, also where Tempest spoke of its class alone."""
        self.seconds = seconds
        classes = {match["name"]: outcome for name, outcome in self.outcomes.items() if (match := _CLASS.match(name)) and match[1] == "setUpClass"}
        for name in classes:
            del self.outcomes[f"setUpClass ({name})"]
        for name in wanted:
            whole = classes.get(plain(name).rpartition(".")[0])
            if name not in self.outcomes:
                self.outcomes[name] = Outcome(name, whole.status, 0.0, whole.reason, whole.detail, whole.log) if whole else _untold(name)
        for name in self.excluded:
            self.outcomes[name] = Outcome(name, "skip", 0.0, "not run")

    def why(self, outcome: Outcome) -> str | None:
        """What explains a skip."""
        return self.exclusions.test(outcome.name) if outcome.name in self.excluded else self.exclusions.skip(outcome.reason)

    def count(self, verdict: str, of: str | None = None) -> int:
        return sum(one.verdict == verdict and of in (None, service(one.name)) for one in self.outcomes.values())

    @property
    def unexplained(self) -> list[str]:
        skips = [f"{plain(one.name)}: {one.reason}" for one in self.outcomes.values() if one.verdict == SKIPPED and self.why(one) is None]
        return skips + [f"{name} is off" for name in self.switched_off if name not in self.exclusions.flags]

    @property
    def good(self) -> bool:
        return bool(self.count(PASSED)) and not self.count(FAILED) and not self.unexplained

    @property
    def command(self) -> str:
        return shlex.join(("./nacre", "conformance", *self.selection.words))

    def services(self) -> list[str]:
        return sorted({service(name) for name in self.outcomes})

    def skips(self, of: str) -> dict[str, int]:
        """How many tests each reason explains."""
        found: dict[str, int] = {}
        for one in self.outcomes.values():
            if one.verdict == SKIPPED and service(one.name) == of:
                reason = self.why(one) or f"UNEXPLAINED: {one.reason}"
                found[reason] = found.get(reason, 0) + 1
        return found

    def time(self, of: str) -> float:
        return sum(one.seconds for one in self.outcomes.values() if service(one.name) == of)


def _untold(name: str) -> Outcome:
    return Outcome(name, "fail", 0.0, detail=_UNTOLD)


class Progress:
    """A line that is written anew where there is a terminal, a line now and then elsewhere; a failure is told at once."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed, self.told = total, 0, 0, 0.0
        self.terminal = sys.stdout.isatty()

    def show(self, outcome: Outcome) -> None:
        whole = _CLASS.match(outcome.name)
        self.done += not whole
        if outcome.verdict == FAILED:
            self.failed += 1
            print(f"{chr(13) if self.terminal else ''}FAILED {plain(outcome.name)}: {gist(outcome.detail)}", flush=True)
        line = f"{self.done} of {self.total} tests done, {self.failed} failed"
        if self.terminal:
            print(f"\r{line} ", end="", flush=True)
        elif time.monotonic() - self.told > 15:
            self.told = time.monotonic()
            print(line, flush=True)

    def end(self) -> None:
        if self.terminal:
            print()


def table(run: Run) -> str:
    """A row a service, each with the reasons of its skips."""
    lines = ["", f"{'service':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>9}"]
    for name in run.services():
        counts = "".join(f"{run.count(verdict, name):>{width}}" for verdict, width in ((PASSED, 8), (FAILED, 8), (SKIPPED, 9)))
        lines.append(f"{name:<16}{counts}{run.time(name):>7.0f} s")
        lines += [f"    {count} skipped: {reason}" for reason, count in run.skips(name).items()]
    if run.fake:
        lines.append("On the fake hypervisor: no guest ran.")
    lines += [f"Not explained in excluded.txt: {one}" for one in run.unexplained]
    return "\n".join([*lines, ""])


def last_line(run: Run) -> str:
    return (f"{run.selection.label}: {run.count(PASSED)} passed, {run.count(FAILED)} failed, {run.count(SKIPPED)} skipped "
            f"in {run.seconds:.0f} s")  # fmt: skip


def write(out: Path, run: Run) -> None:
    """results.json and junit.xml. They are as they were until both are whole."""
    told = {
        "command": run.command, "fake": run.fake, "seconds": round(run.seconds, 1), "good": run.good, "unexplained": run.unexplained,
        **{verdict: run.count(verdict) for verdict in (PASSED, FAILED, SKIPPED)},
        "tests": [{**asdict(one), "status": one.verdict, "service": service(one.name),
                   **({"explained": run.why(one)} if one.verdict == SKIPPED else {})}
                  for one in sorted(run.outcomes.values(), key=lambda one: one.name)],
    }  # fmt: skip
    suites = ET.Element("testsuites")
    for name in run.services():
        tests = [one for one in run.outcomes.values() if service(one.name) == name]
        suite = ET.SubElement(suites, "testsuite", name=name, tests=str(len(tests)), time=f"{run.time(name):.3f}",
                              failures=str(run.count(FAILED, name)), skipped=str(run.count(SKIPPED, name)))  # fmt: skip
        for one in sorted(tests, key=lambda one: one.name):
            where, _, method = plain(one.name).rpartition(".")
            case = ET.SubElement(suite, "testcase", classname=where, name=method, time=f"{one.seconds:.3f}")
            if one.verdict == FAILED:
                ET.SubElement(case, "failure", message=one.reason).text = _printable(one.detail)
            elif one.verdict == SKIPPED:
                ET.SubElement(case, "skipped", message=run.why(one) or one.reason)
    for name, content in (("results.json", json.dumps(told, indent=1).encode()), ("junit.xml", ET.tostring(suites, encoding="utf-8"))):
        part = out / f"{name}.part"
        part.write_bytes(content)
        part.rename(out / name)


def _printable(text: str) -> str:
    """XML has no control characters."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def read(out: Path) -> dict[str, Any]:
    """The last report. Raises Trouble when there is none."""
    try:
        found: dict[str, Any] = json.loads((out / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise Trouble(f"There is no report in {out}: {error}. Run  ./nacre conformance  first.") from error
    return found


def failures(report: dict[str, Any]) -> list[str]:
    """Names of tests, or of classes that could not be taken down. Raises Trouble when nothing failed."""
    found = [test["name"] for test in report["tests"] if test["status"] == FAILED]
    if not found:
        raise Trouble("Nothing failed in the last run.")
    return found


def same(failed: list[str], names: list[str]) -> list[str]:
    """The tests that are to run again."""
    classes = {match["name"] for name in failed if (match := _CLASS.match(name))}
    return [name for name in names if name in failed or plain(name).rpartition(".")[0] in classes]


def tell_failures(report: dict[str, Any]) -> int:
    """The failures of the last report, each with what it says. Exit status 1 when there are some."""
    found = [test for test in report["tests"] if test["status"] == FAILED]
    for test in found:
        print(f"{plain(test['name'])}\n    {gist(test['detail'])}")
    print(f"{len(found)} failed in  {report['command']}")
    return 1 if found else 0
