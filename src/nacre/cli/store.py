"""Programs and Python environments in the machine's store that nobody needs any more (the launcher makes a new one at every change).

One is needed while a process names it in its arguments (ours all do), or in its environment or what it has mapped as far as these may be
seen; while the commands of a home call it (homes are written down here by `up`), while a unit of systemd does, and for an hour after the
launcher last used it: what is being started is seen in none of these places yet. Arguments that cannot be read count as needing everything.
A folder goes by being renamed first, so one that is half deleted is never run.
"""

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from nacre.cli import layout
from nacre.core.config import Home

UNUSED_FOR = 3600.0
UNITS = Path("/etc/systemd/system")
_NAME = re.compile(rb"(?:program|env)-[0-9a-f]{12}(?![0-9a-f])")


def remember(store: Path, home: Home) -> None:
    """What the commands of this home call is needed."""
    (store / "homes").mkdir(mode=0o755, parents=True, exist_ok=True)
    layout.write(store / "homes" / home.mark, f"{home.path}\n", 0o644)


def sweep(store: Path, *, processes: Path = Path("/proc"), units: Path = UNITS) -> list[str]:
    """Deletes what is not needed; the names. Raises OSError when somebody's needs cannot be seen: then nothing is deleted."""
    before = time.time() - UNUSED_FOR
    old = {path.name: path for path in store.iterdir() if _NAME.fullmatch(path.name.encode()) and _last_use(path) < before}
    if not old:
        return []
    for text in (*_said_by_processes(processes), *_said_by_homes(store / "homes"), *_said_by_units(units)):
        for name in _NAME.findall(text):
            old.pop(name.decode(), None)
    for name, path in old.items():
        gone = store / f".{name}.gone"
        path.rename(gone)
        shutil.rmtree(gone)
    return sorted(old)


def _last_use(path: Path) -> float:
    used = path.stat().st_mtime
    with suppress(FileNotFoundError):
        used = max(used, (path / "complete").stat().st_mtime)
    return used


def _said_by_processes(processes: Path) -> Iterator[bytes]:
    for entry in processes.iterdir():
        if entry.name.isdigit():
            for name in ("cmdline", "environ", "maps"):
                with suppress(FileNotFoundError, ProcessLookupError, *(() if name == "cmdline" else (PermissionError,))):
                    yield (entry / name).read_bytes()


def _said_by_homes(homes: Path) -> Iterator[bytes]:
    for entry in homes.iterdir() if homes.exists() else ():
        home = Path(entry.read_text().strip())
        if layout.is_home(home):
            yield from _contents((*home.glob("bin/*"), *home.glob("keystonerc_*")))
        else:
            entry.unlink(missing_ok=True)


def _said_by_units(units: Path) -> Iterator[bytes]:
    yield from _contents(units.rglob("*nacre*")) if units.exists() else ()


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        if path.is_file():
            yield path.read_bytes()
