"""What the clients use: `keystonerc_admin`, `keystonerc_demo` and `clouds.yaml`.

They hold passwords, so only their owner reads them: root, or the person who typed `sudo`. Sourcing one after another never mixes them:
each begins by forgetting every OS_ variable.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from nacre.cli import layout
from nacre.core.config import Config, Home

USERS = {"admin": ("admin", "nacre"), "demo": ("demo", "nacre-demo")}

_RC = """\
# Source this file:  . {file}
for _nacre in $(env | sed -n 's/^\\(OS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$_nacre"; done
unset _nacre
for _nacre in {folders}; do
    case ":$PATH:" in
        *":$_nacre:"*) ;;
        *) PATH="$_nacre:$PATH" ;;
    esac
done
unset _nacre
export PATH
export OS_AUTH_URL='{url}'
export OS_CACERT='{cacert}'
export OS_USERNAME='{user}'
export OS_PASSWORD='{password}'
export OS_PROJECT_NAME='{project}'
export OS_USER_DOMAIN_ID='default'
export OS_PROJECT_DOMAIN_ID='default'
export OS_REGION_NAME='RegionOne'
export OS_INTERFACE='public'
export OS_IDENTITY_API_VERSION='3'
export OS_IMAGE_API_VERSION='2'
"""
_CLOUD = """\
  {cloud}:
    auth:
      auth_url: {url}
      username: {user}
      password: '{password}'
      project_name: {project}
      user_domain_id: default
      project_domain_id: default
    cacert: '{cacert}'
    region_name: RegionOne
    interface: public
    identity_api_version: 3
"""


def authority(config: Config) -> str:
    """Scheme, address and port of the API."""
    return f"https://{config.nacre.host}:{config.nacre.port}"


def write(home: Home, config: Config, tools: Sequence[Path]) -> dict[str, str]:
    """The three files, for the address of `config`; they put the folders `tools` on PATH. Returns the passwords by user; they stay what they were."""
    own = (int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))
    url, cacert = f"{authority(config)}/identity/v3", home.path / "ca.pem"
    passwords = {user: layout.password(home, user) for user in USERS}
    clouds = "clouds:\n"
    for user, (project, cloud) in USERS.items():
        file = home.path / f"keystonerc_{user}"
        facts = {"url": url, "cacert": cacert, "user": user, "password": passwords[user], "project": project, "cloud": cloud}
        layout.write(file, _RC.format(file=file, folders=" ".join(f"'{folder}'" for folder in tools), **facts), 0o600, own)
        clouds += _CLOUD.format(**facts)
    layout.write(home.path / "clouds.yaml", clouds, 0o600, own)
    return passwords
