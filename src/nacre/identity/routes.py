"""The table of routes of identity."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from nacre.core.errors import Error
from nacre.core.http import PUBLIC, SIGNED, Route, Service
from nacre.core.versions import Body
from nacre.identity import bodies
from nacre.identity.api import app_credentials, auth, directory, ec2, endpoint_filter, grants, limits
from nacre.identity.bodies import Open
from nacre.identity.bodies.app_credentials import NEW as NEW_APP_CREDENTIAL
from nacre.identity.bodies.auth import AUTH
from nacre.identity.bodies.ec2 import ASKED as SIGNED_REQUEST
from nacre.identity.bodies.ec2 import NEW as NEW_KEY
from nacre.identity.rules import RULES
from nacre.identity.service import acting, catalog, credentials, domains, groups, roles, tags, trusts, users
from nacre.identity.service import endpoint_filter as shown
from nacre.identity.service import limits as limited
from nacre.identity.service.credentials import CREDENTIALS
from nacre.identity.service.directory import DOMAINS, ENDPOINTS, GROUPS, POLICIES, PROJECTS, REGIONS, ROLES, SERVICES, USERS, Kind
from nacre.identity.service.endpoint_filter import GROUPS as GROUPS_OF_ENDPOINTS
from nacre.identity.service.limits import LIMITS, REGISTERED
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


def _limits(kind: Kind, verbs: tuple[Verb, Verb, Verb], new: Shape, change: Shape) -> Iterator[Route]:
    create, update, delete = verbs
    at, word = f"{kind.address}/{{id}}", kind.word
    yield Route("POST", kind.address, limits.creator(kind, create), f"identity:create_{kind.plural}", Body(None, new, lax=False), 201)
    yield Route("PATCH", at, limits.changer(kind, update), f"identity:update_{word}", Body(word, change, lax=False))
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


def _inherited(actor: str, scope: str) -> Iterator[Route]:
    """Grants on what is in a domain or below a project."""
    at = f"/v3/OS-INHERIT/{scope}s/{{scope_id}}/{actor}s/{{actor_id}}/roles"
    if scope == "domain":
        yield Route("GET", f"{at}/inherited_to_projects", grants.lister(actor, scope, inherited=True), "identity:list_grants")
    for method, verb, word in (("GET", roles.check, "check"), ("PUT", roles.grant, "create"), ("DELETE", roles.revoke, "revoke")):
        does = grants.doer(verb, actor, scope, inherited=True)
        yield Route(method, f"{at}/{{role_id}}/inherited_to_projects", does, f"identity:{word}_grant", status=204)


def _filter() -> Iterator[Route]:
    """What projects' catalogs show."""
    at, project, group = "/v3/OS-EP-FILTER", "/v3/OS-EP-FILTER/projects", GROUPS_OF_ENDPOINTS.address
    yield from _read(GROUPS_OF_ENDPOINTS)
    yield from _write(GROUPS_OF_ENDPOINTS, (shown.create, shown.update, shown.delete), bodies.NewEndpointGroup, bodies.EndpointGroupChange)
    yield Route("GET", f"{at}/endpoints/{{id}}/projects", endpoint_filter.projects_of("endpoint"), "identity:list_projects_for_endpoint")
    yield Route("GET", f"{project}/{{id}}/endpoints", endpoint_filter.endpoints_of_project, "identity:list_endpoints_for_project")
    yield Route("GET", f"{project}/{{id}}/endpoint_groups", endpoint_filter.groups_of_project, "identity:list_endpoint_groups_for_project")
    yield Route("GET", f"{group}/{{id}}/endpoints", endpoint_filter.endpoints_of_group,
                "identity:list_endpoints_associated_with_endpoint_group")  # fmt: skip
    yield Route("GET", f"{group}/{{id}}/projects", endpoint_filter.projects_of("group"),
                "identity:list_projects_associated_with_endpoint_group")  # fmt: skip
    yield Route("GET", f"{group}/{{id}}/projects/{{project_id}}", endpoint_filter.show_group_of_project, "identity:get_endpoint_group_in_project")
    for what, one, words in (("endpoint", f"{project}/{{project_id}}/endpoints/{{id}}", "endpoint_{}_project"),
                             ("group", f"{group}/{{id}}/projects/{{project_id}}", "endpoint_group_{}_project")):  # fmt: skip
        if what == "endpoint":
            yield Route("GET", one, endpoint_filter.doer(shown.check, what), "identity:check_endpoint_in_project", status=204)
        for method, verb, word in (("PUT", shown.add, "add"), ("DELETE", shown.remove, "remove")):
            rule = f"identity:{word}_{words.format('to' if word == 'add' else 'from')}"
            yield Route(method, one, endpoint_filter.doer(verb, what), rule, status=204)


