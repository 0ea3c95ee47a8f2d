"""What a node shows and demands in TLS, read from the files that the options name (PROTOCOL 4.1, PROCESS 9)."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from pynsqd.net.layers.engines import Engine, LenientEngine, StandardEngine
from pynsqd.wire.errors import StartupError

if TYPE_CHECKING:
    from OpenSSL import SSL

    from pynsqd.options import Options

_TLS_1_2: Final = 0x0303
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:DHE+AESGCM:!aNULL:!SHA1"
_OLD_CIPHERS: Final = "DEFAULT:!aNULL:!PSK:!SRP"  # for TLS 1.0 and 1.1, which know none of the others


class Certificates:
    """The certificate, its key and the trusted authorities, as the files were when they were last read."""

    def __init__(self, options: Options) -> None:
        """Read the files. Raises StartupError."""
        self._options = options
        self.engine: Callable[[], Engine] = self._read()

    def reload(self) -> None:
        """Read the files again, for the connections to come. Raises StartupError, and then all stays as it is."""
        self.engine = self._read()

    def _read(self) -> Callable[[], Engine]:
        options = self._options
        if not (options.tls_cert and options.tls_key):
            _refuse("--tls-cert and --tls-key need each other")
        for path in filter(None, (options.tls_cert, options.tls_key, options.tls_root_ca_file)):
            _try_to_open(path)
        context = self._context()
        if options.tls_client_auth_policy == "require":
            return partial(LenientEngine, self._lenient_context())
        return partial(StandardEngine, context)

    @property
    def notice(self) -> str:
        """What the operator should know; empty if there is nothing."""
        old = self._options.tls_min_version < _TLS_1_2
        return "TLS 1.0 and 1.1 need --tls-security-level=0" if old and self._options.tls_security_level else ""

    @property
    def _cipher_list(self) -> str:
        options = self._options
        names = _CIPHERS if options.tls_min_version >= _TLS_1_2 else _OLD_CIPHERS
        return f"{names}:@SECLEVEL={options.tls_security_level}"

    def _context(self) -> ssl.SSLContext:
        options = self._options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(self._cipher_list)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the operator's choice
            context.minimum_version = ssl.TLSVersion(options.tls_min_version)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(options.tls_cert, options.tls_key, password=_refuse_encrypted)
        except ssl.SSLError as error:
            _refuse(f"{options.tls_cert}, {options.tls_key}: {_worded(error)}")
        if options.tls_root_ca_file:
            try:
                context.load_verify_locations(options.tls_root_ca_file)
            except ssl.SSLError as error:
                _refuse(f"{options.tls_root_ca_file}: {_worded(error)}")
        if options.tls_client_auth_policy == "require-verify":
            context.verify_mode = ssl.CERT_REQUIRED
            if not options.tls_root_ca_file:
                context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return context

    def _lenient_context(self) -> SSL.Context:
        """Make a context that demands a certificate and takes any: the ssl module would verify it."""
        try:
            from OpenSSL import SSL  # noqa: PLC0415  # only who wants this policy pays for it
        except ImportError:
            _refuse("--tls-client-auth-policy=require needs pyOpenSSL, the extra tls-require")
        options = self._options
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(self._cipher_list.encode())
        context.set_min_proto_version(options.tls_min_version)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.use_certificate_chain_file(options.tls_cert)
        context.use_privatekey_file(options.tls_key)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        return context


def _refuse(text: str) -> NoReturn:
    raise StartupError(f"failed to instantiate nsqd - failed to build TLS config - {text}")


def _refuse_encrypted() -> NoReturn:
    _refuse("the key is encrypted, and nobody is there to type a password")


def _try_to_open(path: str) -> None:
    """Say which file is missing, which the ssl module does not."""
    try:
        open(path, "rb").close()
    except OSError as error:
        _refuse(f"open {path}: {os.strerror(error.errno or 0).lower()}")


def _worded(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "private key does not match public key"
    return error.reason.replace("_", " ").lower() if error.reason else "not what it should be, in PEM form"
