"""Fetching from addresses that users name, without being led to places that they could not reach themselves.

An address is judged twice: as it is written, by the operator's lists (`[import_filtering_opts]`), and as what its host's name stands for:
unless the operator allowed that host by name, every address must be a public one. The connection then goes to an address that was judged
and to no other, so a name that changes its mind between two questions gains nothing. A redirect is a new address, judged from the
beginning. Credentials in an address, other protocols and proxies of the environment are not used.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from nacre.core.config import ImportFiltering
from nacre.core.errors import BadRequest, Error

MOST_REDIRECTS = 5
PATIENCE = 60.0
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class FetchFailed(Error):
    """What was to be fetched did not come; the message is for the user."""

    status = 502


def host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def check(url: str, rules: ImportFiltering) -> None:
    """Raises BadRequest when the lists do not let this address through."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise BadRequest(f"URI for web-download does not pass filtering: {url}") from error
    host = host_of(url)
    passes = (
        parts.scheme in _PORTS and bool(host) and not parts.username
        and _listed(parts.scheme, rules.allowed_schemes, rules.disallowed_schemes)
        and _listed(host, rules.allowed_hosts, rules.disallowed_hosts) and _listed(port, rules.allowed_ports, rules.disallowed_ports)
    )  # fmt: skip
    if not passes:
        raise BadRequest(f"URI for web-download does not pass filtering: {url}")


def _listed(value: object, allowed: tuple[object, ...], disallowed: tuple[object, ...]) -> bool:
    return value in allowed if allowed else value not in disallowed


def public(text: str) -> bool:
    """Whether an IP address is one of the open network, whatever it is wrapped in."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _addresses(host: str, port: int, rules: ImportFiltering) -> list[str]:
    try:
        found = list(dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"The name {host} cannot be resolved.") from error
    if host not in rules.allowed_hosts and not all(public(address) for address in found):
        raise BadRequest(f"{host} is not on the open network; an administrator may name it in allowed_hosts.")
    return found


class Answer:
    """What comes from an address. An end that comes too soon raises FetchFailed."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, url: str) -> None:
        self._connection, self._response, self._url = connection, response, url
        self.length, self._read = response.length, 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise FetchFailed(f"{self._url} could not be read: {error or type(error).__name__}") from error
        self._read += len(data)
        if not data and size and self.length is not None and self._read < self.length:
            raise FetchFailed(f"{self._url} ended after {self._read} of {self.length} bytes")
        return data

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def open_url(url: str, rules: ImportFiltering, headers: Mapping[str, str]) -> Answer:
    """Opens `url`, following redirects within its limits. Raises BadRequest (not allowed), FetchFailed."""
    secret = {"x-auth-token"}
    for _ in range(MOST_REDIRECTS + 1):
        check(url, rules)
        connection, response = _ask(url, rules, headers)
        if response.status in (301, 302, 303, 307, 308) and response.getheader("location"):
            connection.close()
            before, url = url, urljoin(url, response.getheader("location") or "")
            if urlsplit(before).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name not in secret}
            continue
        if response.status not in (200, 206):
            connection.close()
            raise FetchFailed(f"{url} answered {response.status} {response.reason}")
        return _at(Answer(connection, response, url), response.status, headers)
    raise FetchFailed(f"{url} redirects more than {MOST_REDIRECTS} times")


def _at(answer: Answer, status: int, headers: Mapping[str, str]) -> Answer:
    """A server that knows no ranges sends everything: what was not asked for is passed over."""
    ahead = int(headers["range"].partition("=")[2].rstrip("-")) if status == 200 and "range" in headers else 0
    while ahead > 0 and (data := answer.read(min(ahead, 1 << 20))):
        ahead -= len(data)
    return answer


def _ask(url: str, rules: ImportFiltering, headers: Mapping[str, str]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts, host = urlsplit(url), host_of(url)
    port = parts.port or _PORTS[parts.scheme]
    failure: Exception | None = None
    for address in _addresses(host, port, rules):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        try:
            plain = socket.create_connection((address, port), timeout=PATIENCE)
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if parts.scheme == "https" else plain
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"host": parts.netloc, "accept-encoding": "identity", **headers})
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            failure = error
    raise FetchFailed(f"{url} cannot be reached: {failure or 'it has no address'}")
