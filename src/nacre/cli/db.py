"""Where a cloud keeps its state: `nacre up --database URL` for a new one, `nacre db move URL` for one that began with SQLite.

A database is looked at before anything is stopped or written: what will not do is refused in one sentence and nothing has changed. `move`
stops our processes (guests go on), copies in one transaction of the target (core/transfer.py), and switches by replacing `nacre.toml`: before
that moment SQLite is the truth, after it PostgreSQL, whenever this command is interrupted. Then it starts what ran before.

`.nacre-home` remembers which kind was in use (`database`), so that an option taken out by hand cannot start an empty cloud beside the real
one, and the mark of the copy that was switched to (`copy`), so that an older, unused one cannot be taken for it.

The URL holds a password. It travels on standard input and in the environment, never in arguments; it rests in `nacre.toml` (0600).
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from nacre.cli import alive, down, layout, supervisor
from nacre.cli.trouble import Trouble, typed
from nacre.core.config import Config, ConfigError, Database, Home, load

VARIABLE = "NACRE_DATABASE"
_LIMIT = 24 * 3600


def url(given: str | None) -> str | None:
    """The URL itself: `-` stands for the environment's, else for a line of standard input. Raises Trouble."""
    text = given
    if given == "-":
        text = os.environ.get(VARIABLE) or sys.stdin.readline().strip()
    if text is None:
        return None
    try:
        return msgspec.convert({"connection": text}, Database).connection
    except msgspec.ValidationError as error:
        raise Trouble(f"This is no address of a database: {str(error).partition(' - ')[0]}.") from None


def history(home: Home) -> dict[str, Any]:
    """What the home remembers of its state, for the processes that look at the database."""
    facts = layout.recall(home)
    return {"used": bool(_kind(home)), "copy": str(facts.get("copy") or "")}


def _kind(home: Home) -> str:
    """sqlite or postgresql; nothing for a cloud that has no state yet."""
    return str(layout.recall(home).get("database") or ("sqlite" if _file(home).exists() else ""))


def _file(home: Home) -> Path:
    return home.path / "db" / "nacre.db"


def chosen(home: Home, config: Config, given: str | None) -> str | None:
    """What `up` is to write into nacre.toml, if anything. Raises Trouble when the cloud cannot start on it."""
    wanted, had = url(given), config.database.connection
    if wanted is not None and wanted != had:
        if had is None and _kind(home) == "sqlite":
            raise Trouble(f"This cloud has its state in SQLite: type  {typed('db move', home.path)} URL")
        _job(home, "examine", {"url": wanted, **history(home)})
        return wanted
    return None


def settle(home: Home, config: Config) -> None:
    """Before a start. Raises Trouble when the option was taken out of nacre.toml by hand."""
    if config.database.connection is None:
        if _kind(home) == "postgresql":
            raise Trouble(f"This cloud has its state in PostgreSQL: put its [database] connection back into {home.path / 'nacre.toml'}.")
        if layout.recall(home).get("copy"):
            layout.remember(home, {"copy": ""})  # the cloud goes on without it


def settled(home: Home, config: Config) -> None:
    """After a start: the cloud has state, and this is where."""
    kind = "postgresql" if config.database.connection else "sqlite"
    if layout.recall(home).get("database") != kind:
        layout.remember(home, {"database": kind})


def move(home: Home, given: str, start: Callable[[], None]) -> None:
    """Moves the state of a cloud into the database `given`. `start` starts again what ran. Raises Trouble: then nothing has moved."""
    if os.geteuid():
        raise Trouble("This needs root: put sudo in front.")
    wanted, trouble = str(url(given)), ""
    with layout.exclusive(home):
        _movable(home)
        _job(home, "examine", {"url": wanted, **history(home), "moving": True})
        ran = alive.holder(home.path / "run", "up") is not None
        if down.stop(home):
            print("Stopped api, worker and node; guests go on. Copying the state ...", flush=True)
        try:
            _copy(home, wanted)
        except Trouble as error:
            trouble = str(error)
        except KeyboardInterrupt:
            where = "PostgreSQL" if load(home.path / "nacre.toml").database.connection else "SQLite"
            trouble = f"Interrupted: the cloud has its state in {where}."
    if ran:
        start()
    if trouble:
        raise Trouble(trouble)


def _movable(home: Home) -> None:
    if not layout.is_home(home.path):
        raise Trouble(f"There is no cloud in {home.path}.")
    try:
        config = load(home.path / "nacre.toml")
    except ConfigError as error:
        raise Trouble(f"{error}. Correct it first.") from error
    if config.database.connection is not None:
        raise Trouble("This cloud has its state in PostgreSQL already.")
    if not _file(home).exists():
        raise Trouble(f"This cloud has no state yet: type  {typed('up', home.path)} --database URL")


def _copy(home: Home, wanted: str) -> None:
    mark = secrets.token_hex(8)
    counts = _job(home, "move-database", {"url": wanted, "mark": mark})
    layout.remember(home, {"copy": mark})
    layout.set_options(home.path / "nacre.toml", "database", {"connection": wanted})
    layout.remember(home, {"database": "postgresql"})
    with suppress(FileNotFoundError):
        _file(home).rename(_file(home).with_suffix(".db.moved"))
    print(f"Moved: {sum(counts.values())} rows of {len(counts)} tables, compared one by one. The old database is kept as"
          f" {_file(home)}.moved", flush=True)  # fmt: skip


def _job(home: Home, job: str, order: dict[str, Any]) -> Any:
    """What a job of the unprivileged user answers. Raises Trouble with its last line."""
    done = subprocess.run(supervisor.command(home, "job", job), input=json.dumps(order), capture_output=True, text=True,
                          env=supervisor.ENVIRONMENT, cwd="/", timeout=_LIMIT, check=False, start_new_session=True)  # fmt: skip
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2].removeprefix(f"{job}: ")
        raise Trouble(f"This cannot be done: {words or done.returncode}. Nothing has changed.")
    return json.loads(done.stdout or "null")
