"""Version documents and the list of extensions. Source: API reference, "API Versions"."""

from typing import Any

from nacre.core.errors import NotFound
from nacre.core.http import Call
from nacre.core.versions import Microversions, show

MICROVERSIONS = Microversions("compute", (2, 1), (2, 96), "X-OpenStack-Nova-API-Version")
UPDATED = "2013-07-23T11:33:21Z"
_EXTENSIONS = ("os-aggregates", "os-attach-interfaces", "os-availability-zone", "os-console-output", "os-consoles", "os-create-backup",
               "os-extended-server-attributes", "os-extended-status", "os-flavor-access", "os-flavor-extra-specs", "os-flavor-manage",
               "os-floating-ips", "os-hosts", "os-hypervisors", "os-instance-actions", "os-instance_usage_audit_log",
               "os-keypairs", "os-lock-server", "os-migrations",
               "os-networks", "os-pause-server", "os-quota-class-sets", "os-quota-sets", "os-remote-consoles", "os-rescue", "os-security-groups",
               "os-server-diagnostics", "os-server-external-events", "os-server-groups", "os-server-metadata", "os-server-password", "os-services",
               "os-simple-tenant-usage", "os-suspend-server", "os-tenant-networks", "os-used-limits")  # fmt: skip


def _version(url: str) -> dict[str, Any]:
    return {"id": "v2.1", "status": "CURRENT", "version": show(MICROVERSIONS.high), "min_version": show(MICROVERSIONS.low), "updated": UPDATED,
            "links": [{"rel": "self", "href": f"{url}/v2.1/"}]}  # fmt: skip


def _old(url: str) -> dict[str, Any]:
    """The same API without microversions."""
    return {"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z",
            "links": [{"rel": "self", "href": f"{url}/v2/"}]}  # fmt: skip


def root(call: Call) -> dict[str, Any]:
    return {"versions": [_old(call.url), _version(call.url)]}


def v2(call: Call) -> dict[str, Any]:
    return {"version": _whole(_old(call.url), "2")}


def v21(call: Call) -> dict[str, Any]:
    return {"version": _whole(_version(call.url), "2.1")}


def _whole(shown: dict[str, Any], number: str) -> dict[str, Any]:
    shown["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
    shown["media-types"] = [{"base": "application/json", "type": f"application/vnd.openstack.compute+json;version={number}"}]
    return shown


def _extension(alias: str) -> dict[str, Any]:
    name = alias.removeprefix("os-").replace("-", " ").title().replace(" ", "")
    return {"alias": alias, "name": name, "description": "", "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
            "updated": "2014-12-03T00:00:00Z", "links": []}


def extensions(call: Call) -> dict[str, Any]:
    call.caller.require({})
    return {"extensions": [_extension(alias) for alias in _EXTENSIONS]}


def extension(call: Call) -> dict[str, Any]:
    call.caller.require({})
    if call.path["alias"] not in _EXTENSIONS:
        raise NotFound("The resource could not be found.")
    return {"extension": _extension(call.path["alias"])}
