"""Images that come from another region: a second cloud with a database, stores and images of its own, which knows the same users, and its
tokens are good there as regions with one identity have it. The first one's catalog says where it is."""

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import Running, make_cloud, served, started
from image.disks import qcow2
from image.test_imports import ask, new, settled, show
from nacre.core.config import Config, ImportFiltering

DATA = qcow2(3 << 20)
OPEN = Config(import_filtering_opts=ImportFiltering(allowed_hosts=("127.0.0.1",), allowed_ports=()))


@dataclass
class Regions:
    here: Running
    there: Running


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    folder = tmp_path_factory.mktemp("regions")
    with started(folder / "one", OPEN) as here:
        two = make_cloud(folder / "two", OPEN)
        with closing(sqlite3.connect(folder / "one/db/nacre.db")) as one, closing(sqlite3.connect(folder / "two/db/nacre.db")) as copy:
            one.backup(copy)
        for key in (folder / "one/keys").iterdir():
            (folder / "two/keys" / key.name).write_bytes(key.read_bytes())
        listener = socket.create_server(("127.0.0.1", 0))
        two.public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with served(two, listener) as there:
            told(here.connect().identity, there.url)
            yield Regions(here, there)


def told(catalog: Any, url: str) -> None:
    """The catalog has the second region; by the interface `internal` under a name that the operator does not let through."""
    image = next(iter(catalog.services(type="image"))).id
    catalog.create_region(id="RegionTwo")
    catalog.create_endpoint(service_id=image, interface="public", region_id="RegionTwo", url=f"{url}/image/")
    catalog.create_endpoint(service_id=image, interface="internal", region_id="RegionTwo", url=f"{url}/image".replace("127.0.0.1", "localhost"))


def source(there: Running, user: str, **properties: str) -> str:
    """A private image of the second region, with data."""
    with there.http(user) as http:
        image_id = new(http, visibility="private", **properties)
        assert http.put(f"/image/v2/images/{image_id}/file", content=DATA).status_code == 204
    return image_id


def method(image_id: str, **more: str) -> dict[str, Any]:
    return {"name": "glance-download", "glance_region": "RegionTwo", "glance_image_id": image_id, **more}


def test_an_image_comes_with_its_users_token(regions: Regions) -> None:
    with regions.here.http("demo") as http:
        found = source(regions.there, "demo", os_distro="cirros", speed="88")
        assert http.get(f"/image/v2/images/{found}").status_code == 404, "it is in the other region only"
        target = new(http, "iso")
        ask(http, target, method(found))
        image, task = settled(http, target)
        assert (image["status"], image["disk_format"], image["os_distro"], "speed" in image) == ("active", "qcow2", "cirros", False), task
        assert http.get(f"/image/v2/images/{target}/file").content == DATA
        assert "token" not in task["input"]
        with regions.here.cloud.db.read() as conn:  # the token is nobody else's business, neither is it in the database
            kept = [str(tuple(row)) for row in conn.exec_driver_sql("SELECT * FROM tasks")]
        assert not any(http.headers["x-auth-token"] in row for row in kept)


def test_what_its_user_may_not_see_there_does_not_come(regions: Regions) -> None:
    secret = source(regions.there, "admin")
    with regions.here.http("demo") as http:
        target = new(http, "iso", os_distro="windows")
        for wrong, said in ((method(secret), "404"), (method(secret, glance_service_interface="internal"), "filtering"),
                            (method(secret, glance_service_interface="admin"), "no image service in region RegionTwo")):  # fmt: skip
            ask(http, target, wrong)
            image, task = settled(http, target)
            assert (image["status"], image["disk_format"], image["os_distro"]) == ("queued", "iso", "windows")
            assert (task["status"], said in task["message"]) == ("failure", True), task


def test_an_image_without_data_does_not_come(regions: Regions) -> None:
    with regions.here.http("demo") as http, regions.there.http("demo") as other:
        target = new(http, "iso")
        ask(http, target, method(new(other)))
        image, task = settled(http, target)
        assert (image["status"], "not active" in task["message"]) == ("queued", True), task


def test_data_that_were_cut_off_there_do_not_come(regions: Regions) -> None:
    found = source(regions.there, "demo")
    path = regions.there.cloud.home.reach / "images" / found
    path.write_bytes(DATA[:1000])
    with regions.here.http("demo") as http:
        target = new(http, "iso")
        ask(http, target, method(found))
        image, task = settled(http, target)
        assert (image["status"], task["status"]) == ("queued", "failure"), task
        assert not list((regions.here.cloud.home.reach / "images").rglob(f"{target}*"))


def test_a_region_that_is_away(regions: Regions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    catalog = regions.here.connect().identity
    catalog.create_region(id="RegionThree")
    catalog.create_endpoint(service_id=next(iter(catalog.services(type="image"))).id, interface="public", region_id="RegionThree",
                            url=f"http://127.0.0.1:{port}/image")  # fmt: skip
    with regions.here.http("demo") as http:
        target = new(http, "iso")
        ask(http, target, method(target, glance_region="RegionThree"))
        image, task = settled(http, target)
        assert (image["status"], "cannot be reached" in task["message"]) == ("queued", True), task
        assert show(http, target)["os_glance_failed_import"] == "file"
