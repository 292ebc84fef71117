"""Certificates: made once, renewed in time, verified by a real handshake."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from nacre.core import tls

NAMES = ["127.0.0.1", "::1", "localhost"]
OWN = (os.geteuid(), os.getegid())


def pairs(folder: Path) -> tuple[tls.Pair, tls.Pair]:
    return tls.Pair(folder / "ca.key", folder / "ca.pem"), tls.Pair(folder / "server.key", folder / "server.crt")


def handshake(ca: tls.Pair, server: tls.Pair, name: str) -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server.certificate, server.key)
    ours = ssl.create_default_context(cafile=str(ca.certificate))
    ours.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(to_client, to_server, server_hostname=name)
    listener = theirs.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, listener):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass


def test_made_once(tmp_path: Path) -> None:
    ca, server = pairs(tmp_path)
    assert tls.ensure(ca, server, NAMES, OWN)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not tls.ensure(ca, server, NAMES, OWN)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.crt": 0o644,
    }  # fmt: skip
    for name in NAMES:
        handshake(ca, server, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ca, server, "elsewhere.example")


def test_a_new_name_a_lost_key_and_another_authority(tmp_path: Path) -> None:
    ca, server = pairs(tmp_path)
    tls.ensure(ca, server, NAMES, OWN)
    authority = ca.certificate.read_bytes()
    assert tls.ensure(ca, server, [*NAMES, "cloud.example"], OWN) and ca.certificate.read_bytes() == authority
    handshake(ca, server, "cloud.example")
    server.key.unlink()
    assert tls.ensure(ca, server, NAMES, OWN)
    ca.key.write_text("torn")
    assert tls.ensure(ca, server, NAMES, OWN) and ca.certificate.read_bytes() != authority
    handshake(ca, server, "localhost")


def test_renewed_when_it_would_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, server = pairs(tmp_path)
    monkeypatch.setattr(tls, "SERVER_LIFE", tls.RENEW - timedelta(days=1))
    tls.ensure(ca, server, NAMES, OWN)
    monkeypatch.undo()
    assert tls.ensure(ca, server, NAMES, OWN)
    left = x509.load_pem_x509_certificate(server.certificate.read_bytes()).not_valid_after_utc - datetime.now(UTC)
    assert left > tls.RENEW
