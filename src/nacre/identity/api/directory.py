"""Handlers of the directory: the same few for every kind, each around the verb that it is made with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nacre.core import paging
from nacre.core.caller import Caller
from nacre.core.http import Call, Reply
from nacre.identity import bodies
from nacre.identity.service import acting, directory, groups, passwords, projects, roles, tags, trusts, users
from nacre.identity.service.directory import GROUPS, PROJECTS, ROLES, USERS, Kind, Record
from nacre.identity.service.trusts import TRUSTS

Answer = dict[str, Any]
Handler = Callable[[Call], Any]


def versions(url: str) -> Answer:
    """The version document. Source: API reference, "Versions"."""
    return {"versions": {"values": [_version(url)]}}


def _version(url: str) -> Answer:
    return {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": [{"rel": "self", "href": f"{url}/v3/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]}  # fmt: skip


def root(call: Call) -> Reply:
    return Reply(versions(call.url), 300)


def v3(call: Call) -> Answer:
    return {"version": _version(call.url)}


def one(call: Call, kind: Kind, record: Record) -> Answer:
    return {kind.word: bodies.resource(record, call.url, kind)}


def many(call: Call, kind: Kind, found: Sequence[Record], *, paged: bool = False) -> Answer:
    """A full page says where the next one is; that may be empty."""
    full = paged and found and str(len(found)) == call.query.get("limit")
    return collection(call, kind.plural, [bodies.resource(record, call.url, kind) for record in found], str(found[-1]["id"]) if full else "")


def collection(call: Call, plural: str, shown: list[Answer], last: str = "") -> Answer:
    """`last`: the id after which the next page begins."""
    address = f"{call.url}{call.request.url.path.removeprefix(call.service.prefix)}"
    links = {"self": address, "previous": None, "next": paging.link(address, call.query, last) if last else None}
    return {plural: shown, "links": links}


def lister(kind: Kind, verb: Callable[[Caller, Mapping[str, str]], list[Record]] | None = None) -> Handler:
    def listed(call: Call) -> Answer:
        found = verb(call.caller, call.query) if verb is not None else directory.listed(call.caller, kind, call.query)
        return many(call, kind, found, paged=verb in (None, roles.listed, acting.listed, users.listed))

    return listed


def shower(kind: Kind, verb: Callable[[Caller, str], Record] | None = None) -> Handler:
    def show(call: Call) -> Answer:
        row_id = call.path["id"]
        return one(call, kind, verb(call.caller, row_id) if verb is not None else directory.find(call.caller, kind, row_id))

    return show


def creator(kind: Kind, verb: Callable[[Caller, Record], Record]) -> Handler:
    def create(call: Call) -> Answer:
        return one(call, kind, verb(call.caller, call.body))

    return create


def changer(kind: Kind, verb: Callable[[Caller, str, Record], Record]) -> Handler:
    def change(call: Call) -> Answer:
        return one(call, kind, verb(call.caller, call.path["id"], call.body))

    return change


def remover(verb: Callable[[Caller, str], None]) -> Handler:
    def remove(call: Call) -> None:
        verb(call.caller, call.path["id"])

    return remove


def show_project(call: Call) -> Answer:
    return one(call, PROJECTS, acting.find(call.caller, call.path["id"], call.query))


def _tags(call: Call, found: list[str]) -> Answer:
    return {"tags": found, "links": {"self": f"{call.url}/v3/projects/{call.path['id']}/tags", "previous": None, "next": None}}


def tags_of(call: Call) -> Answer:
    return _tags(call, tags.listed(call.caller, call.path["id"]))


def put_tags(call: Call) -> Answer:
    return _tags(call, tags.put(call.caller, call.path["id"], call.body.tags))


def tagger(verb: Callable[[Caller, str, str], None]) -> Handler:
    """`verb` is add, check or remove."""

    def do(call: Call) -> None:
        verb(call.caller, call.path["id"], call.path["tag"])

    return do


def projects_of_user(call: Call) -> Answer:
    return many(call, PROJECTS, projects.of_user(call.caller, call.path["id"], call.query))


def groups_of_user(call: Call) -> Answer:
    return many(call, GROUPS, groups.of_user(call.caller, call.path["id"]))


def change_password(call: Call) -> None:
    users.change_password(call.caller, call.path["id"], (call.body["original_password"], call.body["password"]), call.source)


def password_rules(call: Call) -> Answer:
    return {"config": passwords.told(call.caller, call.path["id"], call.path.get("option", ""))}


def users_of_group(call: Call) -> Answer:
    return many(call, USERS, groups.users_of(call.caller, call.path["id"]))


def add_to_group(call: Call) -> None:
    groups.add_user(call.caller, call.path["id"], call.path["user_id"])


def check_in_group(call: Call) -> None:
    groups.has_user(call.caller, call.path["id"], call.path["user_id"])


def remove_from_group(call: Call) -> None:
    groups.remove_user(call.caller, call.path["id"], call.path["user_id"])


def show_trust(call: Call) -> Answer:
    """The roles that it gives are shown as resources of their own."""
    return one(call, TRUSTS, _with_roles(call, trusts.find(call.caller, call.path["id"])))


def create_trust(call: Call) -> Answer:
    return one(call, TRUSTS, _with_roles(call, trusts.create(call.caller, call.body)))


def _with_roles(call: Call, trust: Record) -> Record:
    return {**trust, "roles": [bodies.resource(role, call.url, ROLES) for role in trust["roles"]]}


def roles_of_trust(call: Call) -> Answer:
    return many(call, ROLES, trusts.find(call.caller, call.path["id"])["roles"])


def role_of_trust(call: Call) -> Answer:
    return one(call, ROLES, trusts.role_of(call.caller, call.path["id"], call.path["role_id"]))
