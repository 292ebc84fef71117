"""The image cache, for administrators."""

from datetime import UTC, datetime
from typing import Any

from nacre.core.http import Call
from nacre.image.service import cache


def _epoch(at: datetime) -> float:
    return at.replace(tzinfo=UTC).timestamp()


def show(call: Call) -> dict[str, Any]:
    copies, queued = cache.listed(call.caller)
    shown = [{"image_id": row.image_id, "hits": row.hits, "last_accessed": _epoch(row.last_accessed), "last_modified": _epoch(row.created_at),
              "size": row.size} for row in copies]  # fmt: skip
    return {"cached_images": shown, "queued_images": queued}


def queue(call: Call) -> None:
    cache.queue(call.caller, call.path["image_id"])


def delete(call: Call) -> None:
    cache.delete(call.caller, call.path["image_id"])


def clear(call: Call) -> None:
    cache.clear(call.caller, call.headers.get("x-image-cache-clear-target", "").lower())
