"""Metadata definitions, by openstacksdk where it can, else by plain HTTP."""

from typing import Any

import pytest

from conftest import Running

SPACES = "/image/v2/metadefs/namespaces"
PROPERTY = {"title": "Cores", "type": "integer", "minimum": 1, "description": "How many"}


def made(http: Any, name: str, **more: Any) -> Any:
    answer = http.post(SPACES, json={"namespace": name, "visibility": "public", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_namespace_with_everything(running: Running) -> None:
    whole = {"display_name": "Whole", "description": "All of it", "protected": True,
             "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}, {"name": "OS::My::Own"}],
             "properties": {"cpu_cores": PROPERTY}, "tags": [{"name": "fast"}, {"name": "slow"}],
             "objects": [{"name": "cpu", "required": ["cpu_cores"], "properties": {"cpu_cores": PROPERTY}}]}  # fmt: skip
    with running.http() as http, running.http("demo") as demo:
        answer = made(http, "Whole", **whole)
        assert (answer["self"], answer["schema"], answer["owner"]) == (f"{SPACES[6:]}/Whole", "/v2/schemas/metadefs/namespace",
                                                                        running.connect().current_project_id)  # fmt: skip
        shown = demo.get(f"{SPACES}/Whole").json()
        assert [each["name"] for each in shown["resource_type_associations"]] == ["OS::My::Own", "OS::Nova::Flavor"]
        assert (shown["properties"], [each["name"] for each in shown["tags"]]) == ({"cpu_cores": PROPERTY}, ["fast", "slow"])
        assert shown["objects"][0]["required"] == ["cpu_cores"]
        prefixed = demo.get(f"{SPACES}/Whole?resource_type=OS::Nova::Flavor").json()
        assert (list(prefixed["properties"]), prefixed["objects"][0]["required"]) == (["hw:cpu_cores"], ["hw:cpu_cores"])
        assert list(prefixed["objects"][0]["properties"]) == ["hw:cpu_cores"]
        assert "OS::My::Own" in [each["name"] for each in demo.get("/image/v2/metadefs/resource_types").json()["resource_types"]]
        listed = demo.get(f"{SPACES}?resource_types=OS::My::Own").json()
        assert [each["namespace"] for each in listed["namespaces"]] == ["Whole"]
        for path in ("", "/objects", "/properties", "/tags", "/tags/fast", "/objects/cpu", "/properties/cpu_cores", "/resource_types/OS::My::Own"):
            assert http.delete(f"{SPACES}/Whole{path}").status_code == 403, path
        changed = http.put(f"{SPACES}/Whole", json={"namespace": "Halved"}).json()
        assert (changed["visibility"], changed["protected"], "description" in changed) == ("private", False, False)
        assert demo.get(f"{SPACES}/Halved").status_code == 404
        assert http.delete(f"{SPACES}/Halved").status_code == 204
        assert http.get(f"{SPACES}/Halved/objects").status_code == 404


def test_pages_and_refusals(running: Running) -> None:
    with running.http() as http, running.http("demo") as demo:
        for name in ("a", "b", "c"):
            made(http, name, description="same")
        first = demo.get(f"{SPACES}?limit=2&sort_key=namespace&sort_dir=asc").json()
        assert [each["namespace"] for each in first["namespaces"]] == ["a", "b"]
        assert [each["namespace"] for each in demo.get("/image" + first["next"]).json()["namespaces"]] == ["c"]
        for query in ("limit=x", "limit=-1", "sort_dir=up", "sort_key=colour", "visibility=shared"):
            assert demo.get(f"{SPACES}?{query}").status_code == 400, query
        assert demo.get(f"{SPACES}?marker=nobody").status_code == 404
        assert http.post(SPACES, json={"namespace": "a"}).status_code == 409
        assert http.put(f"{SPACES}/a", json={"namespace": "b"}).status_code == 409
        assert demo.post(SPACES, json={"namespace": "mine"}).status_code == 403
        assert demo.put(f"{SPACES}/a", json={"namespace": "a"}).status_code == 403
        for name in ("a", "b", "c"):
            assert http.delete(f"{SPACES}/{name}").status_code == 204


@pytest.mark.parametrize(("body", "status", "said"), [
    ({}, 400, "namespace"), ({"namespace": "x" * 81}, 400, "too long"), ({"namespace": "n", "visibility": "shared"}, 400, "shared"),
    ({"namespace": "n", "created_at": "x"}, 403, "created_at"), ({"namespace": "n", "colour": "x"}, 400, "colour"),
    ({"namespace": "n", "properties": {"p": {"type": "string"}}}, 400, "title"),
    ({"namespace": "n", "properties": {"p": {"title": "t", "type": "float"}}}, 400, "float"),
    ({"namespace": "n", "properties": {"p": {"title": "t", "type": "string", "minLength": -1}}}, 400, "minimum"),
    ({"namespace": "n", "properties": {"p": {"title": "t", "type": "string", "pattern": "("}}}, 400, "regex"),
    ({"namespace": "n", "objects": [{"name": "o", "required": ["a", "a"]}]}, 400, "unique"), ({"namespace": 1}, 400, "type"),
])  # fmt: skip
def test_what_is_wrong_is_named(running: Running, body: Any, status: int, said: str) -> None:
    with running.http() as http:
        answer = http.post(SPACES, json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


def test_objects_properties_and_tags(running: Running) -> None:
    with running.http() as http, running.http("demo") as demo:
        made(http, "Parts", resource_type_associations=[{"name": "OS::Glance::Image", "prefix": "hw_"}])
        for word, body, changed in (("objects", {"name": "one", "description": "d"}, {"name": "two", "properties": {"p": PROPERTY}}),
                                    ("properties", {"name": "one", **PROPERTY}, {"name": "two", "title": "T", "type": "string"})):  # fmt: skip
            address = f"{SPACES}/Parts/{word}"
            assert http.post(address, json=body).status_code == 201
            assert http.post(address, json=body).status_code == 409
            assert demo.post(address, json=body).status_code == 403
            assert http.post(address, json={"title": 1}).status_code == 400
            shown = demo.get(f"{address}/one").json()
            assert {name: shown[name] for name in body} == body
            answer = http.put(f"{address}/one", json=changed)
            assert (answer.status_code, {name: answer.json()[name] for name in changed}) == (200, changed)
            assert demo.get(f"{address}/one").status_code == 404
            assert "two" in (each["name"] if word == "objects" else each for each in demo.get(address).json()[word])
        assert demo.get(f"{SPACES}/Parts/properties/hw_two?resource_type=OS::Glance::Image").json()["title"] == "T"
        assert demo.get(f"{SPACES}/Parts/properties/two?resource_type=OS::Glance::Image").status_code == 404
        tags = f"{SPACES}/Parts/tags"
        assert http.post(tags, json={"tags": [{"name": "a"}, {"name": "b"}]}).status_code == 201
        assert http.post(tags, json={"tags": [{"name": "c"}]}, headers={"X-Openstack-Append": "True"}).status_code == 201
        assert {each["name"] for each in demo.get(tags).json()["tags"]} == {"a", "b", "c"}
        assert http.post(f"{tags}/d").status_code == 201
        assert http.put(f"{tags}/d", json={"name": "e"}).json()["name"] == "e"
        assert http.put(f"{tags}/e", json={"name": "a"}).status_code == 409
        assert [each["name"] for each in demo.get(f"{tags}?limit=2&sort_key=name&sort_dir=asc&marker=a").json()["tags"]] == ["b", "c"]
        assert http.post(tags, json={"tags": [{"name": "z"}]}).status_code == 201
        assert demo.get(tags).json()["tags"] == [{"name": "z"}]
        for word in ("objects", "properties", "tags"):
            assert demo.delete(f"{SPACES}/Parts/{word}").status_code == 403
            assert http.delete(f"{SPACES}/Parts/{word}").status_code == 204
        shown = demo.get(f"{SPACES}/Parts").json()
        assert not {"objects", "properties", "tags"} & shown.keys()


def test_by_the_client_library(running: Running) -> None:
    admin = running.connect().image
    space = admin.create_metadef_namespace(namespace="Sdk", display_name="By the library", visibility="public")
    assert [each.namespace for each in admin.metadef_namespaces() if each.namespace == "Sdk"] == ["Sdk"]
    admin.update_metadef_namespace(space, display_name="Changed")
    assert admin.get_metadef_namespace("Sdk").display_name == "Changed"
    assert admin.create_metadef_object("Sdk", name="o", description="d").name == "o"
    assert [each.name for each in admin.metadef_objects("Sdk")] == ["o"]
    assert admin.create_metadef_property("Sdk", name="p", title="P", type="string").name == "p"
    assert [each.name for each in admin.metadef_properties("Sdk")] == ["p"]
    admin.create_metadef_resource_type_association("Sdk", name="OS::Nova::Server", prefix="x:")
    assert [each.name for each in admin.metadef_resource_type_associations("Sdk")] == ["OS::Nova::Server"]
    admin.delete_metadef_resource_type_association("OS::Nova::Server", "Sdk")
    assert "OS::Nova::Server" in [each.name for each in admin.metadef_resource_types()]
    admin.delete_metadef_namespace("Sdk")


def test_schemas_of_all(running: Running) -> None:
    with running.http("demo") as http:
        for one, many in (("namespace", "namespaces"), ("object", "objects"), ("property", "properties"), ("tag", "tags"),
                          ("resource_type", "resource_types")):  # fmt: skip
            found = http.get(f"/image/v2/schemas/metadefs/{one}").json()
            assert found["properties"], one
            assert http.get(f"/image/v2/schemas/metadefs/{many}").json()["links"][-1] == {"rel": "describedby", "href": "{schema}"}
        assert http.get("/image/v2/schemas/metadefs/nothing").status_code == 404
        assert http.get("/image/v2/schemas/task").json()["name"] == "task"
