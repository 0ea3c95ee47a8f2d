"""TLS without a socket: encrypted bytes in, plain bytes out, and back. By the ssl module, or by pyOpenSSL."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from pynsqd.core.security import Security
from pynsqd.wire.errors import NsqError

if TYPE_CHECKING:
    from OpenSSL import SSL

_READ: Final = 1 << 16
_VERSIONS: Final = {"TLSv1": "TLS1.0", "TLSv1.1": "TLS1.1", "TLSv1.2": "TLS1.2", "TLSv1.3": "TLS1.3"}
# How nsqd shows a cipher: by name the first ones of Go, by number all others (PROTOCOL 2.5).
_SUITES: Final = {
    "RC4-SHA": "TLS_RSA_WITH_RC4_128_SHA",
    "DES-CBC3-SHA": "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "AES128-SHA": "TLS_RSA_WITH_AES_128_CBC_SHA",
    "AES256-SHA": "TLS_RSA_WITH_AES_256_CBC_SHA",
    "ECDHE-ECDSA-RC4-SHA": "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "ECDHE-ECDSA-AES128-SHA": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "ECDHE-ECDSA-AES256-SHA": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "ECDHE-RSA-RC4-SHA": "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "ECDHE-RSA-DES-CBC3-SHA": "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "ECDHE-RSA-AES128-SHA": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "ECDHE-RSA-AES256-SHA": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
}
_UNKNOWN_AUTHORITY: Final = frozenset((2, 18, 19, 20, 21, 27))  # X509_V_ERR_*: no way from the certificate to a root


class TlsError(NsqError):
    """The peer does not speak TLS as agreed; the text is worded as Go words it, where there is a word of Go's."""


class Engine(Protocol):
    """One TLS connection, server side."""

    def feed(self, data: bytes) -> None:
        """Take what the socket brought."""
        ...

    def handshake(self) -> bool:
        """Go on with the handshake; tell whether it is done. Raises TlsError."""
        ...

    def read(self) -> tuple[bytes, bool]:
        """Return what was decrypted and whether the peer has ended. Raises TlsError once there is nothing before it."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt ``data`` for ``take``. Raises TlsError."""
        ...

    def take(self) -> bytes:
        """Return what is to be written to the socket, and forget it."""
        ...

    def shut_down(self) -> None:
        """Say goodbye, for ``take``."""
        ...

    def security(self) -> Security:
        """Tell what was agreed, after the handshake."""
        ...


class StandardEngine:
    """By the ssl module."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def feed(self, data: bytes) -> None:
        """See ``Engine``."""
        self._in.write(data)

    def take(self) -> bytes:
        """See ``Engine``."""
        return self._out.read()

    def handshake(self) -> bool:
        """See ``Engine``."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(_cause(error)) from None
        return True

    def read(self) -> tuple[bytes, bool]:
        """See ``Engine``."""
        parts: list[bytes] = []
        ended = False
        try:
            while not ended and (not parts or self._in.pending or self._tls.pending()):
                part = self._tls.read(_READ)
                ended = not part
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            if not parts:
                raise TlsError(_cause(error)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts), ended

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ``Engine``."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise TlsError(_cause(error)) from None

    def shut_down(self) -> None:
        """See ``Engine``."""
        with suppress(ssl.SSLError):  # it wants the peer's goodbye, which nobody waits for
            self._tls.unwrap()

    def security(self) -> Security:
        """See ``Engine``."""
        name, _, _ = self._tls.cipher() or ("", "", 0)
        shown: dict[str, Any] = self._tls.getpeercert() or {}
        names = [value for group in shown.get("subject", ()) for key, value in group if key == "commonName"]
        return _security(self._tls.version() or "", name, names[0] if names else "")


class LenientEngine:
    """By pyOpenSSL, which can ask for a certificate without asking whose it is."""

    def __init__(self, context: SSL.Context) -> None:
        from OpenSSL import SSL  # noqa: PLC0415  # only who wants this policy pays for it

        self._ssl = SSL
        self._tls = SSL.Connection(context, None)
        self._tls.set_accept_state()

    def feed(self, data: bytes) -> None:
        """See ``Engine``."""
        if data:  # it takes nothing for a failure
            self._tls.bio_write(data)

    def handshake(self) -> bool:
        """See ``Engine``."""
        try:
            self._tls.do_handshake()
        except self._ssl.WantReadError:
            return False
        except self._ssl.Error as error:
            raise TlsError(_pyopenssl_cause(error)) from None
        return True

    def read(self) -> tuple[bytes, bool]:
        """See ``Engine``."""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self._tls.recv(_READ))
        except self._ssl.WantReadError:
            ended = False
        except self._ssl.ZeroReturnError:
            ended = True
        except self._ssl.Error as error:
            if not parts:
                raise TlsError(_pyopenssl_cause(error)) from None
            ended = False
        return parts[0] if len(parts) == 1 else b"".join(parts), ended

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ``Engine``."""
        try:
            self._tls.sendall(bytes(data))
        except self._ssl.Error as error:
            raise TlsError(_pyopenssl_cause(error)) from None

    def take(self) -> bytes:
        """See ``Engine``."""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self._tls.bio_read(_READ))
        except self._ssl.WantReadError:
            return b"".join(parts)

    def shut_down(self) -> None:
        """See ``Engine``."""
        with suppress(self._ssl.Error):
            self._tls.shutdown()

    def security(self) -> Security:
        """See ``Engine``."""
        from cryptography.x509 import NameOID  # noqa: PLC0415  # pyOpenSSL has loaded it

        shown = self._tls.get_peer_certificate(as_cryptography=True)
        names = shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if shown else []
        common_name = str(names[0].value) if names else ""
        return _security(self._tls.get_protocol_version_name(), self._tls.get_cipher_name() or "", common_name)


def _security(version: str, cipher: str, common_name: str) -> Security:
    return Security(_VERSIONS.get(version, version), _suite(cipher), common_name)


def _suite(cipher: str) -> str:
    return _SUITES.get(cipher) or f"Unknown {_numbers().get(cipher, 0)}"


def _numbers() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}


def _cause(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_AUTHORITY:
            return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    return _worded(error.reason or str(error))


def _pyopenssl_cause(error: Exception) -> str:
    details = error.args[0] if error.args else None
    return _worded(details[-1][2] if isinstance(details, list) and details else str(error))


def _worded(reason: str) -> str:
    """Say OpenSSL's reason, whether as a constant or in words, as Go would."""
    words = reason.replace("_", " ").lower()
    if words == "peer did not return a certificate":
        return "tls: client didn't provide a certificate"
    _, alert, rest = words.partition(" alert ")
    return f"remote error: tls: {rest}" if alert else f"tls: {words}"
