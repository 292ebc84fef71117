"""tempest.conf, from what the cloud says of itself: its catalog, microversions, extensions, and how it answers where a feature would be.

A feature of servers is asked for on a server that there is not: where it is offered, the server is what is missing. `FIXED` are those
that no request tells.
"""

import json
from collections.abc import Mapping
from typing import Any

from nacre.cli.conformance.cloud import PASSWORDS, Place
from nacre.cli.conformance.relaying import Settings
from nacre.cli.conformance.things import Made

_NOBODY = "00000000-0000-4000-8000-000000000000"
_TYPES = {"cinder": "volume", "neutron": "network", "glance": "image", "swift": "object-store", "nova": "compute", "horizon": "dashboard"}
_SERVER = f"/compute/v2.1/servers/{_NOBODY}"
_ACTIONS: Mapping[str, tuple[str, Any]] = {
    "change_password": ("changePassword", {"adminPass": "x"}),
    "console_output": ("os-getConsoleOutput", {}),
    "resize": ("resize", {"flavorRef": "1"}),
    "pause": ("pause", None),
    "shelve": ("shelve", None),
    "suspend": ("suspend", None),
    "cold_migration": ("migrate", None),
    "live_migration": ("os-migrateLive", {"host": None, "block_migration": False, "disk_over_commit": False}),
    "rescue": ("rescue", {}),
    "snapshot": ("createImage", {"name": "x"}),
}
_CONSOLES = {"vnc_console": ("vnc", "novnc"), "serial_console": ("serial", "serial")}
# What only a guest that runs could tell.
FIXED = {"spice_console": False, "disk_config": True, "metadata_service": True, "config_drive": True, "enable_instance_password": True,
         "personality": True, "hostname_fqdn_sanitization": True, "stable_rescue": False}  # fmt: skip
_MISSING = ("There is no such action", "The resource could not be found.")


def settings(place: Place, made: Made, folder: Any) -> Settings:
    """Sections of options. Raises Trouble."""
    types = {service["type"] for service in place.catalog}
    aliases = [one["alias"] for one in place.want("GET", "/network/v2.0/extensions")["extensions"]]
    version = place.want("GET", "/compute/v2.1")["version"]
    real = place.host is not None
    return {
        "DEFAULT": {"log_file": f"{folder}/requests.log", "debug": False},
        "oslo_concurrency": {"lock_path": f"{folder}/locks"},
        "auth": {"use_dynamic_credentials": True, "admin_username": "admin", "admin_password": place.password, "admin_project_name": "admin",
                 "admin_domain_name": "Default", "create_isolated_networks": True},
        "identity": {"uri_v3": f"{place.url}/identity/v3", "auth_version": "v3", "region": "RegionOne", "v3_endpoint_type": "public",
                     "ca_certificates_file": place.home.path / "ca.pem", **{f"user_{name}": value for name, value in PASSWORDS.items()}},
        "service_available": {project: kind in types for project, kind in _TYPES.items()},
        "identity-feature-enabled": _identity(place),
        "image": {"http_image": made.http_image, "http_qcow2_image": made.http_image, "disk_formats": ["qcow2", "raw", "iso", "vhd", "vmdk", "vdi"],
                  "container_formats": ["bare", "ami", "ari", "aki", "ova", "docker"]},
        "image-feature-enabled": _image(place),
        "compute": {"image_ref": made.image, "image_ref_alt": made.image_alt, "flavor_ref": made.flavor, "flavor_ref_alt": made.flavor_alt,
                    "min_microversion": version["min_version"], "max_microversion": version["version"], "hypervisor_type": _hypervisor(place),
                    "min_compute_nodes": _hosts(place)},
        "compute-feature-enabled": _compute(place),
        "network": {"public_network_id": made.network, "floating_network_name": made.network_name},
        "network-feature-enabled": {"api_extensions": aliases, "ipv6": True, "ipv6_subnet_attributes": True,
                                    "floating_ips": "router" in aliases, "port_security": "port-security" in aliases,
                                    "port_admin_state_change": True},
        "validation": {"run_validation": real, "connect_method": "floating", "auth_method": "keypair", "image_ssh_user": "cirros",
                       "image_alt_ssh_user": "cirros", "image_ssh_password": "gocubsgo", "network_for_ssh": made.network_name,
                       "ssh_key_type": "ecdsa"},
        "scenario": {"img_file": made.image_file, "img_disk_format": "qcow2", "dhcp_client": "udhcpc"},
    }  # fmt: skip


def switched_off(found: Settings) -> list[str]:
    """The flags that keep tests from running, as "section.option"."""
    flags = [(section, name) for section in found if section.endswith("-feature-enabled") for name in found[section]]
    off = [f"{section}.{name}" for section, name in flags if found[section][name] is False]
    return off + ([] if found["validation"]["run_validation"] else ["validation.run_validation"])


def _offers(place: Place, path: str, body: dict[str, Any], version: str = "2.1") -> bool:
    headers = {"openstack-api-version": f"compute {version}"}
    status, answer = place.ask("POST", path, body, headers)
    return status < 500 and not any(words in json.dumps(answer) for words in _MISSING)


def _compute(place: Place) -> dict[str, bool]:
    found = {name: _offers(place, f"{_SERVER}/action", {action: given}) for name, (action, given) in _ACTIONS.items()}
    for name, (protocol, kind) in _CONSOLES.items():
        body = {"remote_console": {"protocol": protocol, "type": kind}}
        found[name] = _offers(place, f"{_SERVER}/remote-consoles", body, "2.6")
    found["interface_attach"] = _offers(place, f"{_SERVER}/os-interface", {"interfaceAttachment": {}})
    return {**found, **FIXED}


def _hosts(place: Place) -> int:
    services = place.want("GET", "/compute/v2.1/os-services?binary=nova-compute")["services"]
    return sum(one["state"] == "up" for one in services)


def _hypervisor(place: Place) -> str:
    return str(place.want("GET", "/compute/v2.1/os-hypervisors/detail")["hypervisors"][0]["hypervisor_type"])


def _image(place: Place) -> dict[str, bool]:
    methods = place.want("GET", "/image/v2/info/import")["import-methods"]["value"]
    stores = place.want("GET", "/image/v2/info/stores/detail")["stores"]
    return {"import_image": bool(methods), "http_store_enabled": any(store["type"] == "http" for store in stores)}


def _identity(place: Place) -> dict[str, bool]:
    admin = place.want("GET", "/identity/v3/users?name=admin")["users"][0]["id"]
    return {"security_compliance": True, "trust": place.ask("GET", "/identity/v3/OS-TRUST/trusts")[0] == 200,
            "access_rules": place.ask("GET", f"/identity/v3/users/{admin}/access_rules")[0] == 200}  # fmt: skip
