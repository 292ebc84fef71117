"""What is wrong in any body, query or header is refused in words that name it, and never makes the service fail.

Every field of a right request is replaced by every wrong value there is, one at a time; a value that is right for its field is taken.
The rows are the program's own: a new route with a body is missed here by name.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from conftest import Running
from image.disks import qcow2
from image.test_imports import new
from nacre.image import routes

VALUES: tuple[Any, ...] = (None, True, -1, 1 << 70, 1.5, "", " ", "x", "x" * 300, "x" * 70000, "\0", "\ud800", "../../etc/passwd", "é" * 200, [],
                           [None], ["x"] * 200, {}, {"x": 1}, [[[[{}]]]], {"name": {}})  # fmt: skip
BODIES: tuple[Any, ...] = (b"", b"{", b"null", b"[]", b"{}", b'"x"', b"1", b"\xff\xfe", b"[1]", b'{"a": NaN}', b"[" * 5000, b'{"a":1,"a":2}')
PATCH = "application/openstack-images-v2.1-json-patch"
SPACE = "/v2/metadefs/namespaces"
PROPERTY = {"name": "p", "title": "P", "type": "string", "minLength": 1, "maximum": 2, "enum": ["a"], "items": {"type": "string"}, "readonly": True,
            "operators": ["<or>"], "default": "a", "pattern": "^a", "uniqueItems": True, "description": "d"}  # fmt: skip


@dataclass(frozen=True)
class Right:
    """A request with a body that is taken. `{image}`: an image of ours, `{new}`: another one each time, `{lent}`: one lent to us. `more`: fields that
    a body may not have; `called`: what a refusal calls a field, if not by its name."""

    method: str
    path: str
    body: Any
    user: str = "demo"
    kind: str = "application/json"
    more: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)


RIGHT = {
    "POST /v2/images": Right("POST", "/v2/images", {
        "name": "n", "visibility": "private", "protected": False, "os_hidden": False, "container_format": "bare", "disk_format": "raw", "min_ram": 1,
        "min_disk": 1, "tags": ["t"], "colour": "red"}, more=("owner", "id", "locations", "status", "size", "os_glance_x", "deleted"),
        called={"owner": "owned by"}),
    "PATCH /v2/images/{image_id}": Right("PATCH", "/v2/images/{image}", {"op": "add", "path": "/colour", "value": "x"}, kind=PATCH,
                                         called={"path": "pointer", "op": "operation", "value": "colour"}),
    "POST /v2/images/{image_id}/members": Right("POST", "/v2/images/{image}/members", {"member": "m"}),
    "PUT /v2/images/{image_id}/members/{member_id}": Right("PUT", "/v2/images/{lent}/members/{project}", {"status": "accepted"}),
    "POST /v2/images/{image_id}/import": Right("POST", "/v2/images/{new}/import", {
        "method": {"name": "web-download", "uri": "http://127.0.0.1:2/"}, "stores": ["file"], "all_stores": False, "all_stores_must_succeed": True},
        called={"method": "import"}),
    "POST /v2/images/{image_id}/locations": Right("POST", "/v2/images/{new}/locations", {
        "url": "http://127.0.0.1:2/", "validation_data": {"os_hash_algo": "md5", "os_hash_value": "0" * 32}},
        called={"url": "uri"}),
    "POST /v2/tasks": Right("POST", "/v2/tasks", {"type": "import", "input": {}}, "admin",
                           called=dict.fromkeys(("type", "input", "strange"), "made by imports")),
    f"POST {SPACE}": Right("POST", SPACE, {
        "namespace": "n", "visibility": "public", "protected": False, "display_name": "d", "description": "d", "owner": "o",
        "objects": [{"name": "o"}], "properties": {"p": {"title": "t", "type": "string"}}, "tags": [{"name": "t"}],
        "resource_type_associations": [{"name": "r"}]}, "admin"),
    f"PUT {SPACE}/{{namespace}}": Right("PUT", f"{SPACE}/Wrong", {"namespace": "Wrong", "visibility": "public", "display_name": "d"}, "admin"),
    f"POST {SPACE}/{{namespace}}/resource_types": Right("POST", f"{SPACE}/Wrong/resource_types", {
        "name": "r", "prefix": "p", "properties_target": "t"}, "admin"),
    f"POST {SPACE}/{{namespace}}/objects": Right("POST", f"{SPACE}/Wrong/objects", {
        "name": "o", "required": ["p"], "properties": {"p": {"title": "t", "type": "string"}}}, "admin"),
    f"PUT {SPACE}/{{namespace}}/objects/{{name}}": Right("PUT", f"{SPACE}/Wrong/objects/there", {"name": "there", "properties": {}}, "admin"),
    f"POST {SPACE}/{{namespace}}/properties": Right("POST", f"{SPACE}/Wrong/properties", PROPERTY, "admin"),
    f"PUT {SPACE}/{{namespace}}/properties/{{name}}": Right("PUT", f"{SPACE}/Wrong/properties/there", PROPERTY | {"name": "there"}, "admin"),
    f"POST {SPACE}/{{namespace}}/tags": Right("POST", f"{SPACE}/Wrong/tags", {"tags": [{"name": "t"}]}, "admin"),
    f"PUT {SPACE}/{{namespace}}/tags/{{name}}": Right("PUT", f"{SPACE}/Wrong/tags/there", {"name": "there"}, "admin"),
}  # fmt: skip


@dataclass
class Cloud:
    running: Running
    image: str
    lent: str
    project: str

    def ask(self, right: Right, content: bytes) -> Any:
        path = right.path.format(image=self.image, lent=self.lent, project=self.project,
                                 new=new(self.clients["demo"]) if "{new}" in right.path else "")  # fmt: skip
        answer = self.clients[right.user].request(right.method, f"/image{path}", content=content, headers={"content-type": right.kind})
        assert answer.status_code < 500, (right.method, path, content[:200], answer.text)
        return answer

    def __post_init__(self) -> None:
        self.clients = {user: self.running.http(user) for user in ("admin", "demo")}


@pytest.fixture(scope="module")
def cloud(several: Running) -> Iterator[Cloud]:
    project = several.connect("demo").current_project_id
    with several.http() as admin, several.http("demo") as http:
        lent = new(admin, visibility="shared")
        assert admin.post(f"/image/v2/images/{lent}/members", json={"member": project}).status_code == 200
        assert admin.post(f"/image{SPACE}", json={"namespace": "Wrong", "visibility": "public"}).status_code == 201
        for kind, body in (("objects", {"name": "there"}), ("properties", {"name": "there", "title": "t", "type": "string"})):
            assert admin.post(f"/image{SPACE}/Wrong/{kind}", json=body).status_code == 201
        assert admin.post(f"/image{SPACE}/Wrong/tags/there").status_code == 201
        made = Cloud(several, new(http, visibility="shared"), lent, project)
        yield made
        for each in made.clients.values():
            each.close()


def test_every_route_with_a_body_is_here() -> None:
    with_body = {f"{route.method} {route.path}" for route in routes.ROUTES + routes.METADEFS if route.body is not None}
    assert with_body == set(RIGHT)


def encoded(value: Any, right: Right) -> bytes:
    return json.dumps([value] if right.kind == PATCH else value).encode()


@pytest.mark.parametrize("name", RIGHT)
def test_a_body_that_is_none(cloud: Cloud, name: str) -> None:
    right = RIGHT[name]
    for content in BODIES:
        answer = cloud.ask(right, content)
        said = answer.json()["error"]["message"] if answer.status_code >= 400 else ""
        taken = content in (b"[]", b"{}", b'{"a":1,"a":2}')
        assert said or taken, (content[:20], answer.status_code)


@pytest.mark.parametrize("name", RIGHT)
def test_every_field_with_every_wrong_value(cloud: Cloud, name: str) -> None:
    right, unnamed = RIGHT[name], []
    for each, value in itertools.product([*right.body, *right.more, "strange"], VALUES):
        answer = cloud.ask(right, encoded(right.body | {each: value}, right))
        if answer.status_code >= 400:
            said = answer.json()["error"]["message"].lower()
            assert said
            named = each.lower() in said or right.called.get(each, each) in said or "malformed json" in said or answer.status_code not in (400, 403)
            unnamed += [] if named else [(each, str(value)[:30], said[:100])]
    assert unnamed == [], "\n".join(map(str, unnamed))


QUERIES = {"/v2/images": ("limit", "marker", "sort_key", "sort_dir", "sort", "status", "visibility", "member_status", "os_hidden", "protected",
                          "size_min", "size_max", "size", "min_ram", "created_at", "updated_at", "name", "id", "tag", "owner", "colour",
                          "disk_format"),
           "/v2/tasks": ("limit", "marker", "sort_key", "sort_dir", "status", "type"),
           SPACE: ("limit", "marker", "sort_key", "sort_dir", "visibility", "resource_types"),
           f"{SPACE}/Wrong/tags": ("limit", "marker", "sort_key", "sort_dir")}  # fmt: skip
TEXTS = ("", " ", "x", "-1", "1.5", "9" * 30, "\0", "é", "x" * 3000, "in:", 'in:"', "gt:", "gt:x", "gt:9999-99-99T99:99:99Z",
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "name:asc,name:desc", ",", ":", "%", "'", "null")  # fmt: skip


@pytest.mark.parametrize("path", QUERIES)
def test_every_parameter_with_every_wrong_text(cloud: Cloud, path: str) -> None:
    for user, (name, text) in itertools.product(("admin", "demo"), itertools.product(QUERIES[path], TEXTS)):
        answer = cloud.clients[user].get(f"/image{path}", params={name: text})
        assert answer.status_code < 500, (name, text, answer.text)
        assert answer.status_code < 400 or answer.json()["error"]["message"], (name, text)


@pytest.mark.parametrize("verb", ["file", "stage"])
def test_headers_of_an_upload(cloud: Cloud, verb: str) -> None:
    http = cloud.clients["demo"]
    names, texts = ("x-openstack-image-size", "content-type", "x-image-meta-store"), ("", "x", "-1", "9" * 30, "1e3", "a/b/c;;")
    for name, text in itertools.product(names, texts):
        image_id = new(http)
        answer = http.put(f"/image/v2/images/{image_id}/{verb}", content=qcow2(), headers={name: text})
        assert answer.status_code < 500, (name, text, answer.text)
        assert answer.status_code < 400 or answer.json()["error"]["message"], (name, text)
        after = "queued" if answer.status_code >= 400 else "active" if verb == "file" else "uploading"
        assert http.get(f"/image/v2/images/{image_id}").json()["status"] == after
