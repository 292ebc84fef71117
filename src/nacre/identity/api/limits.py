"""Handlers of unified limits. Many are made in one request, and shown without links of the whole."""

from collections.abc import Callable
from typing import Any

import msgspec

from nacre.core.caller import Caller
from nacre.core.http import Call
from nacre.identity import bodies
from nacre.identity.service import limits
from nacre.identity.service.directory import Kind, Record


def model(call: Call) -> dict[str, Any]:
    return {"model": limits.model(call.caller)}


def creator(kind: Kind, verb: Callable[[Caller, list[Record]], list[Record]]) -> Callable[[Call], dict[str, Any]]:
    def create(call: Call) -> dict[str, Any]:
        wanted = [msgspec.to_builtins(one) for one in getattr(call.body, kind.plural)]
        return {kind.plural: [bodies.resource(one, call.url, kind) for one in verb(call.caller, wanted)]}

    return create


def changer(kind: Kind, verb: Callable[[Caller, str, Record], Record]) -> Callable[[Call], dict[str, Any]]:
    def change(call: Call) -> dict[str, Any]:
        return {kind.word: bodies.resource(verb(call.caller, call.path["id"], msgspec.to_builtins(call.body)), call.url, kind)}

    return change
