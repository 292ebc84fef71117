"""`nacre conformance`: Tempest, the tests that upstream has for every OpenStack cloud, against a cloud made for it and wiped afterwards.

    cloud      the throwaway cloud: its own home and port, real guests or a fake hypervisor
    things     what tests need in it: images, flavors, an external network, a small web server
    offered    tempest.conf, from what the cloud says that it offers
    relay      runs in Tempest's environment, inside the cloud's host, where API and floating IPs both answer
    results    what became of each test, what explains the skips, the reports

Tests are chosen here, by name, from the list that Tempest gives; accounts are Tempest's own, made for each class of tests. However the
command ends, short of being killed, the cloud is wiped: signals that end it are raised as `Ended` in the main thread, and the way out
is the same as after the last test. Reports of earlier tests are kept until there are new ones.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nacre.cli.conformance import cloud, documents, offered, relaying, results, things
from nacre.cli.conformance.results import Run, Selection
from nacre.cli.trouble import Trouble

CLONE = Path(__file__).parents[4]
EXCLUDED = CLONE / "tests" / "conformance" / "excluded.txt"


@dataclass(frozen=True)
class Asked:
    """What was typed. `regex` narrows what `smoke` or `service` choose."""

    smoke: bool = False
    service: str | None = None
    regex: str | None = None
    workers: int = 2
    out: Path = Path("conformance-report")
    fake: bool = False
    list_failures: bool = False
    rerun_failed: bool = False
    document: bool = False


class Ended(BaseException):
    """A signal asked for the end."""


def run(asked: Asked) -> int:
    """The exit status: 0 when something ran, nothing failed and every skip has its reason. Raises Trouble."""
    if asked.list_failures:
        return results.tell_failures(results.read(asked.out))
    if os.geteuid():
        raise Trouble("This needs root: put sudo in front.")
    if not EXCLUDED.is_file():
        raise Trouble("The list of excluded tests is in the clone: type  sudo ./nacre conformance  there.")
    exclusions = results.exclusions(EXCLUDED, fake=asked.fake)
    failed = results.failures(results.read(asked.out)) if asked.rerun_failed else None
    try:
        with _signals():
            found = _against_a_cloud(asked, exclusions, failed)
    except Ended as end:
        print(f"nacre: ended by {end}; the cloud is wiped.", file=sys.stderr)
        return 1
    results.write(asked.out, found)
    if asked.document:
        documents.write(CLONE / "docs" / "conformance.md", found)
    print(results.table(found))
    print(results.last_line(found))
    return 0 if found.good else 1


@contextmanager
def _signals() -> Iterator[None]:
    """The first signal ends what is under way; further ones cannot interrupt the wiping that follows."""

    def end(number: int, _frame: FrameType | None) -> None:
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        raise Ended(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _against_a_cloud(asked: Asked, exclusions: results.Exclusions, failed: list[str] | None) -> Run:
    begun = time.monotonic()
    selection = _selection(asked)
    asked.out.mkdir(parents=True, exist_ok=True)
    tempest = relaying.Tempest(asked.out.resolve())
    names = tempest.names()
    chosen = results.same(failed, names) if failed is not None else _chosen(asked, names)
    wanted = [name for name in chosen if exclusions.test(name) is None]
    run = Run(selection, asked.fake, exclusions, [name for name in chosen if exclusions.test(name) is not None])
    if not chosen:
        raise Trouble("There is no such test.")
    with cloud.throwaway(CLONE, fake=asked.fake, logs=asked.out / "logs") as place:
        made = things.make(place, tempest.folder)
        settings = offered.settings(place, made, tempest.folder)
        run.switched_off = offered.switched_off(settings)
        progress = results.Progress(len(wanted))
        for outcome in tempest.run(place, settings, wanted, asked.workers):
            run.add(outcome)
            progress.show(outcome)
        progress.end()
    run.complete(wanted, time.monotonic() - begun)
    return run


def _selection(asked: Asked) -> Selection:
    """Its name in reports, and the words that choose it. Raises Trouble."""
    if asked.smoke and asked.service:
        raise Trouble("Choose  --smoke  or  --service, not both.")
    words = ["--smoke"] if asked.smoke else ["--service", asked.service] if asked.service else []
    words += [asked.regex] if asked.regex else []
    return Selection(asked.service or "all", (*words, *(["--fake"] if asked.fake else [])))


def _chosen(asked: Asked, names: list[str]) -> list[str]:
    """Raises Trouble for a regular expression that is none."""
    try:
        pattern = re.compile(asked.regex or "")
    except re.error as error:
        raise Trouble(f"{asked.regex!r} is no regular expression: {error}") from error
    found = [name for name in names if pattern.search(name)]
    if asked.smoke:
        found = [name for name in found if "smoke" in results.attributes(name)]
    if asked.service:
        found = [name for name in found if results.service(name) == asked.service]
    return found
