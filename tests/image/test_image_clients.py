"""The commands that the course types, by the unmodified command-line clients."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clients import client
from conftest import Running
from image.disks import qcow2

pytestmark = pytest.mark.commands

DATA = qcow2(4 << 20)
QCOW2 = ("--disk-format", "qcow2", "--container-format", "bare")


class Shell:
    """The clients, run as a user of the cloud."""

    def __init__(self, running: Running, user: str, home: Path) -> None:
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OS_AUTH_URL": f"{running.url}/identity/v3", "OS_USERNAME": user,
                            "OS_PASSWORD": "secret", "OS_PROJECT_NAME": user, "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default",
                            "OS_IDENTITY_API_VERSION": "3", "OS_REGION_NAME": "RegionOne", "PYTHONWARNINGS": "ignore"}  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = client(arguments[0])
        return subprocess.run([program, *arguments[1:]], env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-f", "json"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "guest.qcow2"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def admin(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(running, "admin", tmp_path_factory.mktemp("admin"))


@pytest.fixture(scope="module")
def demo(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(running, "demo", tmp_path_factory.mktemp("demo"))


def test_the_walkthrough(admin: Shell, demo: Shell, file: Path, tmp_path: Path) -> None:
    made = admin.read("openstack", "image", "create", "cirros", "--file", str(file), *QCOW2, "--public")
    assert (made["status"], made["size"], made["checksum"]) == ("active", len(DATA), hashlib.md5(DATA).hexdigest())
    admin("openstack", "image", "set", "--property", "os_distro=cirros", "cirros")
    shown = demo.read("openstack", "image", "show", "cirros")
    assert (shown["visibility"], shown["disk_format"], shown["schema"], shown["file"]) == (
        "public", "qcow2", "/v2/schemas/image", f"/v2/images/{made['id']}/file")  # fmt: skip
    assert shown["properties"]["os_distro"] == "cirros"
    assert shown["properties"]["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert [image["Name"] for image in demo.read("openstack", "image", "list")] == ["cirros"]
    demo("openstack", "image", "save", "--file", str(tmp_path / "saved"), "cirros")
    assert (tmp_path / "saved").read_bytes() == DATA

    listed = demo("glance", "image-list")
    assert made["id"] in listed
    assert "cirros" in listed
    text = demo("glance", "image-show", made["id"])
    assert hashlib.md5(DATA).hexdigest() in text
    demo("glance", "image-download", "--file", str(tmp_path / "again"), made["id"])
    assert (tmp_path / "again").read_bytes() == DATA

    refused = demo.run("openstack", "image", "delete", "cirros")
    assert (refused.returncode, "delete_image" in refused.stderr) == (1, True)
    refused = demo.run("glance", "image-delete", made["id"])
    assert (refused.returncode, "You are not permitted to delete the image" in refused.stderr) == (1, True)
    admin("openstack", "image", "delete", "cirros")
    assert demo.read("openstack", "image", "list") == []


def test_own_images_by_glance(demo: Shell, file: Path) -> None:
    out = demo("glance", "image-create", "--name", "mine", "--file", str(file), *QCOW2,
               "--property", "colour=red")  # fmt: skip
    assert "active" in out
    image_id = demo.read("openstack", "image", "show", "mine")["id"]
    assert "blue" in demo("glance", "image-update", "--property", "colour=blue", "--name", "still mine", image_id)
    assert "colour" not in demo("glance", "image-update", "--remove-property", "colour", image_id)
    demo("glance", "image-tag-update", image_id, "label")
    demo("glance", "image-delete", image_id)
    missing = demo.run("glance", "image-show", image_id)
    assert (missing.returncode, f"No image found with ID {image_id}" in missing.stdout + missing.stderr) == (1, True)


def test_settings_and_sharing(admin: Shell, demo: Shell) -> None:
    made = admin.read("openstack", "image", "create", "--shared", "--tag", "one", "lent")
    project = demo.read("openstack", "token", "issue")["project_id"]
    admin("openstack", "image", "add", "project", made["id"], project)
    demo("openstack", "image", "set", "--accept", made["id"])
    assert admin.read("openstack", "image", "member", "list", made["id"])[0]["Status"] == "accepted"
    assert "lent" in [image["Name"] for image in demo.read("openstack", "image", "list")]
    admin("openstack", "image", "remove", "project", made["id"], project)
    admin("openstack", "image", "set", "--protected", "--min-disk", "3", "--name", "kept", made["id"])
    assert admin.run("openstack", "image", "delete", "kept").returncode == 1
    admin("openstack", "image", "set", "--unprotected", "--private", "kept")
    assert demo.run("openstack", "image", "show", made["id"]).returncode == 1
    admin("openstack", "image", "unset", "--tag", "one", "kept")
    admin("openstack", "image", "delete", "kept")


def test_a_member_may_not_publish(demo: Shell, file: Path) -> None:
    refused = demo.run("openstack", "image", "create", "mine", "--file", str(file), *QCOW2, "--public")
    assert (refused.returncode, "publicize_image" in refused.stderr) == (1, True)
    assert demo.read("openstack", "image", "list") == []


def test_hostile_data_by_the_client(demo: Shell, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(qcow2(backing="/etc/shadow"))
    refused = demo.run("openstack", "image", "create", "evil", "--file", str(tmp_path / "evil"), "--disk-format", "qcow2")
    assert (refused.returncode, "backing_file" in refused.stderr) == (1, True)
    assert demo.read("openstack", "image", "list") == [], "the client takes back what it made"
