"""Handlers of the directory: the same two for every kind."""

from collections.abc import Callable
from typing import Any

from nacre.core.http import Call, Reply
from nacre.identity import bodies
from nacre.identity.service import directory
from nacre.identity.service.directory import Kind


def versions(url: str) -> dict[str, Any]:
    """The version document. Source: API reference, "Versions"."""
    return {"versions": {"values": [_version(url)]}}


def _version(url: str) -> dict[str, Any]:
    return {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": [{"rel": "self", "href": f"{url}/v3/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]}  # fmt: skip


def root(call: Call) -> Reply:
    return Reply(versions(call.url), 300)


def v3(call: Call) -> dict[str, Any]:
    return {"version": _version(call.url)}


def lister(kind: Kind) -> Callable[[Call], dict[str, Any]]:
    def listed(call: Call) -> dict[str, Any]:
        rows = directory.listed(call.caller, kind, call.query)
        word = kind.word
        links = {"self": f"{call.url}/v3/{word}s", "previous": None, "next": None}
        return {f"{word}s": [bodies.resource(row, call.url, word) for row in rows], "links": links}

    return listed


def shower(kind: Kind) -> Callable[[Call], dict[str, Any]]:
    def show(call: Call) -> dict[str, Any]:
        return {kind.word: bodies.resource(directory.find(call.caller, kind, call.path["id"]), call.url, kind.word)}

    return show


def projects_of_user(call: Call) -> dict[str, Any]:
    rows = directory.projects_of(call.caller, call.path["id"])
    links = {"self": f"{call.url}/v3/users/{call.path['id']}/projects", "previous": None, "next": None}
    return {"projects": [bodies.resource(row, call.url, "project") for row in rows], "links": links}


def role_assignments(call: Call) -> dict[str, Any]:
    rows = directory.role_assignments(call.caller, call.query)
    names = "include_names" in call.query and call.flag("include_names")
    return {"role_assignments": [bodies.assignment(row, call.url, names) for row in rows],
            "links": {"self": f"{call.url}/v3/role_assignments", "previous": None, "next": None}}  # fmt: skip
