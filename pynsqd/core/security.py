"""What TLS has shown of a connection, as plain data: for /stats and for whoever decides what a client may do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Security:
    """One TLS connection. ``common_name`` is that of the client's certificate, empty if it has shown none."""

    version: str  # as nsqd writes it, such as TLS1.2
    cipher_suite: str
    common_name: str = ""
