"""The password that a guest left at the metadata service for its user, encrypted with the key that the user gave: shown, and cleared."""

from nacre.compute.service import servers
from nacre.compute.tables import servers as table
from nacre.core import journal
from nacre.core.caller import Caller


def show(caller: Caller, server_id: str) -> str:
    """Empty when the guest has left none. Raises NotFound."""
    with caller.read() as conn:
        return servers.visible(conn, caller, server_id).guest_password or ""


def clear(caller: Caller, server_id: str) -> None:
    """The guest may leave another. Raises NotFound."""
    with caller.write() as tx:
        row = servers.visible(tx, caller, server_id, lock=True)
        tx.update(table, {"id": row.id}, guest_password=None)
        journal.changed(tx, "server", row.id, "clear_password", ("guest_password",))
