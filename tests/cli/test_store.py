"""Old programs and environments go when nobody needs them, and only then: a real store, a real process that runs from it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from nacre.cli import layout, store
from nacre.core.config import Home

PROGRAM, RUNNING, KEPT, UNIT, YOUNG = (f"program-{letter * 12}" for letter in "abcde")
OLD_ENV, MAPPED = "env-" + "1" * 12, "env-" + "2" * 12


@pytest.fixture
def made(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    for name in (PROGRAM, RUNNING, KEPT, UNIT, YOUNG, OLD_ENV, MAPPED, "clients-" + "3" * 12, "guest-" + "4" * 12):
        (place / name / "nacre").mkdir(parents=True)
        (place / name / "complete").touch()
        for path in (place / name / "complete", place / name):
            os.utime(path, (time.time() - 2 * store.UNUSED_FOR,) * 2)
    (place / YOUNG).touch()
    return place


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.name != "homes"}


def test_what_nobody_needs_goes(made: Path, tmp_path: Path) -> None:
    home, units = Home(tmp_path / "home"), tmp_path / "units"
    for folder in (home.path / "bin", units / "multi-user.target.wants"):
        folder.mkdir(parents=True)
    (home.path / layout.PROOF).write_text("{}")
    (home.path / "bin" / "nova-manage").write_text(f"exec '{made}/{KEPT}/nacre' tool\n")
    (units / "multi-user.target.wants" / "nacre.service").write_text(f"ExecStart={made}/{UNIT}/nacre up\n")
    store.remember(made, home)
    before = names(made)
    running = subprocess.Popen(["sleep", "60"], executable="/bin/sleep", env={"PYTHONPATH": str(made / RUNNING)})
    mapped = subprocess.Popen([str(made / MAPPED / "bin/python"), "60"], executable="/bin/sleep")
    try:
        assert store.sweep(made, units=units) == [OLD_ENV, PROGRAM]
        assert names(made) == before - {OLD_ENV, PROGRAM}
        assert store.sweep(made, units=units) == []
    finally:
        for process in (running, mapped):
            process.kill()
            process.wait()
    assert store.sweep(made, units=units) == [MAPPED, RUNNING]
    (home.path / layout.PROOF).unlink()
    assert store.sweep(made, units=units) == [KEPT] and not list((made / "homes").iterdir())


def test_what_cannot_be_seen_needs_everything(made: Path, tmp_path: Path) -> None:
    (tmp_path / "proc" / "17" / "cmdline").mkdir(parents=True)
    before = names(made)
    with pytest.raises(OSError):
        store.sweep(made, processes=tmp_path / "proc", units=tmp_path)
    assert names(made) == before
