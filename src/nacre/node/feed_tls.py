"""The control plane over TLS, for a host that joined: the Source of node/feed.py with another connection.

`folder` has what joining left there: `key.pem`, `certificate.pem` (who this host is), `ca.pem` (whom it believes) and `controller`, an
`address:port`. The host says its own name beside the certificate, so a certificate that got to the wrong machine is refused in words.
"""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nacre.node.console import Far
from nacre.node.deadline import NodeError
from nacre.node.feed import SocketSource, _UnixConnection
from nacre.node.wires.driver import ControlPlaneDown

FILES = ("key.pem", "certificate.pem", "ca.pem", "controller")


class _TlsConnection(_UnixConnection):
    def __init__(self, source: "TlsSource", timeout: float) -> None:
        super().__init__(Path(), timeout)
        self.source = source

    def connect(self) -> None:
        plain = socket.create_connection(self.source.address, timeout=10)
        try:
            self.sock = self.source.context.wrap_socket(plain, server_hostname=self.source.address[0])
        except BaseException:
            plain.close()
            raise
        self.sock.settimeout(self.timeout)

    def request(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] = {}, **more: Any) -> None:  # type: ignore[override]
        super().request(method, url, body, {**headers, "X-Nacre-Host": self.source.host}, **more)


class TlsSource(SocketSource):
    """Raises OSError, ssl.SSLError when the files of `folder` cannot be used."""

    def __init__(self, host: str, folder: Path) -> None:
        super().__init__(folder)
        self.host = host
        address, _, port = (folder / "controller").read_text().strip().rpartition(":")
        self.address = (address, int(port))
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self.context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    def console(self, rendezvous: str) -> Far:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        url = f"wss://{self.address[0]}:{self.address[1]}/node/v1/consoles/{quote(rendezvous, safe='')}"
        try:
            return connect(url, ssl=self.context, additional_headers={"X-Nacre-Host": self.host}, compression=None, proxy=None, open_timeout=10,
                           close_timeout=5, ping_interval=None, user_agent_header=None)  # fmt: skip
        except (OSError, WebSocketException) as error:
            raise NodeError("nobody waits for this console", str(error)) from error

    def _connect(self, timeout: float) -> _UnixConnection:
        connection = _TlsConnection(self, timeout)
        with self._lock:
            if self._closed:
                raise ControlPlaneDown("closed")
            self._open.add(connection)
        return connection
