"""The rule language against tables and against oslo.policy itself; then files, refusals, refresh and cost."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_policy import policy as oslo

from nacre.core.policy import Policy, PolicyError

CREDENTIALS: dict[str, Any] = {
    "user_id": "u1", "project_id": "p1", "domain_id": None, "is_admin": True, "number": 5, "roles": ["Member", "reader", "compute:x"],
    "system_scope": "all", "groups": ["g1", "g2"], "none": None, "text": "abc", "catalog": [{"type": "a"}, {"type": "b"}],
    "token": {"project": {"id": "p1", "tags": ["x", "y"]}, "user": None}, "odd": [["deep"]], "pair": ("a", "b"),
}  # fmt: skip
TARGET: dict[str, Any] = {
    "user_id": "u1", "project_id": "p2", "target.user.id": "u1", "none": None, "yes": True, "role": "READER", "name": "x", "five": 5,
    "group": "g2", "nested": {"id": "u1"}, "percent": "50%", "pair": ("a", "b"),
}  # fmt: skip


class Failures(logging.Handler):
    """What oslo.policy complained about: it denies what it cannot parse and only says so in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Failed to understand rule")


@pytest.fixture(scope="module")
def failures() -> Iterator[Failures]:
    handler, log = Failures(), logging.getLogger("oslo_policy._parser")
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)
    log.propagate = propagate


@pytest.fixture(scope="module")
def enforcer() -> oslo.Enforcer:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    return oslo.Enforcer(conf, use_conf=False)


def upstream(enforcer: oslo.Enforcer, rules: Mapping[str, Any], rule: str, target: Mapping[str, Any], creds: Mapping[str, Any]) -> bool:
    enforcer.set_rules(oslo.Rules.from_dict(dict(rules), "default"), overwrite=True, use_conf=False)
    return bool(enforcer.enforce(rule, target, dict(creds)))


YES = [
    "", "@", "role:member", "role:MEMBER", "ROLE:x or role:member", "role:%(role)s", "user_id:%(user_id)s", "user_id:%(target.user.id)s",
    "is_admin:True", "system_scope:all", "system:all", "number:5", "number:%(five)s", "'x':%(name)s", '"x":%(name)s', "True:%(yes)s",
    "None:%(none)s", "domain_id:None", "domain_id:%(none)s", "token.project.id:p1", "token.project.tags:y", "groups:%(group)s",
    "catalog.type:b", "5:%(five)s", "not role:admin", "not not @", "@ or ! and !", "(@ or !) and @", "NOT ! AND @", "((role:reader))",
    "not (! or !)", "role:a or (role:member and (role:reader))", "rule:yes", "not rule:no", "not rule:missing", "user_id:u%(missing)s or @",
    "none:None", "text:abc", "odd:['deep']", "pair:%(pair)s", "'50%':%(percent)s", "'a%b':a%%b",
    "role:mem%%ber or @", "role:compute:x",
]  # fmt: skip
NO = [
    "!", "role:admin", "Role:member", "role:%(name)s", "role:%(missing)s", "user_id:%(project_id)s", "user_id:%(nested.id)s", "rule:no",
    "user_id:%(missing)s", "True:%(missing)s", "missing:x", "missing.deeper:x", "token.project.missing:x", "is_admin:true", "@ and !",
    "! or ! or !", "@ and @ and !", "role:member and not role:reader", "rule:missing", "not (@ and @)", "@ and (! or !)", "user_id:U1",
    "groups:g3", "user_id.id:u1", "role:", "user_id:", "odd:deep", "not @ or !", "! and @ or !",
]  # fmt: skip
AROUND = {"yes": "rule:also", "also": "role:member", "no": "!"}


