"""Images by openstacksdk, and by plain HTTP for what clients cannot be made to send."""

import hashlib
import json
from typing import Any

import pytest
from openstack import exceptions

from conftest import Running
from image.disks import qcow2

DATA = qcow2(7 << 20)


@pytest.fixture(scope="module")
def admin(running: Running) -> Any:
    return running.connect().image


@pytest.fixture(scope="module")
def demo(running: Running) -> Any:
    return running.connect("demo").image


def make(proxy: Any, name: str, data: bytes | None = DATA, **fields: Any) -> Any:
    fields = {"disk_format": "qcow2", "container_format": "bare", "allow_duplicates": True} | fields
    return proxy.get_image(proxy.create_image(name, data=data, **fields).id)


def test_versions_document(running: Running) -> None:
    with running.http() as http:
        root, explicit = http.get("/image/"), http.get("/image/versions")
    assert (root.status_code, explicit.status_code) == (300, 200)
    newest = root.json()["versions"][0]
    assert (newest["id"], newest["status"], newest["links"][0]["href"]) == ("v2.17", "CURRENT", f"{running.url}/image/v2/")


def test_create_uploads_and_show_tells_all(demo: Any) -> None:
    image = make(demo, "whole", os_distro="cirros", min_ram=64, tags=["a", "b"])
    assert (image.status, image.visibility, image.min_ram, image.os_distro, sorted(image.tags)) == ("active", "shared", 64, "cirros", ["a", "b"])
    assert (image.size, image.virtual_size) == (len(DATA), 7 << 20)
    assert (image.checksum, image.hash_algo, image.hash_value) == (hashlib.md5(DATA).hexdigest(), "sha512", hashlib.sha512(DATA).hexdigest())
    assert image.file == f"/v2/images/{image.id}/file"
    assert demo.download_image(image).content == DATA, "the client also compares the hash"


