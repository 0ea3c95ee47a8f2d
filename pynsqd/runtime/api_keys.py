"""Keys for the HTTP sides of both daemons (--http-api-key-file): who may do what, and in whose name it was done.

The file has a line for each key: a name, its roles, and the SHA-256 of the key in hexadecimal. The name ``anonymous``
with ``-`` for a key gives roles to requests without one. Keys are random and long, so a plain hash hides them well.

    # name      roles          sha256 of the key
    anonymous   publish,read   -
    deploy      admin          2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from pynsqd.runtime.http import Reply, failure
from pynsqd.wire.errors import StartupError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PUBLISH: Final = "publish"
READ: Final = "read"
ADMIN: Final = "admin"  # has the other two
OPEN: Final = ""  # what needs no key at all

_ROLES: Final = frozenset((PUBLISH, READ, ADMIN))
_ANONYMOUS: Final = "anonymous"
_NAME: Final = re.compile(r"[.a-zA-Z0-9_-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NO_ACCESS: Final = 0o027  # the owner's, and perhaps a group's to read
_MAX_FILE: Final = 1 << 20  # bytes
_LONGEST_SHOWN: Final = 300

# Says which role a request of that method and path needs.
Policy = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    roles: frozenset[str]
    digest: bytes


class ApiKeys:
    """The keys of one daemon, as the file had them when it was read last."""

    def __init__(self, path: str, policy: Policy, log: FilteringBoundLogger) -> None:
        """Read the file. Raises StartupError for whatever is wrong with it."""
        self._path = path
        self._policy = policy
        self._log = log
        self.on_reload: Callable[[], None] = lambda: None
        self._keys, self._anonymous = _read(path)

    def reload(self) -> None:
        """Read the file again; if something is wrong with it the old keys stay, and the log says so."""
        try:
            self._keys, self._anonymous = _read(self._path)
        except StartupError as error:
            self._log.error("API keys not reloaded, those from before are kept", error=str(error))
            return
        self._log.info("API keys reloaded", keys=len(self._keys))
        self.on_reload()

    def refusal(self, method: str, path: str, key: str | None, raw_query: str = "") -> Reply | None:
        """Return the answer to a request that is not allowed with ``key``; None if it is.

        ``path`` is unescaped, so a ``?`` in it belongs to it. What an admin does is logged with the name of the key.
        """
        role = self._policy(method, path)
        if role == OPEN:
            return None
        name, roles = _ANONYMOUS, self._anonymous
        if key is not None:
            found = self._find(key)
            if found is None:
                return _unauthorized()
            name, roles = found.name, found.roles | roles
        if role not in roles and ADMIN not in roles:
            return _unauthorized() if key is None else failure(403, "FORBIDDEN")
        if role == ADMIN:
            target = f"{path}?{raw_query}" if raw_query else path
            self._log.info("admin request", method=method, target=target[:_LONGEST_SHOWN], key=name)
        return None

    def _find(self, key: str) -> _Key | None:
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for one in self._keys:
            if compare_digest(one.digest, digest):
                found = one
        return found


def node_policy(method: str, path: str) -> str:
    """Say which role a node's request needs."""
    if path in ("/pub", "/mpub"):
        return PUBLISH
    if path in ("/ping", "/livez", "/readyz"):
        return OPEN
    return READ if method == "GET" and not path.startswith("/debug") else ADMIN


def lookupd_policy(method: str, path: str) -> str:
    """Say which role a lookupd's request needs: clients and nodes ask without a key, so reading is open."""
    return OPEN if method == "GET" and not path.startswith("/debug") else ADMIN


def _unauthorized() -> Reply:
    refusal = failure(401, "UNAUTHORIZED")
    return Reply(401, refusal.body, (("WWW-Authenticate", "Bearer"), *refusal.headers))


def _read(path: str) -> tuple[tuple[_Key, ...], frozenset[str]]:
    """Return the keys of a file, and the roles of those who have none. Raises StartupError."""
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _NO_ACCESS:
                raise StartupError(f"--http-api-key-file {path}: others have access to it, chmod it to 0600 or 0640")
            text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise StartupError(f"--http-api-key-file {path}: {error.strerror or error}") from None
    if len(text) > _MAX_FILE:
        raise StartupError(f"--http-api-key-file {path}: more than {_MAX_FILE} bytes")
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError:
        raise StartupError(f"--http-api-key-file {path}: not UTF-8") from None
    keys: dict[str, _Key] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                key = _parse(words)
                if key.name in keys or any(key.digest == one.digest for one in keys.values()):
                    raise ValueError("this name, or this key, was there before")
            except ValueError as error:
                raise StartupError(f"--http-api-key-file {path}: line {number}: {error}") from None
            keys[key.name] = key
    if not keys:
        raise StartupError(f"--http-api-key-file {path}: no keys in it")
    anonymous = keys.pop(_ANONYMOUS, None)
    return tuple(keys.values()), anonymous.roles if anonymous else frozenset()


def _parse(words: list[str]) -> _Key:
    if len(words) != 3:
        raise ValueError("not a name, roles and the SHA-256 of a key")
    name, roles, digest = words
    if not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits and any of . _ -")
    if not _ROLES.issuperset(roles.split(",")):
        raise ValueError(f"roles are {', '.join(sorted(_ROLES))}, separated by commas")
    if name == _ANONYMOUS:
        if digest != "-":
            raise ValueError("anonymous has - for a key")
        return _Key(name, frozenset(roles.split(",")), b"")
    if not _HASH.fullmatch(digest):
        raise ValueError("the SHA-256 of a key has 64 hexadecimal digits, in lower case")
    return _Key(name, frozenset(roles.split(",")), bytes.fromhex(digest))
