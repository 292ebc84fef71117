"""The last part of a restore (restore.py): what lies ready in `restore.ready` takes its places in the home, what was there is set aside.

Its plan names every move. One that was made is not made again, so whoever is interrupted is repeated: `up` does it before all else.
"""

import errno
import json
import shutil
from pathlib import Path

from nacre.cli import layout
from nacre.core.config import Home
from nacre.node.commands import run

_LIMIT = 6 * 3600
READY, PLAN = "restore.ready", "plan.json"


def finish(home: Home) -> list[str]:
    """Moves what was restored into its places, if there is such; where what was there is now, and its names. Harmless to repeat."""
    ready = home.path / READY
    if not ready.exists():
        return []
    plan = json.loads((ready / PLAN).read_text())
    aside, names = home.path / plan["aside"], set[str]()
    for place, name in plan["away"]:
        names |= _out_of_the_way(home.path / place, aside, name)
    for source, place in plan["moves"]:
        if (ready / source).exists():
            names |= _out_of_the_way(home.path / place, aside, source)
            (home.path / place).parent.mkdir(parents=True, exist_ok=True)
            _move(ready / source, home.path / place)
    for mark in (home.path / "hosts").glob("*/node/boot"):
        mark.unlink()  # guests that should run are started, as after a reboot
    layout.remember(home, plan["facts"])
    shutil.rmtree(ready)
    return [str(aside), *names] if names else []


def _out_of_the_way(path: Path, aside: Path, name: str) -> set[str]:
    target = aside / name
    if not path.exists():
        return set()
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
        return set()
    aside.parent.mkdir(mode=0o700, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    _move(path, target)
    return {name.partition("/")[0] if name.startswith(("hosts/", "images/")) else name}


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # images or servers may be on a file system of their own
            raise
        run(["cp", "-a", "--sparse=always", str(source), str(target)], timeout=_LIMIT)
        shutil.rmtree(source) if source.is_dir() else source.unlink()

