"""Files that cannot be used, in one line each, and files that change."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pynsqd.net.layers.certificates import Certificates
from pynsqd.options import Options
from pynsqd.wire.errors import StartupError
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refusal(options: dict[str, Any]) -> str:
    with pytest.raises(StartupError) as refused:
        Certificates(Options(**options))
    return str(refused.value).removeprefix("failed to instantiate nsqd - failed to build TLS config - ")


@pytest.mark.parametrize("policy", ["", "require", "require-verify"])
def test_what_cannot_be_used_is_named(policy: str, authority: Authority, tmp_path: Path) -> None:
    good = authority.options(tls_client_auth_policy=policy)
    nowhere, folder = str(tmp_path / "nowhere"), tmp_path
    other = authority.client_files("other")[1]
    for wrong, said in (
        ({"tls_cert": ""}, "--tls-cert and --tls-key need each other"),
        ({"tls_key": ""}, "--tls-cert and --tls-key need each other"),
        ({"tls_cert": nowhere}, f"open {nowhere}: no such file or directory"),
        ({"tls_key": nowhere}, f"open {nowhere}: no such file or directory"),
        ({"tls_key": str(folder)}, f"open {folder}: is a directory"),
        ({"tls_root_ca_file": nowhere}, f"open {nowhere}: no such file or directory"),
        ({"tls_key": str(other)}, f"{authority.cert}, {other}: private key does not match public key"),
        ({"tls_key": str(authority.cert)}, f"{authority.cert}, {authority.cert}: not what it should be, in PEM form"),
        ({"tls_root_ca_file": str(other)}, f"{other}: no certificate or crl found"),
    ):
        assert refusal(good | wrong) == said
    Certificates(Options(**good))


def test_an_encrypted_key_is_refused_and_not_asked_for(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(authority.key.read_bytes(), None)
    locked = form.BestAvailableEncryption(b"secret")
    authority.key.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
    assert refusal(authority.options()) == "the key is encrypted, and nobody is there to type a password"


def test_broken_files_leave_all_as_it_is(authority: Authority) -> None:
    certificates = Certificates(Options(**authority.options()))
    before = certificates.engine
    authority.key.write_text("broken")
    with pytest.raises(StartupError):
        certificates.reload()
    assert certificates.engine is before
    authority.renew()
    certificates.reload()
    assert certificates.engine is not before


@pytest.mark.parametrize("policy", ["", "require"])
@pytest.mark.parametrize(("bits", "level"), [(512, 0), (1024, 1)])
def test_short_keys_need_a_lower_security_level(bits: int, level: int, policy: str, tmp_path: Path) -> None:
    cert, key = tmp_path / "short.pem", tmp_path / "short.key"
    words = ["openssl", "req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-sha1", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    given = {"tls_cert": str(cert), "tls_key": str(key), "tls_client_auth_policy": policy}
    Certificates(Options(**given, tls_security_level=level))
    assert "too small" in refusal({**given, "tls_security_level": level + 1})