def test_ranges_and_headers_of_a_download(running: Running, demo: Any) -> None:
    image = make(demo, "ranges")
    with running.http("demo") as http:
        address = f"/image/v2/images/{image.id}/file"
        whole = http.get(address)
        assert whole.headers["content-md5"] == image.checksum
        assert whole.headers["content-type"] == "application/octet-stream"
        for asked, first, last in (("bytes=0-4", 0, 4), ("bytes=10-", 10, len(DATA) - 1), ("bytes=-5", len(DATA) - 5, len(DATA) - 1)):
            part = http.get(address, headers={"range": asked})
            assert (part.status_code, part.content) == (206, DATA[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
        assert http.get(address, headers={"range": f"bytes={len(DATA)}-"}).status_code == 416
        queued = make(demo, "no data", data=None)
        assert http.get(f"/image/v2/images/{queued.id}/file").status_code == 204


def test_an_upload_needs_formats_and_a_queued_image(running: Running, demo: Any) -> None:
    with running.http("demo") as http:
        bare = http.post("/image/v2/images", json={"name": "formless"}).json()
        answer = http.put(f"/image/v2/images/{bare['id']}/file", content=b"x")
        said = "Properties disk_format, container_format must be set prior to saving data."
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)
        done = make(demo, "done")
        assert http.put(f"/image/v2/images/{done.id}/file", content=DATA).status_code == 409
        queued = make(demo, "short", data=None)
        answer = http.put(f"/image/v2/images/{queued.id}/file", content=DATA, headers={"x-openstack-image-size": "5"})
        assert (answer.status_code, "5 bytes" in answer.text) == (400, True)
        assert http.put(f"/image/v2/images/{queued.id}/file", content=DATA, headers={"content-type": "application/json"}).status_code == 415
        assert demo.get_image(queued.id).status == "queued"
        assert http.put(f"/image/v2/images/{queued.id}/file", content=DATA).status_code == 204, "a refused upload can be repeated"


def test_filters(admin: Any, demo: Any) -> None:
    small = make(demo, "f-small", data=b"x" * 10, disk_format="raw", tags=["f", "one"], colour="red", min_disk=3)
    large = make(demo, "f-large", data=b"y" * 1000, disk_format="raw", tags=["f"], colour="blue")
    queued = make(demo, "f-queued", data=None, tags=["f"])
    hidden = make(demo, "f-hidden", data=None, tags=["f"], os_hidden="True", meta={"os_hidden": True})

    def names(proxy: Any = demo, **query: Any) -> list[str]:
        return sorted(image.name for image in proxy.images(tag="f", **query))

    assert names() == ["f-large", "f-queued", "f-small"]
    assert names(is_hidden=True) == ["f-hidden"]
    assert names(status="active") == ["f-large", "f-small"]
    assert names(name="in:f-small,f-queued") == ["f-queued", "f-small"]
    assert names(size_min=11) == ["f-large"]
    assert names(size_max=11) == ["f-small"]
    assert [image.name for image in demo.images(tag=["f", "one"])] == ["f-small"]
    assert names(created_at=f"gt:{hidden.created_at}") == []
    assert names(created_at=f"gte:{small.created_at}") == ["f-large", "f-queued", "f-small"]
    assert names(visibility="private") == []
    assert names(admin, owner=small.owner) == ["f-large", "f-queued", "f-small"]
    assert names(sort="size:desc,name:asc")[0] == "f-large"
    assert [image.name for image in demo.images(tag="f", sort="name:asc", limit=1)] == ["f-large", "f-queued", "f-small"], "three pages"
    with pytest.raises(exceptions.BadRequestException, match="sort"):
        list(demo.images(sort="colour"))
    assert (large.status, queued.status) == ("active", "queued")


def test_list_by_property_and_pages(running: Running, demo: Any) -> None:
    for number in range(3):
        make(demo, f"p{number}", data=None, series="pages")
    with running.http("demo") as http:
        first = http.get("/image/v2/images", params={"series": "pages", "limit": 2, "sort": "name:asc"}).json()
        assert [image["name"] for image in first["images"]] == ["p0", "p1"]
        assert first["first"] == "/v2/images?series=pages&limit=2&sort=name%3Aasc"
        second = http.get("/image" + first["next"]).json()
        assert ([image["name"] for image in second["images"]], "next" in second) == (["p2"], False)
        for query, said in (("limit=x", "limit"), ("limit=-1", "limit"), ("marker=nobody", "nobody"), ("size_min=x", "numeric"),
                            ("visibility=x", "visibility"), ("os_hidden=x", "os_hidden"), ("created_at=gt:x", "created_at"), ("name=near:x", "near"),
                            ("member_status=x", "status"),
                            ("sort_key=x", "sort key"), ("sort_dir=x", "sort direction"), ('name=in:"x', "quote")):  # fmt: skip
            answer = http.get(f"/image/v2/images?{query}")
            assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), query