@pytest.mark.parametrize(("expression", "verdict"), [*((each, True) for each in YES), *((each, False) for each in NO)])
def test_expressions(expression: str, verdict: bool, enforcer: oslo.Enforcer, failures: Failures) -> None:
    rules = {**AROUND, "asked": expression}
    assert Policy(rules).check("asked", TARGET, CREDENTIALS) is verdict
    if expression == "user_id.id:u1":  # walking into a text: a TypeError there, a missing credential here
        return
    before = failures.count
    assert upstream(enforcer, rules, "asked", TARGET, CREDENTIALS) is verdict
    assert failures.count == before


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ([], True),
        ([[]], False),
        ([[], ["@"]], True),
        ([["role:member", "role:reader"], ["role:admin"]], True),
        ([["role:member", "role:admin"], ["role:nobody"]], False),
        (["role:admin", "role:member"], True),
        (["rule:no", ["rule:yes", "!"]], False),
        ([["not role:member"]], False),
    ],
)
def test_old_list_form(expression: Any, verdict: bool, enforcer: oslo.Enforcer, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"asked": expression}))
    assert Policy(AROUND, [tmp_path / "policy.json"]).check("asked", TARGET, CREDENTIALS) is verdict
    assert upstream(enforcer, {**AROUND, "asked": expression}, "asked", TARGET, CREDENTIALS) is verdict


@pytest.mark.parametrize("rules", [{"a": "!"}, {"default": "role:member"}, {"default": "!"}, {"default": "rule:a", "a": "@"}, {}])
def test_unknown_rule_is_default_or_no(rules: dict[str, str], enforcer: oslo.Enforcer) -> None:
    wanted = rules.get("default", "!") != "!"
    assert Policy(rules).check("unheard", {}, CREDENTIALS) is wanted
    assert upstream(enforcer, rules, "unheard", {}, CREDENTIALS) is wanted
    refer = {**rules, "refers": "rule:unheard"}
    assert Policy(refer).check("refers", {}, CREDENTIALS) is wanted
    assert upstream(enforcer, refer, "refers", {}, CREDENTIALS) is wanted


@pytest.mark.parametrize(
    ("expression", "position", "reason"),
    [
        ("role:a role:b", 8, "'role:b' where and, or, or the end should stand"),
        ("role:a and", 11, "it ends where a check should stand"),
        ("and role:a", 1, "'and' where a check"),
        ("or role:a", 1, "'or' where a check"),
        ("(role:a", 8, "it ends where and, or, or )"),
        ("role:a )", 8, "')' where and, or, or the end"),
        ("()", 2, "')' where a check"),
        ("not", 4, "it ends where a check"),
        (" ", 2, "it ends where a check"),
        ("@ or admin", 6, "'admin' is no check"),
        ("role:a or ('quoted')", 12, "no check"),
        ("@ or 'quoted'", 6, "quoted word"),
        ("@ and http://example.org/%(x)s", 7, "http: checks are not supported"),
        ("https://example.org", 1, "https: checks are not supported"),
        ("user_id:%(x)", 1, "the only substitution is %(key)s"),
        ("role:%(x)d", 1, "the only substitution is %(key)s"),
        ("role:100%", 1, "the only substitution is %(key)s"),
        ("@ or 1x:y", 6, "neither a credential's name nor a literal"),
        (":y", 1, "neither a credential's name nor a literal"),
        ("(" * 5000 + "@" + ")" * 5000, None, "nested too deeply"),
    ],
)
def test_refused_with_rule_and_position(expression: str, position: int | None, reason: str) -> None:
    with pytest.raises(PolicyError, match="built-in defaults") as refused:
        Policy({"fine": "@", "os:broken": expression})
    assert (refused.value.rule, refused.value.position) == ("os:broken", position)
    assert reason in str(refused.value)
    assert '"os:broken"' in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "circle"),
    [
        ({"a": "rule:a"}, "a -> a"),
        ({"x": "rule:a", "a": "role:m or not rule:b", "b": "rule:c and @", "c": "(rule:a)"}, "a -> b -> c -> a"),
        ({"default": "rule:gone"}, "default -> default"),
    ],
)
def test_cycles_are_refused_by_name(rules: dict[str, str], circle: str) -> None:
    with pytest.raises(PolicyError, match=f"refers to itself: {circle}$"):
        Policy(rules)