def _of(verb: Verb, kind: Kind) -> Verb:
    """A verb of several kinds, for one of them."""
    return lambda caller, *rest: verb(caller, kind, *rest)


_APPS, _RULES = "/v3/users/{user_id}/application_credentials", "/v3/users/{user_id}/access_rules"
_KEYS = "/v3/users/{user_id}/credentials/OS-EC2"
_MEMBER, _TRUST = "/v3/groups/{id}/users/{user_id}", f"{TRUSTS.address}/{{id}}"
_COMPLIANCE = f"{DOMAINS.address}/{{id}}/config/security_compliance"
_TAGS = f"{PROJECTS.address}/{{id}}/tags"
_IMPLIED = "/v3/roles/{id}/implies/{implied_id}"
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
    *_read(ROLES, roles.listed, roles.find),
    *_read(USERS, users.listed, users.find),
    *(route for kind in (DOMAINS, GROUPS, REGIONS, SERVICES, ENDPOINTS, POLICIES) for route in _read(kind)),
    *_write(DOMAINS, (domains.create, domains.update, domains.delete), bodies.NewDomain, bodies.DomainChange),
    Route("GET", PROJECTS.address, directory.lister(PROJECTS, acting.listed), "identity:list_projects"),
    Route("GET", f"{PROJECTS.address}/{{id}}", directory.show_project, "identity:get_project"),
    Route("GET", _COMPLIANCE, directory.password_rules, "identity:get_security_compliance_domain_config"),
    Route("GET", f"{_COMPLIANCE}/{{option}}", directory.password_rules, "identity:get_security_compliance_domain_config"),
    *_write(PROJECTS, (acting.create, acting.update, acting.delete), bodies.NewProject, bodies.ProjectChange),
    Route("GET", _TAGS, directory.tags_of, "identity:list_project_tags"),
    Route("PUT", _TAGS, directory.put_tags, "identity:update_project_tags", Body(None, bodies.Tags)),
    Route("DELETE", _TAGS, directory.remover(tags.clear), "identity:delete_project_tags", status=204),
    Route("GET", f"{_TAGS}/{{tag}}", directory.tagger(tags.check), "identity:get_project_tag", status=204),
    Route("PUT", f"{_TAGS}/{{tag}}", directory.tagger(tags.add), "identity:create_project_tag", status=201),
    Route("DELETE", f"{_TAGS}/{{tag}}", directory.tagger(tags.remove), "identity:delete_project_tag", status=204),
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
    Route("GET", "/v3/role_assignments", grants.assigned, "identity:list_role_assignments"),
    Route("GET", "/v3/role_inferences", grants.inferences, "identity:list_role_inference_rules"),
    Route("GET", "/v3/roles/{id}/implies", grants.implied_by, "identity:list_implied_roles"),
    Route("GET", _IMPLIED, grants.show_implied, "identity:get_implied_role"),
    Route("HEAD", _IMPLIED, grants.check_implied, "identity:check_implied_role", status=204),
    Route("PUT", _IMPLIED, grants.imply, "identity:create_implied_role", status=201),
    Route("DELETE", _IMPLIED, grants.end_implied, "identity:delete_implied_role", status=204),
    *(route for actor in ("user", "group") for scope in ("project", "domain") for route in _inherited(actor, scope)),
    *(route for actor in ("user", "group") for scope in ("project", "domain", "system") for route in _grants(actor, scope)),
    Route("GET", "/v3/limits/model", limits.model, "identity:get_limit_model"),
    *_read(REGISTERED, limited.listed_registered, limited.find_registered),
    *_limits(REGISTERED, (limited.register, limited.change_registered, limited.delete_registered),
             bodies.NewRegisteredLimits, bodies.RegisteredLimitChange),
    *_read(LIMITS, limited.listed, limited.find),
    *_limits(LIMITS, (limited.create, limited.change, limited.delete), bodies.NewLimits, bodies.LimitChange),
    *_filter(),
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
           413: "Request Entity Too Large", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


def render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "title": _TITLES.get(error.code, error.name)}}


SERVICE = Service(name="identity", type="identity", title="keystone", prefix="/identity", routes=ROUTES, rules=RULES, render_error=render_error)