@pytest.mark.parametrize(("body", "status", "said"), [
    ({"disk_format": "floppy"}, 400, "disk_format"), ({"min_ram": "much"}, 400, "min_ram"), ({"min_disk": -1}, 400, "min_disk"),
    ({"min_ram": True}, 400, "min_ram"), ({"visibility": "friends"}, 400, "visibility"), ({"protected": "yes"}, 400, "protected"),
    ({"name": "x" * 256}, 400, "name"), ({"tags": [1]}, 400, "tags"), ({"id": "1"}, 400, "id"), ({"colour": 1}, 400, "colour"),
    ({"x" * 256: "y"}, 400, "255"), ({"status": "active"}, 403, "status"), ({"checksum": "1"}, 403, "checksum"), ({"deleted": "x"}, 403, "deleted"),
    ({"os_glance_x": "y"}, 403, "os_glance_x"), ({"owner": "somebody"}, 403, "somebody"), ({"visibility": "public"}, 403, "publicize_image"),
])  # fmt: skip
def test_create_refuses_and_names_the_field(running: Running, body: dict[str, Any], status: int, said: str) -> None:
    with running.http("demo") as http:
        answer = http.post("/image/v2/images", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"][:3], said in error["message"]) == (status, str(status), True), error


def test_an_id_is_given_once(running: Running) -> None:
    chosen = "0123abcd-0123-4567-89ab-0123456789ab"
    with running.http("demo") as http:
        assert http.post("/image/v2/images", json={"id": chosen}).status_code == 201
        assert http.post("/image/v2/images", json={"id": chosen}).status_code == 409
        assert http.delete(f"/image/v2/images/{chosen}").status_code == 204
        assert http.get(f"/image/v2/images/{chosen}").status_code == 404
        assert http.post("/image/v2/images", json={"id": chosen}).status_code == 409, "also after its deletion"


def patch(http: Any, image_id: str, *operations: Any, kind: str = "application/openstack-images-v2.1-json-patch") -> Any:
    return http.patch(f"/image/v2/images/{image_id}", content=json.dumps(operations), headers={"content-type": kind})


def test_patch(running: Running, demo: Any) -> None:
    image = make(demo, "patched", data=None, colour="red")
    with running.http("demo") as http:
        answer = patch(http, image.id, {"op": "replace", "path": "/name", "value": "renamed"}, {"op": "add", "path": "/a~1b", "value": "slash"},
                       {"op": "replace", "path": "/colour", "value": "blue"}, {"op": "add", "path": "/tags", "value": ["t", "t"]},
                       {"op": "replace", "path": "/min_disk", "value": 2})  # fmt: skip
        shown = answer.json()
        assert answer.status_code == 200
        assert [shown[name] for name in ("name", "a/b", "colour", "tags", "min_disk")] == ["renamed", "slash", "blue", ["t"], 2]
        assert "colour" not in patch(http, image.id, {"op": "remove", "path": "/colour"}).json()
        for operation, status in (({"op": "remove", "path": "/colour"}, 409), ({"op": "replace", "path": "/colour", "value": "x"}, 409),
                                  ({"op": "remove", "path": "/name"}, 403), ({"op": "replace", "path": "/status", "value": "active"}, 403),
                                  ({"op": "replace", "path": "/owner", "value": "x"}, 403), ({"op": "replace", "path": "/id", "value": "x"}, 403),
                                  ({"op": "replace", "path": "/visibility", "value": "public"}, 403), ({"op": "move", "path": "/name"}, 400),
                                  ({"op": "add", "path": "name", "value": "x"}, 400), ({"op": "add", "path": "/name"}, 400),
                                  ({"op": "add", "path": "/name", "value": 1}, 400), ({"op": "add", "path": "/x~y", "value": "1"}, 400),
                                  ("x", 400)):  # fmt: skip
            assert patch(http, image.id, operation).status_code == status, operation
        assert patch(http, image.id, kind="application/json").status_code == 415
        broken = http.patch(f"/image/v2/images/{image.id}", content=b"{", headers={"content-type": "application/openstack-images-v2.1-json-patch"})
        assert broken.status_code == 400
        assert demo.get_image(image.id).name == "renamed"
        old = patch(http, image.id, {"replace": "/name", "value": "older"}, kind="application/openstack-images-v2.0-json-patch")
        assert old.json()["name"] == "older"


def test_formats_are_fixed_once_there_is_data(running: Running, demo: Any) -> None:
    image = make(demo, "fixed")
    with running.http("demo") as http:
        answer = patch(http, image.id, {"op": "replace", "path": "/disk_format", "value": "raw"})
    assert (answer.status_code, "disk_format" in answer.text) == (403, True)


def test_protected(demo: Any) -> None:
    image = make(demo, "guarded", data=None, meta={"protected": True})
    with pytest.raises(exceptions.ForbiddenException, match="protected"):
        demo.delete_image(image.id)
    demo.update_image(image.id, is_protected=False)
    demo.delete_image(image.id)
    with pytest.raises(exceptions.NotFoundException):
        demo.get_image(image.id)


def test_delete_removes_the_data(running: Running, demo: Any) -> None:
    image = make(demo, "short-lived")
    file = running.cloud.home.reach / "images" / image.id
    assert file.stat().st_size == len(DATA)
    demo.delete_image(image.id)
    assert not file.exists()


def test_other_projects(running: Running, admin: Any, demo: Any) -> None:
    private = make(admin, "admin's own", visibility="private")
    public = make(admin, "everybody's", visibility="public")
    community = make(admin, "the community's", visibility="community")
    listed = {image.id for image in demo.images()}
    assert (public.id in listed, private.id in listed, community.id in listed) == (True, False, False)
    assert [image.id for image in demo.images(visibility="community")] == [community.id]
    assert demo.get_image(community.id).id == community.id
    assert demo.download_image(public.id).content == DATA
    with running.http("demo") as http:
        for method, address in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("PUT", "/file"), ("GET", "/members"), ("PUT", "/tags/x"),
                                ("POST", "/actions/deactivate")):  # fmt: skip
            assert http.request(method, f"/image/v2/images/{private.id}{address}").status_code == 404, (method, address)
            if method != "GET":
                answer = http.request(method, f"/image/v2/images/{public.id}{address}")
                assert answer.status_code == 403, (method, address, answer.text)
        assert patch(http, public.id, {"op": "replace", "path": "/name", "value": "mine"}).status_code == 403
        assert http.get(f"/image/v2/images?marker={private.id}").status_code == 400, "a marker one may not see"
    assert private.id in {image.id for image in admin.images()}