def test_the_same_rule_twice_is_no_cycle() -> None:
    assert Policy({"a": "rule:b and rule:b or rule:c", "b": "rule:c", "c": "@"}).check("a", {}, {})


def test_credentials_that_cannot_be_walked_are_missing() -> None:
    rules = {"none": "none.id:x", "text": "text.id:x", "not": "not none.id:x", "list": "odd.id:x", "roles": "role:x"}
    verdicts = {name: Policy(rules).check(name, {}, {**CREDENTIALS, "roles": None}) for name in rules}
    assert verdicts == {"none": False, "text": False, "not": True, "list": False, "roles": False}


# Random trees

NAMES = ["user_id", "project_id", "roles", "system_scope", "system", "a", "a.b", "a.b.c", "is_admin"]
VALUES = st.sampled_from(["u1", "u2", "None", "True", "all", "5", "", None, True, False, 5, "admin", "Admin"])
WORDS = st.sampled_from(["u1", "u2", "None", "True", "all", "5", "", "admin", "ADMIN", "u%%", "%%(a)s"])
KEYS = st.sampled_from([*NAMES, "gone"])
MATCHES = st.one_of(WORDS, st.builds("%({})s".format, KEYS), st.builds("u%({})s".format, KEYS))
KINDS = st.sampled_from([*NAMES, "gone", "a.gone", "role", "'u1'", '"u2"', "True", "None", "5", "'None'", "(1,2)", "-5"])
ATOMS = st.one_of(
    st.sampled_from(["@", "!"]),
    st.builds("{}:{}".format, KINDS.filter(lambda kind: kind[0] != "("), MATCHES),
    st.builds("role:{}".format, MATCHES),
    st.builds("rule:r{}".format, st.integers(0, 5)),
)
CASES = st.sampled_from([str.lower, str.upper, str.title])


def joined(parts: list[str], word: str, case: Callable[[str], str]) -> str:
    return f" {case(word)} ".join(parts)


EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(["and", "or"]), CASES),
        st.builds(lambda part, case: f"{case('not')} {part}", inner, CASES),
        st.builds("({})".format, inner),
        st.builds("( {} )".format, inner),
    ),
    max_leaves=12,
)
LISTS = st.lists(st.one_of(ATOMS, st.lists(ATOMS, max_size=3)), max_size=3)
NESTED = st.recursive(VALUES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("bc"), inner)), max_leaves=6)
ROLES = st.lists(st.sampled_from(["admin", "Admin", "u1", "none", "uu1"]), max_size=3)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Rules r0..r4 in an order of reference, so without cycles; r5 is never defined."""
    table: dict[str, Any] = {}
    for number in range(5):
        expression = draw(st.one_of(EXPRESSIONS, EXPRESSIONS, LISTS))
        text = json.dumps(expression)
        for higher in range(number, 5):
            text = text.replace(f"rule:r{higher}", f"rule:r{number - 1}" if number else "rule:r5")
        table[f"r{number}"] = json.loads(text)
    if draw(st.booleans()):
        table["default"] = draw(st.sampled_from(["!", "@", "role:admin"]))
    return table


@st.composite
def credentials(draw: st.DrawFn) -> dict[str, Any]:
    found = draw(st.dictionaries(st.sampled_from([name for name in NAMES if "." not in name and name != "roles"]), NESTED))
    return {**found, **({"roles": draw(ROLES)} if draw(st.booleans()) else {})}


TARGETS = st.dictionaries(st.sampled_from(NAMES), st.one_of(VALUES, NESTED), max_size=6)


@settings(max_examples=500, deadline=None)
@given(tables(), TARGETS, credentials())
@example({"r0": "a.b:%(a.b)s"}, {"a.b": None}, {"a": [{"b": [None]}]})
@example({"r0": "system:all"}, {}, {"system_scope": "all", "system": "other"})
def test_same_verdicts_as_oslo_policy(enforcer: oslo.Enforcer, rules: dict[str, Any], target: dict[str, Any], creds: dict[str, Any]) -> None:
    policy = Policy(rules)
    for rule, expression in rules.items():
        try:
            wanted = upstream(enforcer, rules, rule, target, creds)
        except TypeError:  # a credential that cannot be walked
            assert policy.check(rule, target, creds) in (True, False)
        else:
            assert policy.check(rule, target, creds) is wanted, (rule, expression)


SOUP = st.lists(st.sampled_from(["@", "!", "role:admin", "and", "or", "not", "(", ")", "'x'", "x", "u:1", " "]), max_size=9)


@settings(max_examples=1000, deadline=None)
@given(SOUP, st.sampled_from([" ", " ", "  ", "\t\n"]))
def test_refuses_exactly_what_oslo_policy_cannot_parse(enforcer: oslo.Enforcer, failures: Failures, words: list[str], space: str) -> None:
    expression = space.join(words).replace("( ", "(").replace(" )", ")")
    assume(not expression or expression.strip())
    before = failures.count
    verdict = upstream(enforcer, {"asked": expression}, "asked", {}, {"roles": ["admin"]})
    try:
        policy = Policy({"asked": expression})
    except PolicyError:
        assert failures.count > before
    else:
        assert failures.count == before
        assert policy.check("asked", {}, {"roles": ["admin"]}) is verdict


# Files

REAL_YAML = """\
# Who may what
"volume:create": "rule:owner"   # a comment
'volume:get': 'role:reader or
  rule:owner'
volume:delete: role:admin or (user_id:%(user_id)s)
"volume:list": >
  role:reader and
  not role:guest
"volume:copy":
  - [role:reader, "rule:owner"]
  - role:admin
