"""Decode, one verb, render. What all resources share is here: lists with filters, fields and pages; attributes hidden by policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from nacre.core import paging
from nacre.core.http import Call
from nacre.network.bodies import several
from nacre.network.rules import RULES
from nacre.network.service import records
from nacre.network.service.records import Asked, Kind, Record

_NOT_FILTERS = ("limit", "marker", "page_reverse", "sort_key", "sort_dir", "sort", "fields")


@dataclass(frozen=True)
class Wire:
    """A resource on the wire: `render` makes its body; `plural` is also its address unless `path` says otherwise."""

    kind: Kind
    plural: str
    render: Callable[[Record], dict[str, Any]]
    path: str = ""

    @property
    def singular(self) -> str:
        return self.kind.name

    @property
    def address(self) -> str:
        return f"/v2.0/{self.path or self.plural}"

    def body(self, call: Call, record: Record) -> dict[str, Any]:
        """What the caller may see of it, and what he asked for."""
        shown, target = self.render(record), self.kind.target(record)
        hidden = {name for name in shown if f"get_{self.kind.name}:{name}" in RULES and name != "tags"}
        fields = call.query.getlist("fields")
        hidden = {name for name in hidden if not call.caller.allowed(f"get_{self.kind.name}:{name}", target)}
        return {name: value for name, value in shown.items() if (not fields or name in fields) and name not in hidden}

    def one(self, call: Call, record: Record) -> dict[str, Any]:
        return {self.singular: self.body(call, record)}

    def many(self, call: Call, found: Sequence[Record]) -> dict[str, Any]:
        return {self.plural: [self.body(call, record) for record in found]}

    def create(self, call: Call, verb: Callable[[Any, Any], Sequence[Record]]) -> dict[str, Any]:
        wanted, bulk = several(call.body, self.singular, self.plural)
        found = verb(call.caller, wanted)
        return self.many(call, found) if bulk else self.one(call, found[0])

    def show(self, call: Call) -> dict[str, Any]:
        return self.one(call, records.show(call.caller, self.kind, call.path["id"]))

    def list(self, call: Call) -> dict[str, Any]:
        page = self.page(call)
        found, more = records.listed(call.caller, self.kind, Asked(filters(call), page))
        answer = self.many(call, found)
        if page.limit is not None and found:
            answer[f"{self.plural}_links"] = links(call, self.address, found, more)
        return answer

    def page(self, call: Call) -> paging.Page:
        """By id unless asked otherwise."""
        plain = {name: column.name for name, column in self.kind.columns.items() if isinstance(column, sa.Column)}
        page = paging.page_of(call.query, most=None, keys=(("id", "asc"),), sortable=plain)
        return paging.Page(page.limit or None, page.marker, page.keys, call.flag("page_reverse"))

    def tags(self, call: Call) -> dict[str, Any]:
        return {"tags": records.read_tags(call.caller, self.kind, call.path["id"])}

    def has_tag(self, call: Call) -> None:
        records.read_tags(call.caller, self.kind, call.path["id"], call.path["tag"])

    def set_tags(self, call: Call) -> dict[str, Any]:
        return {"tags": records.set_tags(call.caller, self.kind, call.path["id"], call.body.tags)}

    def add_tag(self, call: Call) -> None:
        records.add_tag(call.caller, self.kind, call.path["id"], call.path["tag"])

    def remove_tag(self, call: Call) -> None:
        records.remove_tags(call.caller, self.kind, call.path["id"], call.path.get("tag"))


def filters(call: Call) -> Mapping[str, Sequence[str]]:
    """Query parameters that are not about pages. An empty text is a value."""
    return {name: call.query.getlist(name) for name in call.query if name not in _NOT_FILTERS}


def links(call: Call, address: str, found: Sequence[Record], more: bool) -> list[dict[str, str]]:
    """The pages before and after, as upstream names them."""
    reverse = call.flag("page_reverse")
    kept = [(name, value) for name, value in call.query.multi_items() if name not in ("marker", "page_reverse")]

    def link(rel: str, marker: str, back: bool) -> dict[str, str]:
        pairs = [*kept, ("marker", marker), *([("page_reverse", "True")] if back else [])]
        return {"rel": rel, "href": f"{call.url}{address}?{urlencode(pairs)}"}

    after, before = (True, more) if reverse else (more, bool(call.query.get("marker")))
    forward = [link("next", found[-1]["id"], False)] if after else []
    return forward + ([link("previous", found[0]["id"], True)] if before else [])
