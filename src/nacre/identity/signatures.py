"""Signatures that clients of EC2 and S3 make of a request with the secret of their access key, made again here to be compared.

`of_request` takes a request apart (versions 2 and 4), `of_text` signs what a storage service already put together (version 1 and 4 of S3).
What a request leaves out or garbles is `Malformed`: nobody's signature.
Source: AWS Signature Version 2 and Version 4 signing process; Identity API v2, OS-KSEC2 and OS-KSS3 (bodies).
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import msgspec

_V4 = "AWS4-HMAC-SHA256"
_TEXT_SERVICES = (b"s3", b"iam", b"sts")
_OLD_BOTO = re.compile(r"Boto/2\.[0-9]\.[0-2]")  # signs a host without its port


class Malformed(Exception):
    """No signature can be made of it; the message says why."""


class Signed(msgspec.Struct, kw_only=True):
    """What a service was asked, as it passes it on to be checked. `token`: of S3, the text that was signed, in base 64."""

    access: str = ""
    signature: str = ""
    host: str = ""
    verb: str = ""
    path: str = ""
    params: dict[str, str | int | float | bool | None] = {}
    headers: dict[str, str] = {}
    body_hash: str = ""
    token: str = ""

    def param(self, name: str) -> str:
        value = self.params.get(name)
        return "" if value is None else str(value)

    @property
    def timestamp(self) -> str:
        return self.param("Timestamp") or self.headers.get("X-Amz-Date", "") or self.param("X-Amz-Date")


def of_request(asked: Signed, secret: str) -> bool:
    """Whether its signature is that of `secret`; some clients leave the port out. Raises Malformed."""
    hosts = [asked.host]
    if ":" in asked.host:
        try:
            hosts.append(urlsplit(f"//{asked.host}").hostname or "")
        except ValueError:
            raise Malformed("Invalid host.") from None
    return any(hmac.compare_digest(_made(asked, host, secret).encode(), asked.signature.encode("utf-8", "replace")) for host in hosts)


def _made(asked: Signed, host: str, secret: str) -> str:
    version = asked.param("SignatureVersion")
    if version == "2":
        return _second(asked, host, secret)
    if asked.headers.get("Authorization", "").startswith(_V4) or ("Authorization" not in asked.headers and asked.param("X-Amz-Algorithm") == _V4):
        return _fourth(asked, secret)
    raise Malformed(f"Unknown signature version: {version}" if version else "Unexpected signature format.")


def _second(asked: Signed, host: str, secret: str) -> str:
    text = f"{asked.verb}\n{host}\n{asked.path}\n{_query({**_texts(asked), 'SignatureMethod': 'HmacSHA256'})}"
    return base64.b64encode(_hmac(secret.encode(), text)).decode()


def _texts(asked: Signed) -> dict[str, str]:
    return {name: asked.param(name) if value is not None else "None" for name, value in asked.params.items() if name != "X-Amz-Signature"}


def _query(params: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(params[name], safe='-_~')}" for name in sorted(params))


def _hmac(key: bytes, text: str | bytes) -> bytes:
    return hmac.new(key, text.encode("utf-8", "replace") if isinstance(text, str) else text, hashlib.sha256).digest()


def _fourth(asked: Signed, secret: str) -> str:
    """The date is part of what the key is made for, so a request of another date is Malformed."""
    scope = _stated(asked, "Credential").split("/")[1:]
    date = asked.headers.get("X-Amz-Date") or asked.param("X-Amz-Date")
    if len(scope) != 4 or not scope[0] or not date.startswith(scope[0]):
        raise Malformed("Request date mismatch error")
    names = _stated(asked, "SignedHeaders")
    query = _query(_texts(asked)) if asked.verb.upper() != "POST" else ""
    canonical = "\n".join((asked.verb.upper(), asked.path, query, _headers(asked, names.split(";")), names, asked.body_hash))
    digest = hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()
    return _hmac(_key(secret, [part.encode() for part in scope]), "\n".join((_V4, date, "/".join(scope), digest))).hex()


def _stated(asked: Signed, name: str) -> str:
    """Of the Authorization header, or where there is none of the query."""
    if "Authorization" in asked.headers:
        return asked.headers["Authorization"].partition(f"{name}=")[2].split(",")[0]
    return asked.param(f"X-Amz-{name}")


def _headers(asked: Signed, names: Sequence[str]) -> str:
    known = {name.lower().strip(): value.strip() for name, value in asked.headers.items()}
    if "host" in known and _OLD_BOTO.match(known.get("user-agent", "")):
        known["host"] = known["host"].split(":")[0]
    return "\n".join(f"{name}:{known[name]}" for name in names if name in known) + "\n"


def _key(secret: str, scope: Sequence[bytes]) -> bytes:
    """For one date, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope[:3]:
        key = _hmac(key, part)
    return _hmac(key, b"aws4_request")


def of_text(asked: Signed, secret: str) -> bool:
    """The same of S3, where the text that was signed comes along. Raises Malformed."""
    try:
        text = base64.urlsafe_b64decode(asked.token)
    except (binascii.Error, ValueError):
        raise Malformed("Invalid EC2 signature.") from None
    made = _text_fourth(text, secret) if text.startswith(b"AWS4") else base64.b64encode(hmac.new(secret.encode(), text, "sha1").digest()).decode()
    return hmac.compare_digest(made.encode(), asked.signature.encode("utf-8", "replace"))


def _text_fourth(text: bytes, secret: str) -> str:
    lines = text.split(b"\n")
    scope = lines[2].split(b"/") if len(lines) == 4 else []
    if lines[0] != _V4.encode() or len(scope) != 4 or scope[3] != b"aws4_request" or scope[2] not in _TEXT_SERVICES:
        raise Malformed("Invalid EC2 signature.")
    return _hmac(_key(secret, scope), text).hex()
