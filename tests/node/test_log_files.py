"""A log that a daemon writes is emptied under it; what it says next is the first line."""

import os
from pathlib import Path

from nacre.node import log_files


def test_a_large_log_is_emptied_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "net" / "log"
    path.parent.mkdir()
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    lines = [f"line {number}\n".encode() for number in range(2000)]
    for line in lines:
        os.write(writer, line)
    log_files.look(tmp_path, "*/log", limit=1 << 20)
    assert path.stat().st_size == sum(map(len, lines)), "small enough"
    log_files.look(tmp_path, "*/log", limit=8192)
    os.write(writer, b"next\n")
    assert path.read_bytes() == b"next\n"
    old = (tmp_path / "net" / "log.1").read_bytes()
    assert len(old) == 8192 and old.endswith(b"line 1999\n")
    os.close(writer)


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x" * 100)
    (tmp_path / "a.log").symlink_to(victim)
    os.mkfifo(tmp_path / "b.log")
    log_files.look(tmp_path, "*.log", limit=1)
    assert victim.stat().st_size == 100
