"""Compute: servers and what they are made from. Owns flavors, key pairs, servers and what hosts offer for them.

A request decides everything in one transaction and leaves a task; the task makes it true on a host (tasks.py). The host's reports say
what power a guest has; a loop reconciles that with what the API shows (loops.py). Other services and the node API call:

`metadata(cloud, conn, kind, scope_id, address)`, `config_drive(cloud, conn, host, server_id)`,
`keep_password(tx, kind, scope_id, address, password)`, `reported(tx, host, seen)`,
`port_used_by(conn, server_id)`, `port_deleted(tx, server_id, port)`, `spend_console(tx, token)`, `on_hosts(conn)` and
`restored(tx, when, without)` for backups, and `DOCUMENTS` (kind `server`).
"""

from nacre.compute.fronts import DOCUMENTS, config_drive, keep_password, metadata, port_deleted, port_used_by, reported
from nacre.compute.restored import on_hosts, restored
from nacre.compute.service.consoles import spend as spend_console
from nacre.compute.service.explain import explain_all

__all__ = [
    "DOCUMENTS", "config_drive", "explain_all", "keep_password", "metadata", "on_hosts", "port_deleted", "port_used_by", "reported", "restored",
    "spend_console",
]  # fmt: skip
