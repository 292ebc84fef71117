"""A small client of the Open vSwitch database (RFC 7047) on its unix socket.

One thread reads; it keeps a replica of bridges, ports and interfaces and rings whenever something changed in them. Any thread may
transact. The replica lags what was written by a fraction of a millisecond, so who needs what vswitchd answers (port numbers) waits for
it with `wait`. When the server goes away the replica is kept as it was, transactions fail with OvsdbError, and the reader dials again
twice a second. A server that says nothing for a while is asked for an echo; one that owes it hangs, until it says something.
"""

import codecs
import contextlib
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

SOCKET = Path("/run/openvswitch/db.sock")
_COLUMNS = {
    "Bridge": ["name", "ports", "datapath_type", "external_ids"],
    "Port": ["name", "interfaces", "tag"],
    "Interface": ["name", "type", "options", "external_ids", "ofport"],
    "Open_vSwitch": ["bridges"],
}
_PROBE = 3.0
_ECHO = b'{"method": "echo", "params": [], "id": "echo"}'
Operation = dict[str, Any]


class OvsdbError(Exception):
    """The database refused, or is not there."""


@dataclass(frozen=True)
class SwitchPort:
    name: str
    uuid: str
    bridge: str
    tag: int | None
    type: str
    options: Mapping[str, str]
    external_ids: Mapping[str, str]
    ofport: int | None


@dataclass(frozen=True)
class Bridge:
    name: str
    uuid: str
    datapath_type: str
    external_ids: Mapping[str, str]


@dataclass(frozen=True)
class Switch:
    """What the database holds now."""

    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    ports: Mapping[str, SwitchPort] = field(default_factory=dict)

    def numbered(self, name: str) -> int | None:
        """The OpenFlow number of a port, None while vswitchd has not made it."""
        port = self.ports.get(name)
        return port.ofport if port else None


def _elements(value: Any) -> list[Any]:
    return list(value[1]) if isinstance(value, list) and value and value[0] == "set" else [value]


def _uuids(value: Any) -> list[str]:
    return [element[1] for element in _elements(value)]


def _map(value: Any) -> dict[str, str]:
    return dict(value[1])


def _one(value: Any) -> Any:
    elements = _elements(value)
    return elements[0] if elements else None


