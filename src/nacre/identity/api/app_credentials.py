"""Handlers of application credentials and access rules, which are below their user."""

from typing import Any

from nacre.core.http import Call
from nacre.identity.api.directory import collection
from nacre.identity.bodies import app_credentials as bodies
from nacre.identity.service import app_credentials as service

Answer = dict[str, Any]


def listed(call: Call) -> Answer:
    found = service.listed(call.caller, call.path["user_id"], call.query)
    return collection(call, "application_credentials", [bodies.shown(one, call.url) for one in found])


def show(call: Call) -> Answer:
    return {"application_credential": bodies.shown(service.find(call.caller, call.path["user_id"], call.path["id"]), call.url)}


def create(call: Call) -> Answer:
    return {"application_credential": bodies.shown(service.create(call.caller, call.path["user_id"], call.body), call.url)}


def delete(call: Call) -> None:
    service.delete(call.caller, call.path["user_id"], call.path["id"])


def rules(call: Call) -> Answer:
    found = service.rules(call.caller, call.path["user_id"], call.query)
    return collection(call, "access_rules", [bodies.rule(one, call.url) for one in found])


def show_rule(call: Call) -> Answer:
    return {"access_rule": bodies.rule(service.find_rule(call.caller, call.path["user_id"], call.path["id"]), call.url)}


def delete_rule(call: Call) -> None:
    service.delete_rule(call.caller, call.path["user_id"], call.path["id"])
