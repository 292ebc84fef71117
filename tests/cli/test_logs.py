"""Lines are whole, in the file of their service, and never lost over a rotation by another process."""

import json
import logging
from pathlib import Path

import pytest

from nacre.cli import logs
from nacre.cli.trouble import Trouble
from nacre.core import log
from nacre.core.config import Home


def record(name: str, message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": name, "msg": message, "levelno": 20, "levelname": "INFO", **extra})
    return made


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_goes_to_its_service(tmp_path: Path) -> None:
    handler = log.ServiceFiles(tmp_path, "api")
    token = log.request_id.set("req-1")
    handler.emit(record("nacre.compute.tasks", "claimed", host="nacre-1"))
    handler.emit(record("nacre.http", "GET /", service="object-store", ms=3))
    log.request_id.reset(token)
    handler.emit(record("uvicorn.error", "two\nlines"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.log", "compute.log", "object_store.log"]
    (line,) = lines(tmp_path / "compute.log")
    assert (line["service"], line["request_id"], line["message"], line["host"], line["level"]) == (
        "compute", "req-1", "claimed", "nacre-1", "INFO",
    )  # fmt: skip
    assert lines(tmp_path / "object_store.log")[0]["ms"] == 3
    assert lines(tmp_path / "api.log")[0]["request_id"] is None


def test_two_writers_rotate_and_lose_nothing(tmp_path: Path) -> None:
    one, two = (log.ServiceFiles(tmp_path, process, limit=1500) for process in ("api", "worker"))
    for number in range(12):
        (one if number % 2 else two).emit(record("nacre.image", f"line {number}"))
    files = [tmp_path / "image.log.1", tmp_path / "image.log"]
    assert all(path.exists() for path in files)
    assert [line["message"] for path in files for line in lines(path)] == [f"line {number}" for number in range(12)]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / "api.log").symlink_to(victim)
    handler = log.ServiceFiles(tmp_path, "api")
    handler.handleError = lambda _record: None  # type: ignore[method-assign]
    handler.emit(record("nacre", "boo"))
    assert victim.read_text() == ""


def test_people_read_them_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for number, name in enumerate(("nacre.identity", "nacre.compute", "nacre.identity")):
        log.ServiceFiles(folder, "api").emit(record(name, f"event {number}", created=1000.5 + number))
    (folder / "up.log").write_text("not json\n")
    logs.show(Home(tmp_path), None, follow=False, raw=False)
    shown = capsys.readouterr().out.splitlines()
    assert [line.rpartition("event ")[2] for line in shown if "event" in line] == ["0", "1", "2"] and "not json" in shown
    logs.show(Home(tmp_path), "compute", follow=False, raw=True)
    assert json.loads(capsys.readouterr().out)["message"] == "event 1"
    with pytest.raises(Trouble, match="compute, identity"):
        logs.show(Home(tmp_path), "computer", follow=False, raw=False)
