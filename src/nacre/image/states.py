"""An image's statuses and moves. Nothing leaves `deleted`. `saving` and `uploading` belong to one uploader until the data is there; when
that is gone the image goes back to `queued` and may be uploaded again (upstream's `killed` is no longer entered, as there). `uploading`
with its data staged waits for an import; `importing` belongs to a task.
"""

from nacre.core.errors import Conflict

MOVES: dict[str, frozenset[str]] = {
    "queued": frozenset({"saving", "uploading", "importing", "deleted"}),
    "saving": frozenset({"active", "queued", "deleted"}),
    "uploading": frozenset({"importing", "queued", "deleted"}),
    "importing": frozenset({"active", "queued", "deleted"}),
    "active": frozenset({"deactivated", "deleted"}),
    "deactivated": frozenset({"active", "deleted"}),
    "killed": frozenset({"deleted"}),
    "deleted": frozenset(),
}


def move(now: str, then: str) -> str:
    """`then`, if an image may go there from `now`. Raises Conflict."""
    if then not in MOVES[now]:
        raise Conflict(f"Image status transition from {now} to {then} is not allowed", kind="InvalidImageStatusTransition")
    return then
