"""The control plane over TLS, for a host that is known by its certificate: a Source of node/feed.py.

`folder` has what joining left there: `identity.pem` (the host's key and its certificate), `ca.pem` (whom it believes) and `controller`, an
`address:port`. The host says its own name beside the certificate, so a certificate that got to the wrong machine is refused in words.

A certificate of whose life less than a third is left is replaced, with a new key, over the channel that it still opens; whoever writes
`identity.pem` (that, or joining anew) does it by renaming, and the next connection uses what lies there. When the control plane says that
the certificate counts no more, the reason is written to `refused` and `over` is called: nothing but joining anew helps.
"""

import http.client
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nacre.node import console
from nacre.node.feed import HttpSource
from nacre.node.wires.driver import ControlPlaneDown

IDENTITY, AUTHORITY, CONTROLLER, REFUSED = "identity.pem", "ca.pem", "controller", "refused"
FILES = (IDENTITY, AUTHORITY, CONTROLLER)
CODES = ("revoked", "unknown")
_LOOK, _CONNECT = 3600.0, 10.0
log = logging.getLogger(__name__)


class TlsConnection(http.client.HTTPSConnection):
    """Gives up connecting sooner than it gives up waiting for an answer."""

    def connect(self) -> None:
        wait, self.timeout = self.timeout, _CONNECT
        super().connect()
        self.timeout = wait
        self.sock.settimeout(wait)


class TlsSource(HttpSource):
    """Raises OSError, ValueError when the files of `folder` cannot be used."""

    def __init__(self, host: str, folder: Path, over: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.folder, self.over = folder, over
        self.host, self.headers = host, {"X-Nacre-Host": host}
        address, _, port = (folder / CONTROLLER).read_text().strip().rpartition(":")
        self.address = (address, int(port))
        self._context: tuple[tuple[int, ...], ssl.SSLContext] | None = None
        self._renewing = threading.Lock()
        self._look_at = 0.0
        self.context()

    def context(self) -> ssl.SSLContext:
        """With the identity that lies there now."""
        files = [os.stat(self.folder / name) for name in (IDENTITY, AUTHORITY)]
        version = tuple(number for file in files for number in (file.st_ino, file.st_mtime_ns))
        if self._context is None or self._context[0] != version:
            context = ssl.create_default_context(cafile=str(self.folder / AUTHORITY))
            context.load_cert_chain(self.folder / IDENTITY)
            self._context, self._look_at = (version, context), 0.0
        return self._context[1]

    def link(self, timeout: float) -> http.client.HTTPConnection:
        try:
            return TlsConnection(*self.address, timeout=timeout, context=self.context())
        except OSError as error:
            raise ControlPlaneDown(f"the certificate in {self.folder} cannot be used: {error}") from error

    def report(self, report: dict[str, Any]) -> bool:
        counted = super().report(report)
        self.renew()
        return counted

    def renew(self) -> None:
        """Replaces the certificate when its time has come; looked at every hour."""
        if time.monotonic() < self._look_at or not self._renewing.acquire(blocking=False):
            return
        try:
            self._look_at = time.monotonic() + _LOOK
            from nacre.core import tls

            if tls.renewal_due((self.folder / IDENTITY).read_bytes(), datetime.now(UTC)):
                key, request = tls.request(self.host)
                answer = json.loads(self._post("/node/v1/renew", {"csr": request.decode()}, 30))
                self._keep(AUTHORITY, answer["ca"])
                self._keep(IDENTITY, key.decode() + answer["certificate"])
                log.info("%s has a new certificate", self.host)
        except (ControlPlaneDown, OSError, ValueError, KeyError) as error:
            log.warning("%s: the certificate cannot be renewed, this is tried again: %s", self.host, error)
            self._look_at = time.monotonic() + _LOOK / 60
        finally:
            self._renewing.release()

    def _keep(self, name: str, content: str) -> None:
        part = self.folder / f"{name}.part"
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.folder / name)

    def refused(self, status: int, content: bytes) -> None:
        with suppress(ValueError, AttributeError, KeyError):
            told = json.loads(content) if status == 403 else {}
            if told.get("code") in CODES:
                self._keep(REFUSED, json.dumps({"code": told["code"], "reason": str(told["error"])}))
                self.over()

    def console(self, rendezvous: str) -> console.Far:
        def connect() -> ssl.SSLSocket:
            connection = self.link(_CONNECT)
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            return connection.sock

        return console.dial_by_tls(connect, rendezvous, self.headers)
