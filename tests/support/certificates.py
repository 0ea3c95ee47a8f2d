"""Certificates, made for the test that needs them."""

import ssl
from pathlib import Path
from typing import Any

import trustme


class Authority:
    """A certificate authority of its own, and files for a node in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca = trustme.CA()
        self.root = folder / "root.pem"
        self._ca.cert_pem.write_to_path(self.root)
        self.cert, self.key = folder / "node.pem", folder / "node.key"
        self.renew()

    def renew(self, common_name: str = "node") -> None:
        """Write a new certificate and key for localhost where the last ones were."""
        issued = self._ca.issue_cert("localhost", "127.0.0.1", common_name=common_name)
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of a node with these files."""
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)} | more

    def client_files(self, common_name: str) -> tuple[Path, Path]:
        """Write certificate and key of a client."""
        issued = self._ca.issue_cert("client@example.org", common_name=common_name)
        cert, key = self.folder / f"{common_name}.pem", self.folder / f"{common_name}.key"
        cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key

    def context(self, *, client: str = "") -> ssl.SSLContext:
        """Return what a client needs: trust in this authority, and a certificate with that name if there is one."""
        context = ssl.create_default_context(cafile=str(self.root))
        if client:
            context.load_cert_chain(*self.client_files(client))
        return context
