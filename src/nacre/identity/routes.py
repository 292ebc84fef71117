"""The table of routes of identity, and its rules under upstream's names and defaults."""

from typing import Any

from nacre.core.errors import Error
from nacre.core.http import PUBLIC, Route, Service
from nacre.identity import bodies
from nacre.identity.api import auth, directory
from nacre.identity.service.directory import DOMAINS, ENDPOINTS, PROJECTS, REGIONS, ROLES, SERVICES, USERS

_READER = "rule:admin_required or (role:reader and system_scope:all)"
RULES = {
    "admin_required": "role:admin or is_admin:1",
    "service_role": "role:service",
    "token_subject": "user_id:%(target.token.user_id)s",
    "identity:validate_token": f"{_READER} or rule:service_role or rule:token_subject",
    "identity:check_token": f"{_READER} or rule:service_role or rule:token_subject",
    "identity:revoke_token": "rule:admin_required or (role:admin and system_scope:all) or rule:token_subject",
    "identity:get_auth_catalog": "",
    "identity:get_auth_projects": "",
    "identity:get_auth_domains": "",
    "identity:get_auth_system": "",
    "identity:list_domains": f"{_READER} or (role:reader and domain_id:%(target.domain.id)s)",
    "identity:get_domain": f"{_READER} or token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s",
    "identity:list_projects": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:get_project": f"{_READER} or (role:reader and domain_id:%(target.project.domain_id)s) or project_id:%(target.project.id)s",
    "identity:list_user_projects": f"{_READER} or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:list_users": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:get_user": f"{_READER} or (role:reader and token.domain.id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:list_roles": f"{_READER} or role:manager",
    "identity:get_role": f"{_READER} or role:manager",
    "identity:list_role_assignments": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:list_regions": "",
    "identity:get_region": "",
    "identity:list_services": _READER,
    "identity:get_service": _READER,
    "identity:list_endpoints": _READER,
    "identity:get_endpoint": _READER,
}
_KINDS = (DOMAINS, PROJECTS, USERS, ROLES, REGIONS, SERVICES, ENDPOINTS)

ROUTES = (
    Route("GET", "/", directory.root, PUBLIC),
    Route("GET", "/v3", directory.v3, PUBLIC),
    Route("POST", "/v3/auth/tokens", auth.issue, PUBLIC, body=bodies.AUTH, status=201),
    Route("GET", "/v3/auth/tokens", auth.show, "identity:validate_token"),
    Route("HEAD", "/v3/auth/tokens", auth.show, "identity:check_token"),
    Route("DELETE", "/v3/auth/tokens", auth.revoke, "identity:revoke_token", status=204),
    Route("GET", "/v3/auth/catalog", auth.catalog, "identity:get_auth_catalog"),
    Route("GET", "/v3/auth/projects", auth.projects, "identity:get_auth_projects"),
    Route("GET", "/v3/auth/domains", auth.domains, "identity:get_auth_domains"),
    Route("GET", "/v3/auth/system", auth.system, "identity:get_auth_system"),
    Route("GET", "/v3/users/{id}/projects", directory.projects_of_user, "identity:list_user_projects"),
    Route("GET", "/v3/role_assignments", directory.role_assignments, "identity:list_role_assignments"),
    *(Route("GET", f"/v3/{kind.word}s", directory.lister(kind), f"identity:list_{kind.word}s") for kind in _KINDS),
    *(Route("GET", f"/v3/{kind.word}s/{{id}}", directory.shower(kind), f"identity:get_{kind.word}") for kind in _KINDS),
)

_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict",
           413: "Request Entity Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


def render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "title": _TITLES.get(error.code, error.name)}}


SERVICE = Service(name="identity", type="identity", title="keystone", prefix="/identity", routes=ROUTES, rules=RULES, render_error=render_error)
