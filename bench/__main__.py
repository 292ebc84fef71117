"""`nacre bench [SCENARIO...] [--quick] [--against URL]... [--json FILE]`: how fast, measured at any OpenStack by the same load.

Without --against the cloud is a throwaway one of this clone on the fake hypervisor, its api pinned to the first core and the load to
the last. With two endpoints (`own` names the throwaway cloud) the table ends with how many times better the first is.
`crash` is a verb of its own (crash.py). `--quick`: three scenarios in less than five minutes; the last line is one JSON object.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from endpoint import CLONE, Credentials, Endpoint, Own, Trouble, own
from load import Unreachable
from many import many
from scenarios import SCENARIOS as ONES
from scenarios import Bench, Row

SCENARIOS = {**ONES, "many": many}
QUICK = ("memory", "validate", "servers-detail", "burst")
PORT = 16380
COLUMNS = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    unknown = [name for name in given.scenario if name not in SCENARIOS]
    if unknown:
        raise Trouble(f"There is no scenario {unknown[0]}: there are {', '.join(SCENARIOS)}.")
    names = given.scenario or (QUICK if given.quick else tuple(SCENARIOS))
    if given.json:
        _writable(given.json)
    with ExitStack() as clouds:
        benches = [_bench(clouds, url, given) for url in given.against or ["own"]]
        found = [_measured(bench, names) for bench in benches]
    _compare(benches, found)
    told = {"machine": machine(), "endpoints": [{"name": b.to.name, "url": b.to.auth_url, "rows": [asdict(row) for row in rows]}
                                                for b, rows in zip(benches, found, strict=True)]}  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    if given.quick:
        print(json.dumps(_in_short(found[0])))
    return int(any(row.errors for rows in found for row in rows))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("nacre bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=f"scenarios: {', '.join(SCENARIOS)}")  # fmt: skip
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--against", action="append", metavar="URL", help="an auth URL, with the credentials in OS_*; or  own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load runs  [5]")
    parser.add_argument("--hosts", type=int, default=4, help="fake hosts of the throwaway cloud  [4]")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the throwaway cloud, and the next for plain HTTP  [{PORT}]")
    return parser.parse_args(arguments)


def _writable(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        raise Trouble(f"{file} cannot be written: {error.strerror}.") from error


def _bench(clouds: ExitStack, url: str, given: argparse.Namespace) -> Bench:
    made: Own | None = None
    if url == "own":
        print("starting a throwaway cloud ...", flush=True)
        made, to = clouds.enter_context(own(given.port, given.hosts))
    else:
        name = url.rpartition("@")[2].partition("//")[2].partition("/")[0] or url
        bare = url.replace(f"{url.partition('//')[2].rpartition('@')[0]}@", "") if "@" in url else url
        to = Endpoint(name, bare, Credentials.given(url))
    return Bench(to, made, given.seconds)


def _measured(bench: Bench, names: Sequence[str]) -> list[Row]:
    print(f"\n{bench.to.name}  {bench.to.auth_url}")
    print(f"{'':<42}{'c':>3} {'':<17} {'p50':>9}{'p95':>9}{'p99 ms':>9}{'CPU ms':>9}  errors", flush=True)
    rows = []
    for row in (row for name in names for row in SCENARIOS[name](bench)):
        cells = "".join(f"{value:>9.2f}" if (value := getattr(row, name)) is not None else f"{'-':>9}" for name in COLUMNS)
        print(f"{_named(row)} {cells}  {sum(row.errors.values())}", flush=True)
        for why, times in list(row.errors.items())[:3]:
            print(f"    {times} x {why}", flush=True)
        rows.append(row)
    return rows


def _named(row: Row) -> str:
    return f"{row.scenario:<42}{row.connections:>3} {'kept' if row.kept else 'new':<5}{_figure(row):>12}"


def _figure(row: Row) -> str:
    return f"{row.value:.{2 if row.value < 100 else 0}f} {row.unit}"


def _compare(benches: Sequence[Bench], found: Sequence[list[Row]]) -> None:
    """How many times better the first endpoint is than each other."""
    for other, rows in zip(benches[1:], found[1:], strict=True):
        print(f"\n{benches[0].to.name} compared with {other.to.name}")
        theirs = {(row.scenario, row.connections, row.kept): row for row in rows}
        for row in found[0]:
            its = theirs.get((row.scenario, row.connections, row.kept))
            if its and row.value and its.value:
                ratio = row.value / its.value if row.unit.endswith("/s") else its.value / row.value
                print(f"{_named(row)} {_figure(its):>12}  {ratio:.1f} x")


def _in_short(rows: Sequence[Row]) -> dict[str, float]:
    def value(scenario: str, connections: int | None = None) -> Iterator[float]:
        return (round(row.value, 2) for row in rows if row.scenario == scenario and row.kept and connections in (None, row.connections))

    wanted = (("validate_per_s", "validate token", 16), ("servers_detail_100_per_s", "servers/detail, 100 servers", 16),
              ("burst50_s", "50 servers at once, last ACTIVE", None), ("pss_mb", "memory (PSS of all processes)", None))  # fmt: skip
    return {name: next(value(scenario, connections)) for name, scenario, connections in wanted if any(row.scenario == scenario for row in rows)}


def machine() -> dict[str, Any]:
    """What it was measured on, and of which commit."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    describe = ["git", "-c", f"safe.directory={CLONE}", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, cwd=CLONE, capture_output=True, text=True, check=False)
    return {"cpu": model, "cores": os.cpu_count(), "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            "kernel": platform.release(), "python": platform.python_version(), "commit": commit.stdout.strip()}  # fmt: skip


class Ended(SystemExit):
    """A signal asked for the end; the way out, which wipes a throwaway cloud, is the same as after the last measurement."""


def _end(number: int, _frame: FrameType | None) -> None:
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise Ended(f"nacre: ended by {signal.Signals(number).name}; no throwaway cloud is left.")


def _verb(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["crash"]:
        import crash

        return crash.main(arguments[1:])
    return main(arguments)


for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, _end)
try:
    sys.exit(_verb(sys.argv[1:]))
except (Trouble, Unreachable) as trouble:
    sys.stdout.flush()
    sys.exit(f"nacre: {trouble}")
