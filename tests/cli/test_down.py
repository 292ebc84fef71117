"""`down` on folders alone, without processes."""

import os
import subprocess
from pathlib import Path

import pytest

from nacre.cli import down, layout
from nacre.cli.trouble import Trouble
from nacre.core.config import ConfigError, Home, load

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root wipes")


def _made(path: Path) -> Home:
    home = Home(path)
    layout.make(home)
    return home


def test_a_cloud_is_its_folder_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cloud")
    (tmp_path / "cloud").mkdir()
    marks = {Home(path).mark for path in (tmp_path / "cloud", tmp_path / "link", tmp_path / "cloud" / ".." / "cloud")}
    assert marks == {Home(tmp_path / "cloud").mark}
    assert Home(tmp_path / "link").path == tmp_path / "cloud"


@root_only
def test_wipe_leaves_nothing(tmp_path: Path) -> None:
    home = _made(tmp_path / "cloud")
    assert "nothing" in down.run(home, wipe=True)
    assert not home.path.exists() and not home.reach.exists() and not (layout.SHARED / f"{home.mark}.lock").exists()
    assert down.run(home, wipe=True).startswith("There is no cloud")


@root_only
def test_a_refused_folder_leaves_no_lock(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Trouble), layout.exclusive(home):
        layout.make(home)
    assert not (layout.SHARED / f"{home.mark}.lock").exists()


@root_only
def test_an_interrupted_wipe_is_repeated(tmp_path: Path) -> None:
    home = _made(tmp_path / "cloud")
    (home.path / "zz").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(home.path / "zz")], check=False).returncode:
        pytest.skip("no mounts here")
    try:
        with pytest.raises(Trouble, match=r"zz.*same command again"):
            down.run(home, wipe=True)
        with pytest.raises(Trouble, match=r"zz cannot be deleted: Device or resource busy"):
            down._empty(home.path)
        assert layout.is_home(home.path)
    finally:
        subprocess.run(["umount", str(home.path / "zz")], check=True)
    down.run(home, wipe=True)
    assert not home.path.exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"port = = 3", b"[nacre]\nprot = 3\n", b"[nacre]\nport = 'x'\n"])
def test_options_that_cannot_be_used_name_their_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nacre.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"nacre\.toml: "):
        load(tmp_path / "nacre.toml")


def test_a_folder_is_no_file_of_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
