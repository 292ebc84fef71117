"""`nacre logs [service] [-f]`: the JSON lines of a home's `logs/`, merged by time, one readable line each.

Followed files are looked at four times a second by name, so a rotated or new file is picked up.
"""

import heapq
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nacre.cli.trouble import Trouble
from nacre.core.config import Home


def show(home: Home, service: str | None, *, follow: bool, raw: bool) -> None:
    """Raises Trouble when there is no such log."""
    folder = home.path / "logs"
    if not folder.is_dir():
        raise Trouble(f"There is no cloud in {home.path}: name its folder with --home.")
    if service and not follow and not list(folder.glob(f"{service}.log*")):
        known = ", ".join(sorted(path.stem for path in folder.glob("*.log")))
        raise Trouble(f"There is no log of {service!r}; there are: {known or 'none yet'}.")
    paths = sorted(folder.glob(f"{service or '*'}.log"))
    old = [path.with_suffix(".log.1") for path in paths]
    for _, line in heapq.merge(*(_lines(path) for path in [*old, *paths])):
        print(line if raw else readable(line))
    if follow:
        _follow(folder, f"{service or '*'}.log", {path: path.stat() for path in paths}, raw)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(errors="replace") as file:
            last = ""
            for line in file:
                text = line.rstrip("\n")
                last = _moment(text) or last
                yield last, text
    except FileNotFoundError:
        return


def _moment(line: str) -> str:
    return line[10:37] if line.startswith('{"time": "') else ""


def readable(line: str) -> str:
    """One line for people; what is not one of ours stays as it is."""
    try:
        facts = json.loads(line)
        text = f"{facts['time'][:23]}Z {facts['level']:<7} {facts['service']:<10} {facts['message']}"
        if facts.get("request_id"):
            text += f" [{facts['request_id']}]"
        return text + ("\n" + facts["trace"].rstrip() if facts.get("trace") else "")
    except (ValueError, KeyError, TypeError):
        return line


def _follow(folder: Path, pattern: str, seen: dict[Path, os.stat_result], raw: bool) -> None:
    places = {path: (stat.st_ino, stat.st_size) for path, stat in seen.items()}
    while True:
        for path in sorted(folder.glob(pattern)):
            inode, offset = places.get(path, (0, 0))
            with path.open("rb") as file:
                now = os.fstat(file.fileno())
                if now.st_ino != inode or now.st_size < offset:
                    offset = 0
                file.seek(offset)
                whole, _, _ = file.read().rpartition(b"\n")
            for line in whole.decode(errors="replace").split("\n") if whole else []:
                print(line if raw else readable(line), flush=True)
            places[path] = (now.st_ino, offset + len(whole) + (1 if whole else 0))
        time.sleep(0.25)
