"""Real clients over TLS, snappy and deflate, alone and together, with client certificates (README.md).

All combinations of all clients play at the same time, each with a node of its own.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product

import pytest

from tests.interop.runs import Run, clients, play
from tests.support.certificates import Authority
from tests.support.daemons import Daemon, is_reference

CLIENTS = {name: client for name, client in clients().items() if name != "ansq"}  # which has no TLS and no snappy
BODIES = [
    *(f"single-{i}" for i in range(10)),
    *(f"batch-{i}" for i in range(25)),
    *(f"large-{i}" + "x" * 50_000 for i in range(3)),
]
COMBINATIONS = list(product(("plain", "tls", "client certificate", "any certificate"), ("", "snappy", "deflate")))[1:]
POLICIES = {"client certificate": "require-verify", "any certificate": "require"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def runs(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str, str], Future[Run]]]:
    """Let every client that is there play, in all ways."""
    cert, key = authority.client_files("client")
    shown = {"root": str(authority.root), "cert": str(cert), "key": str(key)}
    flags = (f"--tls-cert={authority.cert}", f"--tls-key={authority.key}", "--https-address=127.0.0.1:0")
    with (
        Daemon("nsqlookupd", data_path=tmp_path_factory.mktemp("lookupd")) as lookupd,
        ThreadPoolExecutor(12) as pool,
    ):
        submitted = {}
        for (name, client), (security, compression) in product(CLIENTS.items(), COMBINATIONS):
            if client.missing:
                continue
            layers = {"compression": compression} | (shown if security != "plain" else {})
            given = flags
            if security in POLICIES:
                policy = f"--tls-client-auth-policy={POLICIES[security]}"
                given += (f"--tls-root-ca-file={authority.root}", policy, "--tls-required=tcp-https")
            topic = f"{name}_{security.replace(' ', '_')}_{compression}"
            folder, env = tmp_path_factory.mktemp("node"), {"NODE_EXTRA_CA_CERTS": str(authority.root)}
            submitted[name, security, compression] = pool.submit(
                play, client, topic, lookupd, folder, *given, env=env, layers=layers
            )
        yield submitted


@pytest.mark.parametrize(("security", "compression"), COMBINATIONS)
@pytest.mark.parametrize("name", CLIENTS)
def test_client_plays(
    name: str, security: str, compression: str, runs: dict[tuple[str, str, str], Future[Run]]
) -> None:
    if is_reference() and name == "pynsq" and security != "plain" and compression:
        pytest.skip("pynsq takes a TLS record that decodes to nothing for an error, and nsqd sends such")
    if missing := CLIENTS[name].missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name}: {missing}")
    run = runs[name, security, compression].result()
    delivered = [(event.body, event.attempts) for event in run.events if event.what == "delivered"]
    assert (run.exit_code, sorted(delivered)) == (0, sorted((body, 1) for body in BODIES)), run.stderr
    [client] = run.at_restart["clients"]
    assert client["user_agent"].startswith(CLIENTS[name].user_agent)
    seen = client["tls"], client["snappy"], client["deflate"]
    assert seen == (security != "plain", compression == "snappy", compression == "deflate")
    counts = ("message_count", "depth", "in_flight_count", "deferred_count")
    assert [run.at_restart[count] for count in counts] == [len(BODIES), 0, 0, 0]
