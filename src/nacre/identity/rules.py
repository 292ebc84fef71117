"""Policy defaults of identity: upstream's rule names and expressions, for what is here."""

_ADMIN = "rule:admin_required"
_READER = "rule:admin_required or (role:reader and system_scope:all)"


def _of_domain(word: str) -> str:
    """The manager of a domain, for what is in it."""
    return f"{_ADMIN} or (role:manager and domain_id:%(target.{word}.domain_id)s)"


def _seen_in_domain(word: str) -> str:
    return f"{_READER} or (role:reader and domain_id:%(target.{word}.domain_id)s)"


_ACTORS, _PLACES = ("target.user.domain_id", "target.group.domain_id"), ("target.project.domain_id", "target.domain.id")
_PAIRS = " or ".join(f"(domain_id:%({actor})s and domain_id:%({place})s)" for actor in _ACTORS for place in _PLACES)
_GRANTS_SEEN = f"{_READER} or (role:reader and ({_PAIRS}))"
_GRANTS = f"{_ADMIN} or (role:manager and rule:domain_managed_target_role and ({_PAIRS}))"
_MEMBERS = f"{_ADMIN} or (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)"
_TRUST_SEEN = f"{_READER} or user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s"
_OWN_CREDENTIAL = "user_id:%(target.credential.user_id)s"

