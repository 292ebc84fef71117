"""Imports by every method, several stores, locations and tasks, as their users see them."""

import hashlib
import time
from typing import Any

import pytest

from conftest import Running
from image.conftest import Web
from image.disks import qcow2

DATA = qcow2(3 << 20)


def new(http: Any, disk_format: str = "qcow2", **more: str) -> str:
    answer = http.post("/image/v2/images", json={"name": "x", "disk_format": disk_format, "container_format": "bare", **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def show(http: Any, image_id: str) -> Any:
    return http.get(f"/image/v2/images/{image_id}").json()


def ask(http: Any, image_id: str, method: dict[str, Any], status: int = 202, **more: Any) -> str:
    answer = http.post(f"/image/v2/images/{image_id}/import", json={"method": method, **more})
    assert answer.status_code == status, answer.text
    return answer.text


def settled(http: Any, image_id: str) -> Any:
    """The image and its newest task, when that is over."""
    end = time.monotonic() + 20
    while True:
        tasks = http.get(f"/image/v2/images/{image_id}/tasks").json()["tasks"]
        if tasks and tasks[0]["status"] in ("success", "failure"):
            return show(http, image_id), tasks[0]
        assert time.monotonic() < end, tasks
        time.sleep(0.05)


def folders(running: Running) -> dict[str, set[str]]:
    """What is in the stores, the passing ones too."""
    home = running.cloud.home.reach
    places = {"file": home / "images", "second": home / "second", "staging": home / "images" / "staging", "tasks": home / "images" / "tasks"}
    return {name: {entry.name for entry in path.iterdir() if entry.is_file()} for name, path in places.items() if path.exists()}


def until(true: Any) -> None:
    end = time.monotonic() + 15
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def staged(http: Any, data: bytes = DATA, disk_format: str = "qcow2") -> str:
    image_id = new(http, disk_format)
    assert http.put(f"/image/v2/images/{image_id}/stage", content=data).status_code == 204
    assert (show(http, image_id)["status"], show(http, image_id)["size"]) == ("uploading", len(data))
    return image_id


def test_stores_are_told(several: Running) -> None:
    with several.http() as http, several.http("demo") as demo:
        plain = demo.get("/image/v2/info/stores").json()["stores"]
        assert plain == [{"id": "file", "default": "true"}, {"id": "second", "description": "Another one"}, {"id": "web", "read-only": "true"}]
        assert demo.get("/image/v2/info/stores/detail").status_code == 403
        detail = http.get("/image/v2/info/stores/detail").json()["stores"]
        assert [(each["type"], each["weight"]) for each in detail] == [("file", 0), ("file", 1), ("http", 0)]
        made = http.post("/image/v2/images", json={"name": "x"})
        assert made.headers["openstack-image-store-ids"] == "file,second,web"
        assert "copy-image" in made.headers["openstack-image-import-methods"]


def test_an_upload_to_a_named_store(several: Running) -> None:
    with several.http("demo") as http:
        image_id = new(http)
        address = f"/image/v2/images/{image_id}/file"
        assert http.put(address, content=DATA, headers={"x-image-meta-store": "nowhere"}).status_code == 400
        assert http.put(address, content=DATA, headers={"x-image-meta-store": "web"}).status_code == 410
        assert show(http, image_id)["status"] == "queued"
        assert http.put(address, content=DATA, headers={"x-image-meta-store": "second"}).status_code == 204
        assert show(http, image_id)["stores"] == "second"
        assert http.get(address).content == DATA
    assert image_id in folders(several)["second"]


def test_what_was_staged_is_imported(several: Running) -> None:
    with several.http("demo") as http:
        image_id = staged(http)
        ask(http, image_id, {"name": "web-download", "uri": "http://127.0.0.1/x"}, 409)
        ask(http, image_id, {"name": "glance-direct"}, all_stores=True)
        image, task = settled(http, image_id)
        assert (image["status"], image["stores"], image["os_glance_importing_to_stores"], image["os_glance_failed_import"]) == (
            "active", "file,second", "", "")  # fmt: skip
        assert (image["checksum"], image["size"], image["virtual_size"]) == (hashlib.md5(DATA).hexdigest(), len(DATA), 3 << 20)
        assert (image["via"], "os_glance_import_task" in image) == ("import", False)
        assert (task["type"], task["status"], task["image_id"], task["result"]) == ("api_image_import", "success", image_id, {"image_id": image_id})
        assert task["input"]["import_req"]["method"]["name"] == "glance-direct"
        assert "token" not in task["input"]
        assert http.get(f"/image/v2/images/{image_id}/file").content == DATA
        ask(http, image_id, {"name": "glance-direct"}, 409)
    until(lambda: not folders(several)["staging"])


def test_hostile_data_that_was_staged(several: Running) -> None:
    with several.http("demo") as http:
        image_id = staged(http, qcow2(backing="/etc/passwd"))
        ask(http, image_id, {"name": "glance-direct"})
        image, task = settled(http, image_id)
        assert (image["status"], image["size"], "backing_file" in task["message"]) == ("queued", None, True), task
        assert image["os_glance_failed_import"] == "file"
        assert http.put(f"/image/v2/images/{image_id}/file", content=DATA).status_code == 204, "it can be tried again"
    until(lambda: image_id not in folders(several)["staging"])


def test_copies_come_and_go(several: Running) -> None:
    with several.http() as admin, several.http("demo") as http:
        image_id = new(http)
        ask(admin, image_id, {"name": "copy-image"}, 409, stores=["second"])
        assert http.put(f"/image/v2/images/{image_id}/file", content=DATA).status_code == 204
        assert admin.delete(f"/image/v2/stores/file/{image_id}").status_code == 403, "the last one"
        ask(http, image_id, {"name": "copy-image"}, 403, stores=["second"])
        assert "already present" in ask(admin, image_id, {"name": "copy-image"}, 400, stores=["file"])
        ask(admin, image_id, {"name": "copy-image"}, 409, stores=["third"])
        ask(admin, image_id, {"name": "copy-image"}, all_stores=True)
        assert settled(http, image_id)[0]["stores"] == "file,second"
        ask(admin, image_id, {"name": "copy-image"}, all_stores=True)
        assert admin.delete(f"/image/v2/stores/third/{image_id}").status_code == 409
        assert admin.delete(f"/image/v2/stores/web/{image_id}").status_code == 404
        assert http.delete(f"/image/v2/stores/file/{image_id}").status_code == 403
        assert admin.delete(f"/image/v2/stores/file/{image_id}").status_code == 204
        assert show(http, image_id)["stores"] == "second"
        assert image_id not in folders(several)["file"]
        assert http.get(f"/image/v2/images/{image_id}/file").content == DATA
        assert http.delete(f"/image/v2/images/{image_id}").status_code == 204
    assert image_id not in folders(several)["second"]


def test_from_the_web(several: Running, web: Web) -> None:
    web.pages |= {"/disk": DATA, "/moved": (302, {"Location": web.url("/disk")}), "/inside": (302, {"Location": "http://169.254.169.254/x"}),
                  "/loop": (301, {"Location": "/loop"}), "/short": (200, {"Content-Length": "100000"})}  # fmt: skip
    with several.http("demo") as http:
        for path in ("/disk", "/moved"):
            image_id = new(http)
            ask(http, image_id, {"name": "web-download", "uri": web.url(path)})
            image, task = settled(http, image_id)
            assert (image["status"], image["size"]) == ("active", len(DATA)), task
        for path, said in (("/inside", "filtering"), ("/loop", "redirects more"), ("/missing", "404"), ("/short", "ended after")):
            image_id = new(http)
            ask(http, image_id, {"name": "web-download", "uri": web.url(path)})
            image, task = settled(http, image_id)
            assert (image["status"], task["status"], said in task["message"]) == ("queued", "failure", True), task
        image_id = new(http)
        for uri in ("", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1:1/x", "http://10.0.0.1/x", "http://user@127.0.0.1/x", "http://[::1/x"):
            assert "filtering" in ask(http, image_id, {"name": "web-download", "uri": uri}, 400)
        for body in ({}, {"method": {}}, {"method": {"name": "magic"}}, {"method": {"name": "glance-direct"}, "all_stores": 1},
                     {"method": {"name": "web-download", "uri": web.url("/disk")}, "all_stores": True, "stores": ["file"]},
                     {"method": {"name": "web-download", "uri": web.url("/disk")}, "stores": []}):  # fmt: skip
            assert http.post(f"/image/v2/images/{image_id}/import", json=body).status_code == 400, body
    assert folders(several)["staging"] == set()


def test_from_an_image_service(several: Running) -> None:
    with several.http() as admin, several.http("demo") as http:
        secret = new(admin, visibility="private")
        source = new(http, os_distro="cirros", hw_cpu_cores="5", speed="88")
        assert http.put(f"/image/v2/images/{source}/file", content=DATA).status_code == 204
        method = {"name": "glance-download", "glance_region": "RegionOne", "glance_image_id": source}
        target = new(http, "iso", os_distro="windows")
        assert "UUID" in ask(http, target, method | {"glance_image_id": "foo"}, 400)
        for wrong in ({"glance_image_id": secret}, {"glance_region": "elsewhere"}):
            ask(http, target, method | wrong)
            assert (settled(http, target)[1]["status"], show(http, target)["os_distro"]) == ("failure", "windows")
            assert (show(http, target)["status"], show(http, target)["disk_format"]) == ("queued", "iso")
        ask(http, target, method)
        image = settled(http, target)[0]
        assert (image["status"], image["disk_format"], image["os_distro"], image["hw_cpu_cores"], "speed" in image) == (
            "active", "qcow2", "cirros", "5", False)  # fmt: skip
        assert http.get(f"/image/v2/images/{target}/file").content == DATA


def test_locations(several: Running, web: Web) -> None:
    web.pages["/located"] = DATA
    good = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(DATA).hexdigest()}
    with several.http() as admin, several.http("demo") as http:
        image_id = new(http)
        address = f"/image/v2/images/{image_id}/locations"
        for wrong in ({"os_hash_algo": "sha512", "os_hash_value": "ab"}, {"os_hash_value": "ab" * 64},
                      {"os_hash_algo": "sha123", "os_hash_value": "ab"}):  # fmt: skip
            assert http.post(address, json={"url": web.url("/located"), "validation_data": wrong}).status_code == 400
        assert http.post(address, json={}).status_code == 400
        assert http.post(address, json={"url": "file:///etc/passwd"}).status_code == 400
        assert http.post(address, json={"url": web.url("/located"), "validation_data": good | {"os_hash_value": "00" * 32}}).status_code == 202
        assert (settled(http, image_id)[1]["status"], show(http, image_id)["status"]) == ("failure", "queued")
        assert http.post(address, json={"url": web.url("/located"), "validation_data": good}).status_code == 202
        image, task = settled(http, image_id)
        assert (task["type"], image["status"], image["stores"], image["os_hash_algo"], image["os_hash_value"], image["size"]) == (
            "location_import", "active", "web", "sha256", good["os_hash_value"], len(DATA))  # fmt: skip
        assert http.get(f"/image/v2/images/{image_id}/file").content == DATA
        assert http.get(f"/image/v2/images/{image_id}/file", headers={"range": "bytes=5-9"}).content == DATA[5:10]
        assert http.get(address).status_code == 403
        assert admin.get(address).json() == [{"url": web.url("/located"), "metadata": {"store": "web"}}]
        assert http.post(address, json={"url": web.url("/located")}).status_code == 409


def test_tasks_are_read_by_administrators(several: Running) -> None:
    with several.http() as admin, several.http("demo") as http:
        assert http.get("/image/v2/tasks").status_code == 403
        first = admin.get("/image/v2/tasks?limit=1").json()
        assert (len(first["tasks"]), first["schema"], "message" in first["tasks"][0]) == (1, "/v2/schemas/tasks", False)
        assert admin.get("/image" + first["next"]).json()["tasks"][0]["id"] != first["tasks"][0]["id"]
        one = admin.get(f"/image/v2/tasks/{first['tasks'][0]['id']}").json()
        assert one["status"] in ("success", "failure")
        assert all(each["status"] == "failure" for each in admin.get("/image/v2/tasks?status=failure").json()["tasks"])
        assert admin.get("/image/v2/tasks?status=tired").status_code == 400
        assert admin.post("/image/v2/tasks", json={"type": "import", "input": {}}).status_code == 400
        assert admin.delete(f"/image/v2/tasks/{one['id']}").status_code == 405


def test_a_signed_image_is_refused_with_the_reason(several: Running) -> None:
    signed = {f"img_signature{part}": "x" for part in ("", "_hash_method", "_key_type", "_certificate_uuid")}
    with several.http("demo") as http:
        image_id = new(http, **signed)
        answer = http.put(f"/image/v2/images/{image_id}/file", content=DATA)
        assert (answer.status_code, "key manager" in answer.text) == (400, True)


@pytest.mark.parametrize(("resource", "limit", "status"), [("image_count_total", 0, 413), ("image_size_total", 0, 413), ("image_stage_total", 0, 413),
                                                           ("image_count_uploading", 0, 413), ("image_size_total", 5, 204)])  # fmt: skip
def test_limits(several: Running, resource: str, limit: int, status: int) -> None:
    project, identity = several.connect("demo").current_project_id, several.connect().identity
    with several.http("demo") as http:
        image_id = new(http, "raw")
        allowed = http.get("/image/v2/info/usage").json()["usage"][resource]["usage"] + limit
        about = {"service_id": next(identity.services(type="image")).id, "resource_name": resource}
        registered = identity.create_registered_limit(**about, default_limit=-1)
        made = identity.create_limit(**about, resource_limit=allowed, project_id=project)
        try:
            assert http.get("/image/v2/info/usage").json()["usage"][resource]["limit"] == allowed
            if resource == "image_count_total":
                answer = http.post("/image/v2/images", json={"name": "one more"})
            else:
                verb = "stage" if resource == "image_stage_total" else "file"
                answer = http.put(f"/image/v2/images/{image_id}/{verb}", content=b"x" * (2 << 20))
            assert answer.status_code == status, answer.text
            assert resource in answer.text or status == 204
        finally:
            identity.delete_limit(made)
            identity.delete_registered_limit(registered)


def test_the_cache(several: Running, web: Web) -> None:
    web.pages["/far"] = DATA
    with several.http() as admin, several.http("demo") as http:
        image_id = new(http)
        assert http.get("/image/v2/cache").status_code == 403
        assert admin.put(f"/image/v2/cache/{image_id}").status_code == 400, "it has no data"
        assert admin.put("/image/v2/cache/00000000-0000-4000-8000-000000000000").status_code == 404
        assert http.post(f"/image/v2/images/{image_id}/locations", json={"url": web.url("/far")}).status_code == 202
        settled(http, image_id)
        assert admin.put(f"/image/v2/cache/{image_id}").status_code == 202
        until(lambda: [each["image_id"] for each in admin.get("/image/v2/cache").json()["cached_images"]] == [image_id])
        asked = len(web.asked)
        assert (http.get(f"/image/v2/images/{image_id}/file").content, len(web.asked)) == (DATA, asked), "it is read nearby"
        (held,) = admin.get("/image/v2/cache").json()["cached_images"]
        assert (held["hits"], held["size"], show(http, image_id)["stores"]) == (1, len(DATA), "web")
        assert admin.delete("/image/v2/cache", headers={"x-image-cache-clear-target": "all"}).status_code == 400
        assert admin.delete(f"/image/v2/cache/{image_id}").status_code == 204
        assert admin.get("/image/v2/cache").json() == {"cached_images": [], "queued_images": []}
        assert (http.get(f"/image/v2/images/{image_id}/file").content, len(web.asked)) == (DATA, asked + 1)
        admin.put(f"/image/v2/cache/{image_id}")
        until(lambda: admin.get("/image/v2/cache").json()["cached_images"])
        assert admin.delete("/image/v2/cache").status_code == 204
        assert admin.get("/image/v2/cache").json() == {"cached_images": [], "queued_images": []}
