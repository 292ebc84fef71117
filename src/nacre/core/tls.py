"""The cloud's own certificate authority and the server certificate that it signs; a second authority for the certificates of nodes.

`ensure` is repeated at every start: it makes what is missing and renews what expires within `RENEW`. A key is written before its
certificate and both under temporary names, so an interruption leaves either the old pair or none. A new authority means a new server
certificate; certificates of the one before are believed until it ends. Who a node is and by which leave (core/joining.py) is in the
subject of its certificate.
"""

import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3652)
SERVER_LIFE = timedelta(days=730)
NODE_LIFE = timedelta(days=730)
RENEW = timedelta(days=365)
_SLACK = timedelta(days=1)  # clocks differ, and are set back by hours


class Pair:
    """A key and its certificate, in PEM files."""

    def __init__(self, key: Path, certificate: Path) -> None:
        self.key, self.certificate = key, certificate

    def load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
        """Both, or None when one is absent, unreadable or they do not belong together."""
        try:
            key = serialization.load_pem_private_key(self.key.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            return None
        return key, certificate

    def store(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, owner: tuple[int, int],
              also: Sequence[x509.Certificate] = ()) -> None:  # fmt: skip
        """`also` come after the certificate: an authority before this one, whose certificates are still believed."""
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(self.key, pem, 0o600, owner)
        chain = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (certificate, *also))
        _write(self.certificate, chain, 0o644, (os.geteuid(), os.getegid()))


def ensure(ca: Pair, server: Pair, names: Sequence[str], owner: tuple[int, int]) -> bool:
    """Makes or renews the authority and the server certificate for `names` (addresses or host names). The authority's key stays the
    caller's, the server's key belongs to `owner` (uid, gid). True if the server certificate is new."""
    now = datetime.now(UTC)
    held = ensure_authority(ca, (os.geteuid(), os.getegid()), "Nacre CA")
    current = server.load()
    if current and _good(current[1], held[1], names, now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    server.store(key, _sign_server(key, held, names, now), owner)
    return True


def ensure_authority(ca: Pair, owner: tuple[int, int], name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The authority in these files, made or renewed if it must be; its key belongs to `owner`."""
    now = datetime.now(UTC)
    held = ca.load()
    if held is None or held[1].not_valid_after_utc - now < RENEW:
        before, held = held, _authority(now, name)
        ca.store(*held, owner, also=[before[1]] if before and before[1].not_valid_after_utc > now else [])
    return held


def sign_node(ca: Pair, public_key: Any, host: str, admission: str, life: timedelta = NODE_LIFE) -> bytes:
    """A certificate (PEM) with which a node is `host`; `admission` says by which leave. Raises ValueError when the authority is not there."""
    held, now = ca.load(), datetime.now(UTC)
    if held is None:
        raise ValueError(f"there is no authority in {ca.certificate}")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host), x509.NameAttribute(NameOID.SERIAL_NUMBER, admission)])
    return (
        x509.CertificateBuilder().subject_name(name)
        .issuer_name(held[1].subject).public_key(public_key).serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK).not_valid_after(min(now + life, held[1].not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(held[0].public_key()), critical=False)
        .sign(held[0], hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)


def request(host: str) -> tuple[bytes, bytes]:
    """A new key and a signing request for it, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    return pem, x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def renewal_due(certificate: bytes, now: datetime) -> bool:
    """Whether less than a third of the life of a certificate (PEM) is left. Raises ValueError."""
    held = x509.load_pem_x509_certificate(certificate)
    return held.not_valid_after_utc - now < (held.not_valid_after_utc - held.not_valid_before_utc) / 3


def usable(identity: bytes, authority: bytes, now: datetime) -> bool:
    """Whether a key and its certificate, both PEM in `identity`, count: they belong together and `authority` signed what has not expired."""
    try:
        key, certificate = serialization.load_pem_private_key(identity, None), x509.load_pem_x509_certificate(identity)
        issuers = x509.load_pem_x509_certificates(authority)
    except ValueError:
        return False
    return key.public_key() == certificate.public_key() and certificate.not_valid_after_utc > now and any(_signed(certificate, ca) for ca in issuers)


def fingerprint(certificate: bytes) -> str:
    """Of a certificate in PEM or DER."""
    if certificate.startswith(b"-----"):
        certificate = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(certificate).hexdigest()


def node_context(certificate: tuple[Path, Path], authority: Path) -> ssl.SSLContext:
    """For a listener that only nodes with a certificate of `authority` reach. `certificate`: (chain, key)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificate)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # core/connections.py
    return context


def _authority(now: datetime, title: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{title} {now:%Y-%m-%d}")])
    return key, (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - _SLACK).not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    key: ec.EllipticCurvePrivateKey, ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], names: Sequence[str], now: datetime
) -> x509.Certificate:
    return (
        x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(ca[1].subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK).not_valid_after(min(now + SERVER_LIFE, ca[1].not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca[0].public_key()), critical=False)
        .sign(ca[0], hashes.SHA256())
    )


def _good(certificate: x509.Certificate, ca: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    if not _signed(certificate, ca):
        return False
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return certificate.not_valid_after_utc - now >= RENEW and {_name(name) for name in names} <= set(held)


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(**on: bool) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
             "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: on.get(name, False) for name in every})


def _write(path: Path, content: bytes, mode: int, owner: tuple[int, int]) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.write(descriptor, content)
        os.fchmod(descriptor, mode)
        os.fchown(descriptor, *owner)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(path)