RULES: dict[str, str] = {
    "admin_required": "role:admin or is_admin:1",
    "service_role": "role:service",
    "service_or_admin": "rule:admin_required or rule:service_role",
    "owner": "user_id:%(user_id)s",
    "token_subject": "user_id:%(target.token.user_id)s",
    "domain_managed_target_role": "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
    "identity:validate_token": f"{_READER} or rule:service_role or rule:token_subject",
    "identity:check_token": f"{_READER} or rule:service_role or rule:token_subject",
    "identity:revoke_token": "rule:admin_required or (role:admin and system_scope:all) or rule:token_subject",
    "identity:get_auth_catalog": "",
    "identity:get_auth_projects": "",
    "identity:get_auth_domains": "",
    "identity:get_auth_system": "",
    "identity:list_domains": f"{_READER} or (role:reader and domain_id:%(target.domain.id)s)",
    "identity:get_domain": f"{_READER} or token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s",
    **{f"identity:{verb}_domain": _ADMIN for verb in ("create", "update", "delete")},
    "identity:get_security_compliance_domain_config": "",
    "identity:list_projects": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:get_project": f"{_READER} or (role:reader and domain_id:%(target.project.domain_id)s) or project_id:%(target.project.id)s",
    **{f"identity:{rule}": f"{_READER} or (role:reader and domain_id:%(target.project.domain_id)s) or project_id:%(target.project.id)s"
       for rule in ("list_project_tags", "get_project_tag")},
    **{f"identity:{rule}": _of_domain("project") for rule in (
        "create_project", "update_project", "delete_project", "update_project_tags", "create_project_tag", "delete_project_tag",
        "delete_project_tags")},
    "identity:list_user_projects": f"{_READER} or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:list_users": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:get_user": f"{_READER} or (role:reader and token.domain.id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    **{f"identity:{verb}_user": _of_domain("user") for verb in ("create", "update", "delete")},
    "identity:list_groups": _seen_in_domain("group"),
    "identity:get_group": _seen_in_domain("group"),
    "identity:list_groups_for_user": f"{_READER} or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:list_users_in_group": _seen_in_domain("group"),
    "identity:check_user_in_group": f"{_READER} or (role:reader and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
    "identity:add_user_to_group": _MEMBERS,
    "identity:remove_user_from_group": _MEMBERS,
    **{f"identity:{verb}_group": _of_domain("group") for verb in ("create", "update", "delete")},
    "identity:list_roles": f"{_READER} or role:manager",
    "identity:get_role": f"{_READER} or role:manager",
    **{f"identity:{verb}_{word}": _ADMIN for verb in ("create", "update", "delete") for word in ("role", "domain_role")},
    "identity:list_domain_roles": _READER,
    "identity:get_domain_role": _READER,
    **{f"identity:{rule}": _READER for rule in ("list_implied_roles", "get_implied_role", "check_implied_role", "list_role_inference_rules")},
    "identity:create_implied_role": _ADMIN,
    "identity:delete_implied_role": _ADMIN,
    "identity:list_role_assignments_for_tree": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s) or "
                                               "(role:admin and project_id:%(target.project.id)s)",
    "identity:list_role_assignments": f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    "identity:check_grant": _GRANTS_SEEN,
    "identity:list_grants": _GRANTS_SEEN,
    "identity:create_grant": _GRANTS,
    "identity:revoke_grant": _GRANTS,
    **{f"identity:{verb}_system_grant{s}_for_{actor}": rule for actor in ("user", "group")
       for verb, s, rule in (("list", "s", _READER), ("check", "", _READER), ("create", "", _ADMIN), ("revoke", "", _ADMIN))},
    "identity:list_regions": "",
    "identity:get_region": "",
    **{f"identity:{verb}_{word}": _READER for verb, word in (("list", "services"), ("get", "service"), ("list", "endpoints"), ("get", "endpoint"),
                                                             ("list", "policies"), ("get", "policy"))},
    **{f"identity:{verb}_{word}": _ADMIN for verb in ("create", "update", "delete") for word in ("region", "service", "endpoint", "policy")},
    **{f"identity:{rule}": _READER for rule in (
        "list_endpoint_groups", "get_endpoint_group", "list_projects_associated_with_endpoint_group", "get_endpoint_group_in_project",
        "list_endpoints_associated_with_endpoint_group", "list_endpoint_groups_for_project", "list_projects_for_endpoint",
        "check_endpoint_in_project", "list_endpoints_for_project")},
    **{f"identity:{rule}": _ADMIN for rule in (
        "create_endpoint_group", "update_endpoint_group", "delete_endpoint_group", "add_endpoint_group_to_project",
        "remove_endpoint_group_from_project", "add_endpoint_to_project", "remove_endpoint_from_project")},
    **{f"identity:{rule}": "" for rule in ("get_limit_model", "list_limits", "get_registered_limit", "list_registered_limits")},
    "identity:get_limit": f"{_READER} or domain_id:%(target.limit.domain.id)s or domain_id:%(target.limit.project.domain_id)s or "
                          "project_id:%(target.limit.project_id)s",
    **{f"identity:{rule}": _ADMIN for rule in ("create_limits", "update_limit", "delete_limit", "create_registered_limits",
                                               "update_registered_limit", "delete_registered_limit")},
    "identity:list_credentials": f"{_READER} or {_OWN_CREDENTIAL}",
    "identity:get_credential": f"{_READER} or {_OWN_CREDENTIAL}",
    **{f"identity:{verb}_credential": f"{_ADMIN} or {_OWN_CREDENTIAL}" for verb in ("create", "update", "delete")},
    "identity:list_application_credentials": f"{_READER} or rule:owner",
    "identity:get_application_credential": f"{_READER} or rule:owner",
    "identity:create_application_credential": "rule:owner",
    "identity:delete_application_credential": f"{_ADMIN} or rule:owner",
    "identity:list_access_rules": "(role:reader and system_scope:all) or user_id:%(target.user.id)s",
    "identity:get_access_rule": "(role:reader and system_scope:all) or user_id:%(target.user.id)s",
    "identity:delete_access_rule": "(role:admin and system_scope:all) or user_id:%(target.user.id)s",
    "identity:ec2_list_credentials": f"{_READER} or rule:owner",
    "identity:ec2_get_credential": f"{_READER} or {_OWN_CREDENTIAL}",
    "identity:ec2_create_credential": f"{_ADMIN} or (role:member and {_OWN_CREDENTIAL})",
    "identity:ec2_delete_credential": f"{_ADMIN} or (role:member and {_OWN_CREDENTIAL})",
    "identity:ec2tokens_validate": "rule:service_or_admin",
    "identity:s3tokens_validate": "rule:service_or_admin",
    "identity:create_trust": "user_id:%(trust.trustor_user_id)s",
    "identity:list_trusts": _READER,
    "identity:list_trusts_for_trustor": f"{_READER} or user_id:%(target.trust.trustor_user_id)s",
    "identity:list_trusts_for_trustee": f"{_READER} or user_id:%(target.trust.trustee_user_id)s",
    "identity:get_trust": _TRUST_SEEN,
    "identity:list_roles_for_trust": _TRUST_SEEN,
    "identity:get_role_for_trust": _TRUST_SEEN,
    "identity:delete_trust": f"{_ADMIN} or user_id:%(target.trust.trustor_user_id)s",
}  # fmt: skip
