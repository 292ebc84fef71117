"""The table of routes of identity."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from nacre.core.errors import Error
from nacre.core.http import PUBLIC, SIGNED, Route, Service
from nacre.identity import bodies
from nacre.identity.api import app_credentials, auth, directory, ec2, grants
from nacre.identity.bodies import Open
from nacre.identity.bodies.app_credentials import NEW as NEW_APP_CREDENTIAL
from nacre.identity.bodies.auth import AUTH
from nacre.identity.bodies.ec2 import ASKED as SIGNED_REQUEST
from nacre.identity.bodies.ec2 import NEW as NEW_KEY
from nacre.identity.rules import RULES
from nacre.identity.service import catalog, credentials, domains, groups, projects, roles, trusts, users
from nacre.identity.service.credentials import CREDENTIALS
from nacre.identity.service.directory import DOMAINS, ENDPOINTS, GROUPS, POLICIES, PROJECTS, REGIONS, ROLES, SERVICES, USERS, Kind
from nacre.identity.service.trusts import TRUSTS

Shape = type[msgspec.Struct]
Verb = Callable[..., Any]


def _read(kind: Kind, listed: Verb | None = None, found: Verb | None = None) -> Iterator[Route]:
    yield Route("GET", kind.address, directory.lister(kind, listed), f"identity:list_{kind.plural}")
    yield Route("GET", f"{kind.address}/{{id}}", directory.shower(kind, found), f"identity:get_{kind.word}")


def _write(kind: Kind, verbs: tuple[Verb, Verb, Verb], new: Shape, change: Shape) -> Iterator[Route]:
    create, update, delete = verbs
    at, word = f"{kind.address}/{{id}}", kind.word
    yield Route("POST", kind.address, directory.creator(kind, create), f"identity:create_{word}", Open(word, new), 201)
    yield Route("PATCH", at, directory.changer(kind, update), f"identity:update_{word}", Open(word, change))
    yield Route("DELETE", at, directory.remover(delete), f"identity:delete_{word}", status=204)


def _grants(actor: str, scope: str) -> Iterator[Route]:
    place = "system" if scope == "system" else f"{scope}s/{{scope_id}}"
    at = f"/v3/{place}/{actor}s/{{actor_id}}/roles"

    def rule(verb: str, many: str = "") -> str:
        return f"identity:{verb}_system_grant{many}_for_{actor}" if scope == "system" else f"identity:{verb}_grant{many}"

    yield Route("GET", at, grants.lister(actor, scope), rule("list", "s"))
    yield Route("GET", f"{at}/{{role_id}}", grants.doer(roles.check, actor, scope), rule("check"), status=204)
    yield Route("PUT", f"{at}/{{role_id}}", grants.doer(roles.grant, actor, scope), rule("create"), status=204)
    yield Route("DELETE", f"{at}/{{role_id}}", grants.doer(roles.revoke, actor, scope), rule("revoke"), status=204)


def _of(verb: Verb, kind: Kind) -> Verb:
    """A verb of several kinds, for one of them."""
    return lambda caller, *rest: verb(caller, kind, *rest)


_APPS, _RULES = "/v3/users/{user_id}/application_credentials", "/v3/users/{user_id}/access_rules"
_KEYS = "/v3/users/{user_id}/credentials/OS-EC2"
_MEMBER, _TRUST = "/v3/groups/{id}/users/{user_id}", f"{TRUSTS.address}/{{id}}"
ROUTES = (
    Route("GET", "/", directory.root, PUBLIC),
    Route("GET", "/v3", directory.v3, PUBLIC),
    Route("POST", "/v3/auth/tokens", auth.issue, PUBLIC, body=AUTH, status=201),
    Route("GET", "/v3/auth/tokens", auth.show, "identity:validate_token"),
    Route("HEAD", "/v3/auth/tokens", auth.show, "identity:check_token"),
    Route("DELETE", "/v3/auth/tokens", auth.revoke, "identity:revoke_token", status=204),
    Route("GET", "/v3/auth/catalog", auth.catalog, "identity:get_auth_catalog"),
    Route("GET", "/v3/auth/projects", auth.projects, "identity:get_auth_projects"),
    Route("GET", "/v3/auth/domains", auth.domains, "identity:get_auth_domains"),
    Route("GET", "/v3/auth/system", auth.system, "identity:get_auth_system"),
    *(route for kind in (DOMAINS, PROJECTS, USERS, GROUPS, ROLES, REGIONS, SERVICES, ENDPOINTS, POLICIES) for route in _read(kind)),
    *_write(DOMAINS, (domains.create, domains.update, domains.delete), bodies.NewDomain, bodies.DomainChange),
    *_write(PROJECTS, (projects.create, projects.update, projects.delete), bodies.NewProject, bodies.ProjectChange),
    *_write(USERS, (users.create, users.update, users.delete), bodies.NewUser, bodies.UserChange),
    *_write(GROUPS, (groups.create, groups.update, groups.delete), bodies.NewGroup, bodies.GroupChange),
    *_write(ROLES, (roles.create, roles.update, roles.delete), bodies.NewRole, bodies.RoleChange),
    *_write(REGIONS, (catalog.create_region, catalog.update_region, catalog.delete_region), bodies.Region, bodies.Region),
    Route("PUT", "/v3/regions/{id}", directory.changer(REGIONS, catalog.put_region), "identity:create_region", Open("region", bodies.Region), 201),
    *_write(SERVICES, (catalog.create_service, _of(catalog.update, SERVICES), _of(catalog.delete, SERVICES)),
            bodies.NewService, bodies.ServiceChange),
    *_write(ENDPOINTS, (catalog.create_endpoint, catalog.update_endpoint, _of(catalog.delete, ENDPOINTS)),
            bodies.NewEndpoint, bodies.EndpointChange),
    *_write(POLICIES, (catalog.create_policy, _of(catalog.update, POLICIES), _of(catalog.delete, POLICIES)),
            bodies.NewPolicy, bodies.PolicyChange),
    *_read(CREDENTIALS, credentials.listed, credentials.find),
    *_write(CREDENTIALS, (credentials.create, credentials.update, credentials.delete), bodies.NewCredential, bodies.CredentialChange),
    Route("GET", "/v3/users/{id}/projects", directory.projects_of_user, "identity:list_user_projects"),
    Route("GET", "/v3/users/{id}/groups", directory.groups_of_user, "identity:list_groups_for_user"),
    Route("POST", "/v3/users/{id}/password", directory.change_password, SIGNED, Open("user", bodies.NewPassword), 204),
    Route("GET", "/v3/groups/{id}/users", directory.users_of_group, "identity:list_users_in_group"),
    Route("GET", _MEMBER, directory.check_in_group, "identity:check_user_in_group", status=204),
    Route("PUT", _MEMBER, directory.add_to_group, "identity:add_user_to_group", status=204),
    Route("DELETE", _MEMBER, directory.remove_from_group, "identity:remove_user_from_group", status=204),
    Route("GET", "/v3/role_assignments", grants.assignments, "identity:list_role_assignments"),
    *(route for actor in ("user", "group") for scope in ("project", "domain", "system") for route in _grants(actor, scope)),
    Route("GET", TRUSTS.address, directory.lister(TRUSTS, trusts.listed), "identity:list_trusts"),
    Route("POST", TRUSTS.address, directory.create_trust, "identity:create_trust", Open("trust", bodies.NewTrust), 201),
    Route("GET", _TRUST, directory.show_trust, "identity:get_trust"),
    Route("DELETE", _TRUST, directory.remover(trusts.delete), "identity:delete_trust", status=204),
    Route("GET", f"{_TRUST}/roles", directory.roles_of_trust, "identity:list_roles_for_trust"),
    Route("GET", f"{_TRUST}/roles/{{role_id}}", directory.role_of_trust, "identity:get_role_for_trust"),
    Route("GET", _APPS, app_credentials.listed, "identity:list_application_credentials"),
    Route("POST", _APPS, app_credentials.create, "identity:create_application_credential", NEW_APP_CREDENTIAL, 201),
    Route("GET", f"{_APPS}/{{id}}", app_credentials.show, "identity:get_application_credential"),
    Route("DELETE", f"{_APPS}/{{id}}", app_credentials.delete, "identity:delete_application_credential", status=204),
    Route("GET", _KEYS, ec2.listed, "identity:ec2_list_credentials"),
    Route("POST", _KEYS, ec2.create, "identity:ec2_create_credential", NEW_KEY, 201),
    Route("GET", f"{_KEYS}/{{access}}", ec2.show, "identity:ec2_get_credential"),
    Route("DELETE", f"{_KEYS}/{{access}}", ec2.delete, "identity:ec2_delete_credential", status=204),
    Route("POST", "/v3/ec2tokens", ec2.token, "identity:ec2tokens_validate", SIGNED_REQUEST),
    Route("POST", "/v3/s3tokens", ec2.token_of_text, "identity:s3tokens_validate", SIGNED_REQUEST),
    Route("GET", _RULES, app_credentials.rules, "identity:list_access_rules"),
    Route("GET", f"{_RULES}/{{id}}", app_credentials.show_rule, "identity:get_access_rule"),
    Route("DELETE", f"{_RULES}/{{id}}", app_credentials.delete_rule, "identity:delete_access_rule", status=204),
)  # fmt: skip

_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict",
           413: "Request Entity Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


def render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "title": _TITLES.get(error.code, error.name)}}


SERVICE = Service(name="identity", type="identity", title="keystone", prefix="/identity", routes=ROUTES, rules=RULES, render_error=render_error)
