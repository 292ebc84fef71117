"""Hashes of passwords: bcrypt, scrypt or argon2id, as `[identity] password_hash_algorithm` says. A hash names its own scheme and cost, so those
of before stay good when the option changes. bcrypt looks at 72 bytes: of a longer password it is given the sum instead, never a part.
"""

import base64
import hashlib
import hmac
import re
import secrets
from functools import cache

import argon2
import bcrypt

from nacre.core.config import Identity

# OWASP's parameters: 19 MiB, 2 passes.
_argon2 = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
_BCRYPT_ROUNDS, _SCRYPT_ROUNDS, _BCRYPT_BYTES = 12, 15, 72
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([^$]+)\$([^$]+)")


def hashed(how: Identity, password: str) -> str:
    if how.password_hash_algorithm == "argon2id":
        return _argon2.hash(password)
    if how.password_hash_algorithm == "scrypt":
        salt = secrets.token_bytes(16)
        cost = (how.password_hash_rounds or _SCRYPT_ROUNDS, how.scrypt_block_size, how.scrypt_parallelism)
        return f"$scrypt$ln={cost[0]},r={cost[1]},p={cost[2]}${_text(salt)}${_text(_scrypt(password, salt, cost))}"
    return bcrypt.hashpw(_short(password), bcrypt.gensalt(how.password_hash_rounds or _BCRYPT_ROUNDS)).decode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    rounds, block, parallel = cost
    memory = 129 * (1 << rounds) * block + (1 << 20)
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=1 << rounds, r=block, p=parallel, maxmem=memory)


def _short(password: str) -> bytes:
    raw = password.encode("utf-8", "surrogatepass")
    return raw if len(raw) <= _BCRYPT_BYTES and b"\0" not in raw else base64.b64encode(hashlib.sha384(raw).digest())


@cache
def _nobody(how: Identity) -> str:
    return hashed(how, secrets.token_urlsafe(16))


_KEY, REMEMBERED = secrets.token_bytes(32), 1024
_proven: dict[str, bytes] = {}  # a hash -> what the password that matched it gives under this process's key


def matches(how: Identity, stored: str | None, password: str) -> bool:
    """A wrong password takes the same time whether or not there is such a user; the right one is hashed once in a process
    (decision 0010), if `remember_passwords`."""
    given = hmac.digest(_KEY, password.encode("utf-8", "surrogatepass"), "sha256")
    if stored is not None and how.remember_passwords and hmac.compare_digest(_proven.get(stored, b""), given):
        return True
    if not _matches(stored or _nobody(how), password) or stored is None:
        return False
    if how.remember_passwords:
        if len(_proven) >= REMEMBERED:
            _proven.clear()
        _proven[stored] = given
    return True


def _matches(stored: str, password: str) -> bool:
    if stored.startswith("$2"):
        return bcrypt.checkpw(_short(password), stored.encode())
    found = _SCRYPT.fullmatch(stored)
    if found is not None:
        cost = (int(found[1]), int(found[2]), int(found[3]))
        return hmac.compare_digest(_scrypt(password, base64.b64decode(found[4]), cost), base64.b64decode(found[5]))
    try:
        return _argon2.verify(stored, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
