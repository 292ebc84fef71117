"""How a process that began as root becomes a confined one: its own view of the mounts, the unprivileged user, no way back."""

import ctypes
import os
import pwd
from pathlib import Path

from nacre.core.config import Home
from nacre.sandbox import namespaces

_PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 15, 38
_libc = ctypes.CDLL(None, use_errno=True)


def name_process(name: str) -> None:
    """The short name that `ps -o comm` and `top` show; the arguments stay."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def mount_home(home: Home) -> None:
    """Shows the home also at `home.reach`, to this process and its children alone. Mounts that the machine makes later are seen.
    To be called before the process has threads. Raises OSError."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    namespaces.mount("none", Path("/"), flags=namespaces.MS_REC | namespaces.MS_SLAVE)
    namespaces.mount(str(home.path), home.reach, flags=namespaces.MS_BIND | namespaces.MS_REC)


def become(user: str) -> None:
    """Drops every privilege of root for good. Raises OSError, KeyError."""
    entry = pwd.getpwnam(user)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    os.umask(0o027)
