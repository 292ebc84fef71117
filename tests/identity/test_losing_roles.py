"""Every way in which a user loses a role in a project: tokens and application credentials count no more at the next request, in every API
process, and what comes back with the role is what upstream says."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from conftest import Running
from identity.people import V3, Person, token, with_token
from nacre import program

GONE, BACK = 401, 201
ENDED, GOOD = 401, 200


@pytest.fixture(scope="module")
def other(running: Running) -> Iterator[TestClient]:
    """A second API process, as far as what it remembers goes."""
    second = dataclasses.replace(running.cloud, memory={})
    with TestClient(program.app(second), base_url=running.url) as client:
        yield client


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@dataclasses.dataclass
class Place:
    """A domain with a project in a project, a user and a group; `role` is made for the case."""

    admin: httpx.Client
    name: str
    domain: str = ""
    above: str = ""
    project: str = ""
    user: str = ""
    group: str = ""
    role: str = ""

    def __post_init__(self) -> None:
        self.domain = self.made("domain", domain=False)
        self.above = self.made("project")
        self.project = self.made("project", parent_id=self.above, name=f"{self.name}-below")
        self.user, self.group, self.role = self.made("user", password="pw"), self.made("group"), self.made("role", domain=False)

    def made(self, word: str, *, domain: bool = True, **said: Any) -> str:
        body = {"name": self.name, **({"domain_id": self.domain} if domain else {}), **said}
        return str(self.ask("POST", f"{word}s", {word: body})[word]["id"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.admin.request(method, f"{V3}/{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def grant(self, actor: str, *, inherited: str = "") -> str:
        """The address of a grant to the user or group, on the project or inherited from domain or parent."""
        who = f"{actor}s/{self.user if actor == 'user' else self.group}/roles/{self.role}"
        if not inherited:
            return f"projects/{self.project}/{who}"
        where = f"domains/{self.domain}" if inherited == "domain" else f"projects/{self.above}"
        return f"OS-INHERIT/{where}/{who}/inherited_to_projects"


Step = Callable[[Place], Any]


@dataclasses.dataclass
class Way:
    """`give` it and `take` it; what a sign-in with the application credential, and the old token, are worth when it is given again."""

    give: list[Step]
    take: Step
    again: Step
    program: int
    old: int


def put(path: Callable[[Place], str]) -> Step:
    return lambda place: place.ask("PUT", path(place))


def delete(path: Callable[[Place], str]) -> Step:
    return lambda place: place.ask("DELETE", path(place))


def enable(word: str, which: str, *, enabled: bool) -> Step:
    return lambda place: place.ask("PATCH", f"{word}s/{getattr(place, which)}", {word: {"enabled": enabled}})


def granted(actor: str, inherited: str, worth: int) -> Way:
    at = lambda place: place.grant(actor, inherited=inherited)  # noqa: E731
    inside = [put(lambda place: f"groups/{place.group}/users/{place.user}")] if actor == "group" else []
    return Way([*inside, put(at)], delete(at), put(at), worth, GOOD)


def by_group(place: Place) -> str:
    return place.grant("group")


def member(place: Place) -> str:
    return f"groups/{place.group}/users/{place.user}"


def direct(place: Place) -> str:
    return place.grant("user")


def implied(place: Place) -> str:
    """The role that was made implies that one."""
    found = place.ask("GET", "roles?name=manager")["roles"][0]["id"]
    return f"roles/{place.role}/implies/{found}"


WAYS = {
    "grant": granted("user", "", GONE),
    "grant from the parent": granted("user", "project", GONE),
    "grant from the domain": granted("user", "domain", GONE),
    "group's grant": granted("group", "", BACK),
    "group's grant from the parent": granted("group", "project", BACK),
    "group's grant from the domain": granted("group", "domain", BACK),
    "membership": Way([put(by_group), put(member)], delete(member), put(member), BACK, GOOD),
    "group": Way([put(by_group), put(member)], delete(lambda place: f"groups/{place.group}"), put(direct), BACK, GOOD),
    "role": Way([put(direct)], delete(lambda place: f"roles/{place.role}"), lambda place: None, GONE, ENDED),
    "implication": Way([put(direct), put(implied)], delete(implied), put(implied), BACK, GOOD),
    "project": Way([put(direct)], enable("project", "project", enabled=False), enable("project", "project", enabled=True), BACK, GOOD),
    "project deleted": Way([put(direct)], delete(lambda place: f"projects/{place.project}"), lambda place: None, GONE, ENDED),
    "domain": Way([put(direct)], enable("domain", "domain", enabled=False), enable("domain", "domain", enabled=True), BACK, GOOD),
    "user": Way([put(direct)], enable("user", "user", enabled=False), enable("user", "user", enabled=True), BACK, ENDED),
    "user deleted": Way([put(direct)], delete(lambda place: f"users/{place.user}"), lambda place: None, GONE, ENDED),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_what_is_taken_counts_no_more_at_once_and_everywhere(running: Running, other: TestClient, admin: httpx.Client, name: str) -> None:
    way, place = WAYS[name], Place(admin, f"by {name}")
    for step in way.give:
        step(place)
    own = token(Person(running, place.name, place.user, place.project).login())
    wanted = {"application_credential": {"name": "all"}}
    made = with_token(running, own).post(f"{V3}/users/{place.user}/application_credentials", json=wanted).json()["application_credential"]
    said = {"id": made["id"], "secret": made["secret"]}
    body = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": said}}}
    with httpx.Client(base_url=running.url, timeout=30) as one:

        def signs_in() -> set[int]:
            return {process.post(f"{V3}/auth/tokens", json=body).status_code for process in (one, other)}

        def worth(text: str) -> set[int]:
            return {process.get(f"{V3}/auth/catalog", headers={"x-auth-token": text}).status_code for process in (one, other)}

        programs = token(one.post(f"{V3}/auth/tokens", json=body))
        assert (signs_in(), worth(own), worth(programs)) == ({201}, {200}, {200})
        way.take(place)
        assert (signs_in(), worth(own), worth(programs)) == ({401}, {200 if name == "implication" else 401}, {401})
        way.again(place)
        assert (signs_in(), worth(own)) == ({way.program}, {way.old})
