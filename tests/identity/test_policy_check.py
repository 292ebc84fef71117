"""`nacre policy check`: the verdict is the API's own, and the line that decided is named."""

from typing import Any

import pytest

from conftest import Running
from identity.directory_client import V3
from nacre import program
from nacre.cli import policy
from nacre.cli.trouble import Trouble
from nacre.core.errors import Conflict, NotFound


def ask(running: Running, rule: str, user: str = "demo", project: str = "demo", **more: Any) -> dict[str, Any]:
    question = {"rule": rule, "service": None, "user": user, "scope": "project", "reference": project, "target": {}, **more}
    return program.QUESTIONS["policy"](running.cloud, question)


def test_a_built_in_rule(running: Running) -> None:
    found = ask(running, "identity:list_users", "admin", "admin")
    assert found["allowed"] and [(step["check"], step["rule"], step["where"]) for step in found["steps"]] == [
        ("role:admin", "admin_required", "built-in defaults")]  # fmt: skip
    refused = ask(running, "identity:list_users")
    assert not refused["allowed"] and {step["check"] for step in refused["steps"]} >= {"role:admin", "system_scope:all"}
    assert refused["roles"] == ["member", "reader"]
    told = "\n".join(policy.lines(refused))
    assert told.startswith("REFUSED: identity:list_users of identity, for demo (member, reader).") and "role:admin  is not so" in told


def test_the_operators_line_is_named(running: Running) -> None:
    file = running.cloud.home.reach / "policy" / "identity.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text('# ours\n"identity:list_users": "rule:admin_required or rule:helpdesk"\n"helpdesk": "role:member and not user_id:%(nobody)s"\n')
    try:
        running.cloud.policies["identity"].refresh()
        found = ask(running, "identity:list_users")
        assert found["allowed"] and found["steps"][0] == {
            "check": "role:member", "holds": True, "rule": "helpdesk", "where": f"{file}:3", "expression": "role:member and not user_id:%(nobody)s"}
        with running.http("demo") as demo:
            assert demo.get(f"{V3}/users").status_code == 200, "the API says the same"
    finally:
        file.unlink()
        running.cloud.policies["identity"].refresh()
    assert not ask(running, "identity:list_users")["allowed"]


def test_what_the_rule_looks_at_is_said(running: Running) -> None:
    mine = running.connect("demo").current_user_id
    for user_id, allowed in ((mine, True), ("other", False)):
        assert ask(running, "identity:get_user", target=policy.target([f"target.user.id={user_id}"]))["allowed"] is allowed
    with pytest.raises(Trouble, match="KEY=VALUE"):
        policy.target(["target.user.id"])


def test_every_rule_is_walked_as_it_is_compiled(running: Running) -> None:
    """Walked and compiled verdicts are the same for all rules there are."""
    for user, scope, reference in (("admin", "project", "admin"), ("admin", "system", ""), ("demo", "project", "demo"), ("demo", "", "")):
        for name, rules in running.cloud.policies.items():
            for rule in rules.written:
                found = ask(running, rule, user, reference, scope=scope, service=name)
                caller = program.identity.acting(running.cloud, user, scope, reference)
                own = {"project_id": caller.project_id, "user_id": caller.user_id, "tenant_id": caller.project_id}
                known = {key: value for key, value in own.items() if value is not None}
                assert found["allowed"] is rules.check(rule, known, caller.credentials), (user, rule)


def test_who_or_what_there_is_not(running: Running) -> None:
    for wrong in ({"user": "nobody"}, {"reference": "nowhere"}, {"reference": "admin"}, {"rule": "identity:unheard_of"}, {"service": "image"}):
        question = {"rule": "identity:list_users", "service": None, "user": "demo", "scope": "project", "reference": "demo", "target": {}, **wrong}
        with pytest.raises(NotFound):
            program.QUESTIONS["policy"](running.cloud, question)
    with running.http() as admin:
        domain = admin.post(f"{V3}/domains", json={"domain": {"name": "twin"}}).json()["domain"]["id"]
        admin.post(f"{V3}/users", json={"user": {"name": "demo", "domain_id": domain}})
    with pytest.raises(Conflict, match="Several"):
        ask(running, "identity:list_users")