def switch_of(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Switch:
    """The replica's rows as a Switch. Rows that refer to rows not seen yet are passed over."""
    bridges, ports = {}, {}
    for bridge_uuid, bridge in tables["Bridge"].items():
        name = bridge["name"]
        bridges[name] = Bridge(name, bridge_uuid, bridge["datapath_type"], _map(bridge["external_ids"]))
        for port_uuid in _uuids(bridge["ports"]):
            port = tables["Port"].get(port_uuid)
            interface = tables["Interface"].get(_uuids(port["interfaces"])[0]) if port else None
            if port is None or interface is None:
                continue
            number = _one(interface["ofport"])
            ports[port["name"]] = SwitchPort(
                port["name"],
                port_uuid,
                name,
                _one(port["tag"]),
                interface["type"],
                _map(interface["options"]),
                _map(interface["external_ids"]),
                number if number is not None and number > 0 else None,
            )
    return Switch(bridges, ports)


class Ovsdb:
    def __init__(self, changed: Callable[[], None], path: Path = SOCKET) -> None:
        self._path, self._changed = path, changed
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._tables: dict[str, dict[str, dict[str, Any]]] = {table: {} for table in _COLUMNS}
        self._switch: Switch | None = None
        self._socket: socket.socket | None = None
        self._ready = threading.Event()
        self._closed = False
        self.hangs = False
        self._reader = threading.Thread(target=self._read_for_ever, name="ovsdb", daemon=True)
        self._reader.start()

    def connected(self, timeout: float = 0) -> bool:
        return self._ready.wait(timeout)

    def switch(self) -> Switch:
        with self._lock:
            if self._switch is None:
                self._switch = switch_of(self._tables)
            return self._switch

    def wait(self, until: Callable[[Switch], bool], timeout: float) -> bool:
        """Whether the replica came to satisfy `until` within `timeout` seconds."""
        end = time.monotonic() + timeout
        while not until(self.switch()):
            with self._moved:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                if self._switch is not None:
                    self._moved.wait(left)
        return True

    def transact(self, operations: Sequence[Operation], timeout: float = 5) -> None:
        """All of `operations` or none. Raises OvsdbError."""
        if not operations:
            return
        answer = self._call("transact", ["Open_vSwitch", *operations], timeout)
        for part in answer:
            if part and part.get("error"):
                raise OvsdbError(f"{part['error']}: {part.get('details', '')}")

    def root(self) -> str:
        """The uuid of the one row of Open_vSwitch. Raises OvsdbError before the first connection."""
        with self._lock:
            if not self._tables["Open_vSwitch"]:
                raise OvsdbError("not connected to the switch's database yet")
            return next(iter(self._tables["Open_vSwitch"]))

    def close(self) -> None:
        self._closed = True
        self._drop()
        self._reader.join(2)

    def _drop(self) -> None:
        with self._lock:
            self._ready.clear()
            gone, self._socket = self._socket, None
            waiting, self._waiting = self._waiting, {}
        if gone:
            with contextlib.suppress(OSError):
                gone.shutdown(socket.SHUT_RDWR)
            gone.close()
        for future in waiting.values():
            future.set_exception(OvsdbError("the switch's database went away"))

    def _call(self, method: str, params: list[Any], timeout: float) -> Any:
        number, future = next(self._ids), Future[Any]()
        with self._lock:
            if self._socket is None:
                raise OvsdbError("the switch's database is not there")
            self._waiting[number] = future
            try:
                self._socket.sendall(json.dumps({"method": method, "params": params, "id": number}).encode())
            except OSError as error:
                raise OvsdbError(str(error)) from error
        try:
            return future.result(timeout)
        except TimeoutError as error:
            raise OvsdbError(f"no answer to {method} in {timeout} s") from error

    def _read_for_ever(self) -> None:
        while not self._closed:
            try:
                self._read_until_gone()
            except OSError as error:
                log.debug("switch database: %s", error)
            except Exception:
                log.exception("the switch's database said what cannot be understood")
            finally:
                self.hangs = False
                self._drop()
            if not self._closed:
                self._changed()
                time.sleep(0.5)

    def _read_until_gone(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PROBE)
        connection.connect(str(self._path))
        request = {table: {"columns": columns} for table, columns in _COLUMNS.items()}
        connection.sendall(json.dumps({"method": "monitor", "params": ["Open_vSwitch", None, request], "id": 0}).encode())
        with self._lock:
            self._socket = connection
        decoder, letters, text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), ""
        while piece := self._receive(connection):
            text += letters.decode(piece)
            while text:
                try:
                    message, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break
                text = text[end:].lstrip()
                self._take(message)

    def _receive(self, connection: socket.socket) -> bytes:
        """What comes next, however long that takes. Raises OSError."""
        asked = False
        while True:
            try:
                piece = connection.recv(1 << 20)
            except TimeoutError:
                if asked and not self.hangs:
                    self.hangs = True
                    log.warning("the switch's database does not answer")
                elif not asked:
                    asked = True
                    with self._lock:
                        connection.sendall(_ECHO)
                continue
            if self.hangs:
                self.hangs = False
                log.warning("the switch's database answers again")
                self._changed()
            return piece

    def _take(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method == "update":
            self._update(message["params"][1])
        elif method == "echo":
            with self._lock:
                if self._socket:
                    self._socket.sendall(json.dumps({"result": message["params"], "error": None, "id": message["id"]}).encode())
        elif message.get("id") == 0:
            with self._lock:
                self._tables = {table: {} for table in _COLUMNS}
            self._update(message["result"])
            self._ready.set()
        else:
            with self._lock:
                future = self._waiting.pop(message["id"], None)
            if future and message.get("error"):
                future.set_exception(OvsdbError(str(message["error"])))
            elif future:
                future.set_result(message["result"])

    def _update(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        with self._moved:
            for table, rows in tables.items():
                for uuid, change in rows.items():
                    if "new" in change:
                        self._tables[table].setdefault(uuid, {}).update(change["new"])
                    else:
                        self._tables[table].pop(uuid, None)
            self._switch = None
            self._moved.notify_all()
        self._changed()
