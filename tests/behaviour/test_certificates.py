"""Certificates that change while the node runs, and its refusals at start, as an operator sees them."""

import signal
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.daemons import Daemon, host_port
from tests.support.nodes import OK
from tests.support.upgrades import upgraded
from tests.support.wire import WireClient, command


async def _shown_name(address: tuple[str, int], context: ssl.SSLContext) -> str:
    """Return the common name of the certificate that the node shows on its HTTPS port."""
    async with await WireClient.open(address, b"") as client:
        await client.start_tls(context)
        names = client.peer_certificate()["subject"]
        return next(value for ((key, value),) in names if key == "commonName")


async def test_sighup_reloads_certificates_and_drops_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.context()
    flags = (f"--tls-cert={authority.cert}", f"--tls-key={authority.key}", "--https-address=127.0.0.1:0")
    with Daemon("nsqd", *flags, data_path=tmp_path) as daemon:
        https = host_port(daemon.addresses["HTTPS"])
        async with (
            await upgraded(daemon.tcp, "tls_v1", context) as old,
            await upgraded(daemon.tcp, "tls_v1+deflate", context) as consumer,
        ):
            assert await consumer.ask(b"SUB t c\n") == OK
            await consumer.send(b"RDY 5\n")
            assert await _shown_name(https, context) == "node"

            authority.renew("renewed")
            daemon.signal(signal.SIGHUP)
            daemon.await_log("certificates reloaded")
            assert await _shown_name(https, context) == "renewed"

            authority.key.write_text("broken")
            daemon.signal(signal.SIGHUP)
            daemon.await_log("certificates not reloaded, those from before are kept")
            assert await _shown_name(https, context) == "renewed"

            assert await old.ask(command(b"PUB t", b"still here")) == OK
            assert (await consumer.message()).body == b"still here"
            async with await upgraded(daemon.tcp, "tls_v1", context) as new:
                assert await new.ask(command(b"PUB t", b"new")) == OK
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tls-cert=nowhere.pem", "--tls-key=nowhere.key"], "open nowhere.pem: no such file or directory"),
        (["--tls-cert=nowhere.pem"], "--tls-cert and --tls-key need each other"),
    ],
)
def test_a_node_without_its_certificate_does_not_start(flags: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as refused:
        Daemon("nsqd", *flags, data_path=tmp_path).start()
    line = str(refused.value).strip().splitlines()[-1]
    assert line.endswith(f"FATAL: failed to instantiate nsqd - failed to build TLS config - {said}")
