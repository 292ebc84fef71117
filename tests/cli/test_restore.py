"""The last part of a restore, interrupted at every move; and what becomes of a configuration."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from nacre.cli import layout, swap
from nacre.core.config import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home over which something was restored, up to the swap."""
    made = Home(tmp_path / "home")
    layout.claim(made)
    ready = made.path / swap.READY
    for name, content in {"db/nacre.db": "old", "keys/master.key": "old", "nacre.toml": "old", "images/newer": "newer", "hosts/1/node/boot": "x",
                          "hosts/1/instances/here/disk": "precious"}.items():
        write(made.path / name, content)
    for name in ("db/nacre.db", "keys/master.key", "nacre.toml", "images/one", "hosts/1/instances/back/disk"):
        write(ready / name, "new")
    moves = [("db", "db"), ("keys", "keys"), ("nacre.toml", "nacre.toml"), ("images/one", "images/one"),
             ("hosts/1/instances/back", "hosts/1/instances/back")]  # fmt: skip
    away, facts = [("images/newer", "images/file/newer")], {"database": "sqlite"}
    write(ready / swap.PLAN, json.dumps({"aside": "set_aside/t", "moves": moves, "away": away, "facts": facts}))
    return made


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def files(home: Home) -> dict[str, str]:
    return {str(path.relative_to(home.path)): path.read_text() for path in home.path.rglob("*") if path.is_file() and path.name != layout.PROOF}


WANTED = {
    "db/nacre.db": "new", "keys/master.key": "new", "nacre.toml": "new", "images/one": "new", "hosts/1/instances/back/disk": "new",
    "hosts/1/instances/here/disk": "precious", "set_aside/t/db/nacre.db": "old", "set_aside/t/keys/master.key": "old",
    "set_aside/t/nacre.toml": "old", "set_aside/t/images/file/newer": "newer",
}  # fmt: skip


def test_everything_gets_its_place_and_nothing_is_lost(home: Home) -> None:
    aside, *names = swap.finish(home)
    assert files(home) == WANTED and not (home.path / swap.READY).exists()
    assert aside == str(home.path / "set_aside/t") and sorted(names) == ["db", "images", "keys", "nacre.toml"]
    assert layout.recall(home)["database"] == "sqlite"
    assert swap.finish(home) == []


@pytest.mark.parametrize("at", range(1, 12))
def test_interrupted_at_any_move(home: Home, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, count = Path.rename, iter(range(1, 100))

    def cut(self: Path, target: Path) -> Path:
        if self.is_relative_to(home.path) and next(count) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        try:
            swap.finish(home)
        except KeyboardInterrupt:
            pass
    swap.finish(home)
    assert files(home) == WANTED


def test_images_on_a_file_system_of_their_own(home: Home) -> None:
    place = home.path / "images"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        source = home.path / swap.READY / "images/one"
        with source.open("r+b") as file:
            file.truncate(1 << 24)
        os.chown(source, 65534, 65534)
        swap.finish(home)
        made = (place / "one").stat()
        assert (made.st_uid, made.st_size, made.st_blocks * 512 < 1 << 20) == (65534, 1 << 24, True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_option_is_taken_out() -> None:
    text = '[nacre]\nport = 1\nconnection = "mine"\n\n[database]\n# connection = "example"\nconnection = "postgresql://u:p@h/d"\n[api]\n'
    assert layout.without_option(text, "database", "connection") == (
        '[nacre]\nport = 1\nconnection = "mine"\n\n[database]\n# connection = "example"\n[api]\n')  # fmt: skip