def test_members(running: Running, admin: Any, demo: Any) -> None:
    image = make(admin, "shared with demo")
    project = running.connect("demo").current_project_id
    with pytest.raises(exceptions.NotFoundException):
        demo.get_image(image.id)
    member = admin.add_member(image, member_id=project)
    assert member.status == "pending"
    assert demo.get_image(image.id).name == "shared with demo"
    assert image.id not in {each.id for each in demo.images()}
    assert image.id in {each.id for each in demo.images(member_status="pending")}
    demo.update_member(project, image.id, status="accepted")
    assert image.id in {each.id for each in demo.images()}
    assert [each.status for each in demo.members(image.id)] == ["accepted"]
    with running.http("demo") as http:
        address = f"/image/v2/images/{image.id}/members"
        assert http.post(address, json={"member": "x"}).status_code == 403
        assert http.delete(f"{address}/{project}").status_code == 403
        assert http.put(f"{address}/{project}", json={"status": "perhaps"}).status_code == 400
    with running.http() as http:
        assert http.post(address, json={"member": project}).status_code == 409
        assert http.post(address, json={}).status_code == 400
        assert http.get(f"{address}/nobody").status_code == 404
    private = make(admin, "private", data=None, visibility="private")
    with pytest.raises(exceptions.ForbiddenException, match="shared"):
        admin.add_member(private, member_id=project)
    admin.remove_member(project, image.id)
    with pytest.raises(exceptions.NotFoundException):
        demo.get_image(image.id)


def test_deactivated_data_are_for_administrators(running: Running, admin: Any, demo: Any) -> None:
    image = make(demo, "suspect")
    admin.deactivate_image(image.id)
    assert demo.get_image(image.id).status == "deactivated"
    with running.http("demo") as http:
        assert http.get(f"/image/v2/images/{image.id}/file").status_code == 403
    assert admin.download_image(image.id).content == DATA
    admin.reactivate_image(image.id)
    assert demo.download_image(image.id).content == DATA
    queued = make(demo, "empty", data=None)
    with running.http("demo") as http:
        assert http.post(f"/image/v2/images/{queued.id}/actions/deactivate").status_code == 403


def test_an_empty_id_names_nothing(running: Running) -> None:
    with running.http("demo") as http:
        for method in ("GET", "DELETE", "PATCH"):
            assert http.request(method, "/image/v2/images/").status_code == 404, method
        assert http.get("/image/v2/images").status_code == 200
        assert http.get("/image/").status_code == 300


def test_tags(demo: Any) -> None:
    image = make(demo, "labelled", data=None)
    demo.add_tag(image.id, "with space")
    demo.add_tag(image.id, "with space")
    assert demo.get_image(image.id).tags == ["with space"]
    demo.remove_tag(image.id, "with space")
    with pytest.raises(exceptions.NotFoundException):
        demo.remove_tag(image.id, "with space")


def test_schemas_and_info(running: Running, demo: Any) -> None:
    assert "disk_format" in demo.get_image_schema().properties
    assert demo.get_members_schema().name == "members"
    assert demo.get_import_info().import_methods["value"] == ["glance-direct", "web-download", "copy-image", "glance-download"]
    with running.http("demo") as http:
        assert http.get("/image/v2/info/stores").json() == {"stores": [{"id": "file", "default": "true"}]}
        assert http.get("/image/v2/schemas/nothing").status_code == 404
