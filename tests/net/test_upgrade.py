"""TLS and compression on the V2 port: what IDENTIFY agrees on is what is spoken (PROTOCOL 1.6)."""

import gc
import ssl
import zlib
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from pynsqd.core.session import Session
from pynsqd.net.connection import Connection
from pynsqd.net.layers import tls as tls_layer
from pynsqd.options import TlsRequired
from tests.support.certificates import Authority
from tests.support.nodes import OK, V2, eventually, inside
from tests.support.upgrades import FEATURES, asking, upgraded
from tests.support.wire import ERROR, RESPONSE, Frame, WireClient, command, mpub

BIG = 200_000
HEARTBEAT = Frame(RESPONSE, b"_heartbeat_")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Layers change the protocols of a transport while it works, and the loops have transports of their own."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def quick_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_layer, "HANDSHAKE_S", 0.3)


@pytest.fixture(params=["utf-8 text", "bytes"])
def body(request: pytest.FixtureRequest) -> bytes:
    return b"".join(b"%d " % n for n in range(BIG // 6)) if request.param == "bytes" else b"n\xc3\xa4" * (BIG // 3)


@pytest.mark.parametrize("features", FEATURES)
async def test_publish_and_consume(features: str, body: bytes, tmp_path: Path, authority: Authority) -> None:
    context = authority.context()
    async with inside(tmp_path, **authority.options()) as node:
        async with (
            await upgraded(node.tcp, features, context) as publisher,
            await upgraded(node.tcp, features, context) as consumer,
        ):
            assert await publisher.ask(command(b"PUB t", body) + mpub(b"t", [b"small", body])) == OK
            assert await publisher.frame() == OK
            assert await consumer.ask(b"SUB t c\n") == OK
            await consumer.send(b"RDY 10\n")
            messages = await consumer.messages(3)
            assert [message.body for message in messages] == [body, b"small", body]
            await consumer.finish(messages)
            await eventually(lambda: _nothing_owed(node))
            (shown,) = (await node.api.channel())["clients"]
            assert (shown["tls"], shown["snappy"], shown["deflate"]) == (
                "tls_v1" in features,
                "snappy" in features,
                "deflate" in features,
            )
            if "tls_v1" in features:
                assert shown["tls_version"] == "TLS1.3"
                assert shown["tls_cipher_suite"] in ("Unknown 4865", "Unknown 4866", "Unknown 4867")


async def _nothing_owed(node: object) -> bool:
    return await node.api.owes() == (0, 0, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("features", FEATURES)
async def test_a_lone_message_leaves_at_once(features: str, tmp_path: Path, authority: Authority) -> None:
    """Whatever is written is flushed: the peer has to wait for nothing that comes later."""
    async with inside(tmp_path, **authority.options()) as node:
        async with await upgraded(node.tcp, features, authority.context()) as client:
            assert await client.ask(b"SUB t c\n") == OK
            await client.send(b"RDY 5\n")
            for number in range(3):
                await node.api.post("/pub?topic=t", b"%d" % number)
                with anyio.fail_after(30):
                    assert (await client.message()).body == b"%d" % number


@pytest.mark.parametrize("features", FEATURES)
async def test_the_end_of_what_was_sent_is_answered(features: str, tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        async with await upgraded(node.tcp, features, authority.context()) as client:
            await client.send(command(b"PUB t", b"x") + b"PUB t\n\0\0")
            await client.shutdown_write_raw()
            assert await client.frame() == OK
            assert await client.frame() == Frame(ERROR, b"E_BAD_MESSAGE PUB failed to read message body size")
            await client.expect_closed()


async def test_without_a_certificate_nobody_gets_tls(tmp_path: Path) -> None:
    async with inside(tmp_path, snappy=False) as node, await V2.open(node.tcp) as client:
        answer = await client.ask(asking("tls_v1+snappy"))
        assert b'"tls_v1":false' in answer.payload
        assert b'"snappy":false' in answer.payload
        assert await client.ask(command(b"PUB t", b"x")) == OK


# -- who does not wait -----------------------------------------------------------------------------------------------


async def test_a_handshake_sent_behind_identify_is_not_lost(tmp_path: Path, authority: Authority) -> None:
    """All at once: IDENTIFY and the first flight of TLS; then its last flight with a command behind it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = authority.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.send(asking("tls_v1") + outgoing.read())
        assert (await client.frame()).type == RESPONSE
        while True:
            incoming.write(await client.some())
            try:
                client_side.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        client_side.write(command(b"PUB t", b"x"))
        await client.send(outgoing.read())
        seen = b""
        while len(seen) < 20:
            try:
                seen += client_side.read()
            except ssl.SSLWantReadError:
                incoming.write(await client.some())
        assert seen == b"\0\0\0\x06\0\0\0\0OK" * 2


async def test_compressed_commands_behind_identify_are_not_lost(tmp_path: Path) -> None:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    raw = deflate.compress(command(b"PUB t", b"x")) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with inside(tmp_path) as node, await V2.open(node.tcp) as client:
        await client.send(asking("deflate") + raw)
        await client.frame()
        client.start_deflate()
        assert [await client.frame(), await client.frame()] == [OK, OK]
        await eventually(node.api.topic)


@pytest.mark.parametrize("features", ["tls_v1", "tls_v1+deflate"])
async def test_plain_commands_behind_identify_are_refused(features: str, tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.send(asking(features) + command(b"PUB t", b"x"))
        await client.frame()
        why = b"tls: first record does not look like a TLS handshake"
        assert await client.frame() == Frame(ERROR, b"E_IDENTIFY_FAILED IDENTIFY failed " + why)
        await client.expect_closed()
        assert (await node.api.stats())["topics"] == []


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"NOP\nNOP\n", b"tls: first record does not look like a TLS handshake"),
        (b"\x80\x2e\x01\x03\x01", b"tls: unsupported SSLv2 handshake received"),
        (b"\x16\x20\x01\x00\x05hello", b"tls: first record does not look like a TLS handshake"),
    ],
)
async def test_garbage_instead_of_a_handshake(sent: bytes, cause: bytes, tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.ask(asking("tls_v1"))
        for at in range(len(sent)):
            await client.send(sent[at : at + 1])
            if at == 5:
                break
        assert await client.frame() == Frame(ERROR, b"E_IDENTIFY_FAILED IDENTIFY failed " + cause)
        await client.expect_closed()


async def test_garbage_inside_a_handshake(tmp_path: Path, authority: Authority) -> None:
    """TLS says so in its own words first, as Go does."""
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.ask(asking("tls_v1"))
        await client.send(b"\x16\x03\x01\x00\x05hello")
        rest = await client.drain()
        assert rest[:1] == b"\x15"
        assert b"E_IDENTIFY_FAILED IDENTIFY failed tls: " in rest


async def test_an_end_instead_of_a_handshake(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.ask(asking("tls_v1"))
        await client.shutdown_write()
        assert await client.frame() == Frame(ERROR, b"E_IDENTIFY_FAILED IDENTIFY failed EOF")
        await client.expect_closed()


@pytest.mark.usefixtures("quick_deadline")
@pytest.mark.parametrize("sent", [b"", b"\x16\x03", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_end(
    sent: bytes, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a deadline, and meanwhile everybody else is served."""
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        await client.ask(asking("tls_v1"))
        if sent:
            await client.send(sent)
        monkeypatch.setattr(tls_layer, "HANDSHAKE_S", 60.0)  # for the others
        async with await upgraded(node.tcp, "tls_v1", authority.context()) as other:
            assert await other.ask(command(b"PUB t", b"x")) == OK
        frame = await client.frame()
        assert frame.payload.startswith(b"E_IDENTIFY_FAILED IDENTIFY failed read tcp 127.0.0.1:")
        assert frame.payload.endswith(b": i/o timeout")
        await client.expect_closed()


async def test_heartbeats_begin_after_a_handshake_that_took_longer_than_one(
    tmp_path: Path, authority: Authority
) -> None:
    """Nothing else happens on the node: nobody ends a turn for this client."""
    async with inside(tmp_path, **authority.options()) as node, await V2.open(node.tcp) as client:
        assert (await client.ask(asking("tls_v1", heartbeat_interval=1000))).type == RESPONSE
        await anyio.sleep(2.1)  # both deadlines of before the upgrade are over
        await client.start_tls(authority.context())
        assert await client.frame() == OK
        for _ in range(2):
            assert await WireClient.frame(client) == HEARTBEAT
            await client.send(b"NOP\n")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is collected in the test, and what earlier ones left to the collector is gone before."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _no_connections() -> bool:
    return not any(isinstance(one, Connection) for one in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
async def test_a_client_that_goes_away_in_the_upgrade_leaves_nothing(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        for features in FEATURES:
            for pipelined in (b"", b"\x16\x03\x01\x02\x00\x01"):
                async with await V2.open(node.tcp) as client:
                    await client.send(asking(features) + pipelined)
        assert await eventually(_no_connections, "connections are let go without the garbage collector")


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("features", ["", *FEATURES])
async def test_a_closed_connection_does_not_wait_for_the_collector(
    features: str, tmp_path: Path, authority: Authority
) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        client = await (upgraded(node.tcp, features, authority.context()) if features else V2.open(node.tcp))
        async with client:
            assert await client.ask(command(b"PUB t", b"x")) == OK
        await eventually(_no_connections)


async def test_garbage_after_the_handshake_closes(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        async with await upgraded(node.tcp, "tls_v1", authority.context()) as client:
            await client.send_past_tls(b"NOP\nNOP\n")
            with pytest.raises(ssl.SSLError, match="ALERT"):
                await client.expect_closed()


@pytest.mark.parametrize("features", ["snappy", "deflate", "tls_v1+snappy"])
async def test_garbage_instead_of_compression_closes(features: str, tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        async with await upgraded(node.tcp, features, authority.context()) as client:
            await client.send_raw(b"\xff\xff\xff\xffgarbage, for certain")
            await client.expect_closed()


# -- bombs -----------------------------------------------------------------------------------------------------------


async def test_a_bomb_of_commands_closes_with_a_reason_and_holds_up_nobody(tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(b"NOP\n" * (5 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    refused = False

    async def expect_refusal() -> None:
        nonlocal refused
        assert await client.frame() == Frame(ERROR, b"E_INVALID compressed data expands too much")
        refused = True

    async with inside(tmp_path, max_body_size=1 << 20, max_msg_size=1 << 20) as node:
        async with await upgraded(node.tcp, "deflate") as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.send_raw, bomb)
                tasks.start_soon(expect_refusal)
                await node.api.post("/pub?topic=t", b"x")
                assert not refused, "the bomb was first, all of it"
        await eventually(lambda: _no_clients(node))


async def _no_clients(node: object) -> bool:
    return (await node.api.stats())["producers"] in (None, [])  # type: ignore[attr-defined]


async def test_the_largest_body_may_be_all_the_same(tmp_path: Path) -> None:
    largest = 5 << 20
    async with inside(tmp_path, max_body_size=largest, max_msg_size=largest) as node:
        async with await upgraded(node.tcp, "deflate") as client:
            for _ in range(3):
                assert await client.ask(command(b"PUB t", bytes(largest))) == OK


# -- slow readers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", FEATURES)
async def test_a_client_that_does_not_read_is_paused_through_the_layers(
    features: str, tmp_path: Path, authority: Authority
) -> None:
    """It gets what the buffers hold, and the rest once it reads again."""
    count, size = 400, 50_000
    bodies = [zlib.compress(b"%d" % n).hex().encode() + _noise(n, size) for n in range(count)]
    async with inside(tmp_path, **authority.options()) as node:
        client = await upgraded(node.tcp, features, authority.context())
        async with client:
            assert await client.ask(b"SUB t c\n") == OK
            await client.send(b"RDY 2500\n")
            async with await V2.open(node.tcp) as publisher:
                for body in bodies:
                    assert await publisher.ask(command(b"PUB t", body)) == OK
            waiting = await node.api.owes()
            assert waiting[0] > 0, "everything was sent to somebody who does not read"
            assert [message.body for message in await client.messages(count)] == bodies


def _noise(seed: int, size: int) -> bytes:
    import random

    return random.Random(seed).randbytes(size)


# -- certificates ----------------------------------------------------------------------------------------------------


async def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> str:
    """Return OK, or what the client hears instead."""
    client = await V2.open(address)
    async with client:
        await client.ask(asking("tls_v1"))
        try:
            await client.start_tls(context)
            return (await client.frame()).payload.decode()
        except (ssl.SSLError, AssertionError, anyio.BrokenResourceError) as error:
            return f"refused: {error}"


@pytest.mark.parametrize(
    ("policy", "nobody", "known", "stranger"),
    [
        ("", True, True, True),
        ("whatever", True, True, True),
        ("require", False, True, True),
        ("require-verify", False, True, False),
    ],
)
async def test_client_certificates(
    policy: str, nobody: bool, known: bool, stranger: bool, tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "strange").mkdir()
    strange = authority.context()
    strange.load_cert_chain(*Authority(tmp_path / "strange").client_files("stranger"))
    given = authority.options(tls_client_auth_policy=policy, tls_root_ca_file=str(authority.root))
    async with inside(tmp_path, **given) as node:
        for context, welcome in (
            (authority.context(), nobody),
            (authority.context(client="known"), known),
            (strange, stranger),
        ):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context.minimum_version = context.maximum_version = version
                heard = await _handshake(node.tcp, context)
                assert (heard == "OK") is welcome, (heard, version)


@pytest.mark.parametrize(("policy", "name"), [("", ""), ("require", "known"), ("require-verify", "known")])
async def test_the_common_name_is_known(policy: str, name: str, tmp_path: Path, authority: Authority) -> None:
    given = authority.options(tls_client_auth_policy=policy, tls_root_ca_file=str(authority.root))
    async with inside(tmp_path, **given) as node:
        async with await upgraded(node.tcp, "tls_v1", authority.context(client="known")) as client:
            assert await client.ask(command(b"PUB t", b"x")) == OK
            gc.collect()  # sessions of earlier tests
            (session,) = [one for one in gc.get_objects() if isinstance(one, Session) and not one.closing]
            assert session.security is not None
            assert session.security.common_name == name


@pytest.mark.parametrize("features", ["tls_v1", "tls_v1+snappy"])
async def test_publishing_with_any_certificate(
    features: str, body: bytes, tmp_path: Path, authority: Authority
) -> None:
    """The other engine carries the same traffic."""
    given = authority.options(tls_client_auth_policy="require", tls_required=TlsRequired.YES)
    async with inside(tmp_path, **given) as node:
        async with await upgraded(node.tcp, features, authority.context(client="known")) as client:
            assert await client.ask(mpub(b"t", [body] * 5)) == OK
            assert await client.ask(b"SUB t c\n") == OK
            await client.send(b"RDY 10\n")
            assert [message.body for message in await client.messages(5)] == [body] * 5


async def test_the_oldest_version_is_an_option(tmp_path: Path, authority: Authority) -> None:
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with inside(tmp_path, **authority.options()) as node:
        assert await _handshake(node.tcp, context) == "OK"
    async with inside(tmp_path, **authority.options(tls_min_version=0x0304)) as node:
        assert (await _handshake(node.tcp, context)).startswith("refused")
        assert await _handshake(node.tcp, authority.context()) == "OK"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("policy", ["", "require"])
async def test_old_clients_are_let_in_when_asked_for(policy: str, tmp_path: Path, authority: Authority) -> None:
    context = authority.context(client="old")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    old = {"tls_min_version": 0x0301, "tls_client_auth_policy": policy}
    async with inside(tmp_path, **authority.options(**old, tls_security_level=0)) as node:
        assert await _handshake(node.tcp, context) == "OK"
    async with inside(tmp_path, **authority.options(**old)) as node:
        assert (await _handshake(node.tcp, context)).startswith("refused")
        assert node.logged("TLS 1.0 and 1.1 need --tls-security-level=0")


async def test_required_tls(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options(tls_required=TlsRequired.TCP_HTTPS)) as node:
        async with await V2.open(node.tcp) as client:
            refused = Frame(ERROR, b"E_INVALID cannot PUB in current state (TLS required)")
            assert await client.ask(command(b"PUB t", b"x")) == refused
            await client.expect_closed()
        async with await upgraded(node.tcp, "tls_v1+deflate", authority.context()) as client:
            assert await client.ask(command(b"PUB t", b"x")) == OK
        assert await node.api.ping() == (200, b"OK")
