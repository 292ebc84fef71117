"""Every image command of the unmodified `openstack` client, once at least: what it is for, against a cloud with several stores."""

import configparser
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import client
from conftest import Running
from image.disks import qcow2
from image.test_image_clients import Shell
from image.test_imports import until

pytestmark = pytest.mark.commands

DATA = qcow2(3 << 20)
CORES = {"title": "Cores", "type": "integer"}


class Commands:
    """One client process for all commands of a user; each has a minute."""

    def __init__(self, shell: Shell, name: str = "openstack") -> None:
        runner = [str(Path(client(name)).parent / "python"), str(Path(__file__).with_name("commands.py")), name]
        self.process = subprocess.Popen(runner, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        env=shell.environment)  # fmt: skip
        self.ran: set[str] = set()

    def run(self, line: str, *more: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([*line.split(), *more]) + "\n")
        self.process.stdin.flush()
        self.ran.add(line)
        watch = threading.Timer(60, self.process.kill)
        watch.start()
        try:
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        finally:
            watch.cancel()
        return answer

    def __call__(self, line: str, *more: str) -> str:
        done = self.run(line, *more)
        assert not done["code"], (line, done)
        return str(done["out"])

    def read(self, line: str, *more: str) -> Any:
        return json.loads(self(line, *more, "-f", "json"))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def run(several: Running, tmp_path: Path) -> Iterator[Commands]:
    made = Commands(Shell(several, "admin", tmp_path))
    yield made
    made.close()


def commands_of(group: str) -> set[str]:
    """The commands that this client has, of "image.v2" or another service."""
    (listed,) = Path(client("openstack")).parents[1].glob("lib/python*/site-packages/python_openstackclient-*.dist-info/entry_points.txt")
    read = configparser.ConfigParser(delimiters=("=",))
    read.read(listed)
    return {name.replace("_", " ") for name in read[f"openstack.{group}"]}


def images(run: Commands, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(DATA)
    shape = ("--disk-format", "qcow2", "--container-format", "bare")
    one = run.read("image create", "one", "--file", str(tmp_path / "disk"), *shape, "--shared", "--tag", "t")["id"]
    assert run.read("image show", "one")["status"] == "active"
    assert "one" in [each["Name"] for each in run.read("image list", "--tag", "t")]
    run("image set", "--property", "colour=red", "--min-ram", "8", "one")
    run("image unset", "--property", "colour", "--tag", "t", "one")
    run("image set", "--deactivate", "one")
    run("image set", "--activate", "one")
    run("image save", "--file", str(tmp_path / "saved"), "one")
    assert (tmp_path / "saved").read_bytes() == DATA
    project = run.read("project show", "demo")["id"]
    run("image add project", "one", project)
    assert [each["Status"] for each in run.read("image member list", "one")] == ["pending"]
    assert run.read("image member get", "one", project)["status"] == "pending"
    run("image remove project", "one", project)
    assert {each["ID"] for each in run.read("image stores list")} == {"file", "second", "web"}
    assert "copy-image" in str(run.read("image import info"))
    run("image import", one, "--method", "copy-image", "--store", "second")
    until(lambda: run.read("image show", one)["properties"]["stores"] == "file,second")
    two = run.read("image create", "two", *shape)["id"]
    run("image stage", "--file", str(tmp_path / "disk"), two)
    run("image import", "--method", "glance-direct", "--wait", two)
    assert run.read("image show", two)["status"] == "active"
    tasks = run.read("image task list")
    assert run.read("image task show", tasks[0]["ID"])["status"] == "success"
    run("cached image queue", one)
    until(lambda: [each["State"] for each in run.read("cached image list")] == ["cached"])
    run("cached image delete", one)
    run("cached image clear")
    run("image delete", one, two)


def definitions(run: Commands, several: Running) -> None:
    run("image metadef namespace create", "Space", "--public", "--description", "d")
    run("image metadef namespace set", "Space", "--display-name", "A space")
    assert run.read("image metadef namespace show", "Space")["display_name"] == "A space"
    assert [each["namespace"] for each in run.read("image metadef namespace list")] == ["Space"]
    run("image metadef property create", "Space", "--name", "cores", "--title", "Cores", "--type", "integer", "--schema", "{}")
    run("image metadef property set", "Space", "cores", "--title", "More cores")
    assert run.read("image metadef property show", "Space", "cores")["title"] == "More cores"
    assert [each["name"] for each in run.read("image metadef property list", "Space")] == ["cores"]
    run("image metadef object create", "--namespace", "Space", "thing")
    run("image metadef object update", "Space", "thing", "--name", "other")
    assert run.read("image metadef object show", "Space", "other")["name"] == "other"
    assert [each["name"] for each in run.read("image metadef object list", "Space")] == ["other"]
    run("image metadef resource type association create", "Space", "OS::Nova::Server")
    assert "OS::Nova::Server" in str(run.read("image metadef resource type association list", "Space"))
    run("image metadef resource type association delete", "Space", "OS::Nova::Server")
    assert "OS::Glance::Image" in str(run.read("image metadef resource type list"))
    with several.http() as http:  # the client makes no properties of objects
        http.put("/image/v2/metadefs/namespaces/Space/objects/other", json={"name": "other", "properties": {"cores": CORES}})
    assert run.read("image metadef object property show", "Space", "other", "cores")["title"] == "Cores"
    run("image metadef namespace set", "Space", "--tag", "fast")
    run("image metadef namespace unset", "Space", "--all-tags")
    run("image metadef property delete", "Space", "cores")
    run("image metadef object delete", "Space", "other")
    run("image metadef namespace delete", "Space")


def test_every_command(run: Commands, several: Running, tmp_path: Path) -> None:
    images(run, tmp_path)
    definitions(run, several)
    assert commands_of("image.v2") - run.ran == set()
    assert len(commands_of("image.v2")) >= 42