"""


def test_overrides_in_real_yaml_as_upstream_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(REAL_YAML)
    defaults = {"owner": "project_id:%(project_id)s", "volume:create": "!", "volume:get": "!", "volume:show": "role:reader"}
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    enforcer = oslo.Enforcer(conf, policy_file=str(path))
    enforcer.register_defaults([oslo.RuleDefault(name, text) for name, text in defaults.items()])
    policy = Policy(defaults, [path])
    verdicts = []
    for rule in ("create", "get", "delete", "list", "copy", "show", "unknown"):
        for project in ("p1", "p2"):
            for roles in (["admin"], ["reader"], ["reader", "guest"]):
                asked = (f"volume:{rule}", {"project_id": project, "user_id": "u2"}, {"project_id": "p1", "user_id": "u1", "roles": roles})
                verdicts.append(policy.check(*asked))
                assert verdicts[-1] is enforcer.enforce(*asked), asked
    assert 5 < sum(verdicts) < len(verdicts) - 5


def test_later_files_win_and_missing_ones_override_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "policy.yaml", tmp_path / "more.json"
    first.write_text('"a": "@"\n"b": "@"\n')
    second.write_text('{"b": "!"}')
    policy = Policy({"a": "!", "b": "!", "c": "@"}, [first, second, tmp_path / "none.yaml"])
    assert [policy.check(rule, {}, {}) for rule in "abc"] == [True, False, True]


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        (b'"a": "@"\n"b": "role:x and"\n', ':2: rule "b": at character 11:', "it ends"),
        (b'"a": "@\n', ":2:1:", "unexpected end of stream"),
        (b'"a": @', ":1:6:", "cannot start any token"),
        (b"\n- a\n", ":2:", "is a mapping of rule names"),
        (b'"a":\n', ':1: rule "a":', "allows everybody"),
        (b'"a": !\n', ':1: rule "a":', "allows everybody"),
        (b'"a": true\n', ':1: rule "a":', "a rule is a text"),
        (b'"a": {b: c}\n', ':1: rule "a":', "a rule is a text"),
        (b'"a": [[[role:b]]]\n', ':1: rule "a":', "a rule is a text"),
        (b'"a": [[role:b, http://x]]\n', ':1: rule "a": at character 1:', "http: checks"),
        (b"true: role:x\n", ":1:", "name is a text"),
        (b'"a": "\xff"', ":", "codec can't decode"),
        (b'"a": "@"\n---\n"b": "@"', ":2:1:", "another document"),
        (b'"a": "rule:base"\n"base": "rule:a"', ':2: rule "base":', "base -> a -> base"),
        (b"[" * 3000, ":", ""),
    ],
)
def test_a_broken_file_is_refused_at_start(content: bytes, place: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as refused:
        Policy({"base": "@"}, [path])
    assert str(refused.value).startswith(f"{path}{place}")
    assert reason in str(refused.value)


def test_a_folder_is_no_policy_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="directory"):
        Policy({}, [tmp_path])


def test_refresh_takes_changes_and_keeps_the_last_good_rules(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policy.yaml"
    policy = Policy({"a": "!"}, [path])

    def now() -> bool:
        policy.refresh()
        return policy.check("a", {}, {})

    assert now() is False
    path.write_text('"a": "@"')
    assert policy.check("a", {}, {}) is False
    assert now() is True
    path.write_text('"a": "role:x or"')
    caplog.clear()
    assert [now(), now(), now()] == [True, True, True]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        f'policy change refused, the rules before it stay in force: {path}:1: rule "a": at character 10: it ends where a check should stand'
    ]
    path.write_text('"a": "!"')
    assert now() is False
    other = tmp_path / "new"
    other.write_text('"a": "@"')
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert now() is True
    path.unlink()
    assert now() is False


def test_an_override_that_nothing_asks_for_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text('"get_sever": "@"\n"helper": "@"\n"get_server": "rule:helper"\n"default": "!"\n')
    Policy({"get_server": "!"}, [path])
    assert [record.message for record in caplog.records] == [f"{path}:1: nothing asks for the rule 'get_sever'"]


def test_checks_and_refreshes_in_several_threads(tmp_path: Path) -> None:
    path, stop, wrong = tmp_path / "policy.yaml", threading.Event(), []
    policy = Policy({"same": "rule:a and rule:b or not rule:a and not rule:b", "a": "!", "b": "!"}, [path])

    def ask() -> None:
        while not stop.wait(0.0005):
            policy.refresh()
            if not policy.check("same", {}, {}):
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        new = tmp_path / "new"
        new.write_text('"a": "@"\n"b": "@"\n' if turn % 2 else '"a": "!"\n"b": "!"\n')
        new.rename(path)
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    policy.refresh()
    assert not wrong
    assert policy.check("a", {}, {}) is True


# The network service's own kind of check, which oslo.policy has no oracle for


@pytest.mark.parametrize(
    ("expression", "target", "allowed"),
    [
        ("field:networks:shared=True", {"shared": True}, True),
        ("field:networks:shared=True", {"shared": False}, False),
        ("field:networks:shared=True", {}, False),
        ("field:networks:router:external=True", {"router:external": True}, True),
        ("not field:port:device_owner=~^network:", {"device_owner": "network:dhcp"}, False),
        ("not field:port:device_owner=~^network:", {"device_owner": "compute:nova"}, True),
    ],
)
def test_a_field_check_reads_the_target(expression: str, target: dict[str, object], allowed: bool) -> None:
    assert Policy({"asked": expression}).check("asked", target, {}) is allowed


@pytest.mark.parametrize("expression", ["field:shared", "field:networks:shared", "field:port:device_owner=~["])
def test_a_field_check_that_cannot_be_meant_is_refused(expression: str) -> None:
    with pytest.raises(PolicyError):
        Policy({"asked": expression})
