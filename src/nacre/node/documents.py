"""The wanted documents that a node holds, in memory and on disk.

On disk so that an agent that starts while the control plane is down still knows what its wires should be. The files are a cache and
not synced: one that cannot be read is dropped and comes again with the next answer, because `index` no longer names it. One that a full
disk does not take is held in memory alone.

An answer to an empty index is the whole of what is wanted; any other is a difference. A cloud restored from a backup has a new epoch,
and its version numbers may name other contents: the index is then empty until the next answer, while the wires stay as they are and
nothing is told to be applied.
"""

import logging
import threading
from pathlib import Path

import msgspec

from nacre.node.feed import Feed, Index
from nacre.node.fences import file_name, write_file
from nacre.node.wires.driver import Document

log = logging.getLogger(__name__)


class Documents:
    """`epoch` is that of the cloud that sent them, 0 if none did yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Document]] = {}
        self._stale = False
        folder.mkdir(parents=True, exist_ok=True)
        epoch = folder / "epoch"
        self.epoch = int(epoch.read_text() or 0) if epoch.exists() else 0
        for path in folder.glob("*/*.json"):
            try:
                document = msgspec.json.decode(path.read_bytes(), type=Document)
            except msgspec.MsgspecError:
                path.unlink()
            else:
                self._held.setdefault(document.kind, {})[document.id] = document

    def following(self) -> int:
        """The epoch whose documents these are; 0 while those of a new epoch have not come yet."""
        with self._lock:
            return 0 if self._stale else self.epoch

    def index(self) -> Index:
        """kind -> id -> version, to tell the control plane."""
        with self._lock:
            if self._stale:
                return {}
            return {kind: {key: document.version for key, document in held.items()} for kind, held in self._held.items() if held}

    def wanted(self) -> dict[str, dict[str, Document]]:
        """A copy whose documents nobody changes."""
        with self._lock:
            return {kind: dict(held) for kind, held in self._held.items()}

    def take(self, asked: Index, answer: Feed) -> set[str]:
        """Holds what `answer` to the index `asked` says. The kinds that changed."""
        with self._lock:
            if answer.epoch != self.epoch:
                write_file(self.folder / "epoch", str(answer.epoch).encode(), sync=True)
                self._stale, self.epoch = bool(asked), answer.epoch
            elif not asked:
                self._stale = False
            changed = {kind for kind, key in (answer.gone if asked else self._unnamed(answer)) if self._drop(kind, key)}
            for document in answer.documents:
                changed.add(document.kind)
                self._held.setdefault(document.kind, {})[document.id] = document
                self._store(document)
            return changed

    def _store(self, document: Document) -> None:
        path = self._path(document.kind, document.id)
        try:
            path.parent.mkdir(exist_ok=True)
            write_file(path, msgspec.json.encode(document), sync=False)
        except OSError as error:
            log.warning("document %s %s is held in memory only: %s", document.kind, document.id, error)
            path.unlink(missing_ok=True)

    def _unnamed(self, answer: Feed) -> list[tuple[str, str]]:
        named = {(document.kind, document.id) for document in answer.documents}
        return [(kind, key) for kind, held in self._held.items() for key in held if (kind, key) not in named]

    def _drop(self, kind: str, key: str) -> bool:
        self._path(kind, key).unlink(missing_ok=True)
        return self._held.get(kind, {}).pop(key, None) is not None

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / file_name(kind) / f"{file_name(key)}.json"

