"""runtime/listener: addresses as nsqd takes them, and what a killed process leaves behind (PROCESS 4, 10)."""

import asyncio
import resource
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from pynsqd.runtime import listener as listener_module
from pynsqd.runtime.listener import Listener, listen, split_address
from pynsqd.wire.errors import StartupError


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(b"hello")
        transport.close()


async def greeting(listener: Listener) -> bytes:
    await listener.start()
    if listener.port < 0:
        reader, writer = await asyncio.open_unix_connection(listener.address)
    else:
        reader, writer = await asyncio.open_connection(*listener.address.rsplit(":", 1))
    try:
        return await reader.read()
    finally:
        writer.close()
        listener.close()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:4150", ("127.0.0.1", 4150)),
        (":4150", ("", 4150)),
        ("[::1]:0", ("::1", 0)),
        ("/run/nsqd.sock", None),
        ("nsqd.sock", None),
        ("/odd:name/nsqd.sock", None),
    ],
)
def test_split_address(address: str, parts: tuple[str, int] | None) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:"])
def test_invalid_port(address: str) -> None:
    with pytest.raises(StartupError, match="invalid port"):
        split_address(address)


async def test_port_0_becomes_a_real_one() -> None:
    listener = await listen("127.0.0.1:0", Greeter)
    assert listener.port > 0
    assert listener.address == f"127.0.0.1:{listener.port}"
    assert await greeting(listener) == b"hello"


async def test_no_host_is_every_address() -> None:
    listener = await listen(":0", Greeter)
    assert listener.address == f"0.0.0.0:{listener.port}"
    listener.close()


async def test_a_peer_that_vanished_is_noticed() -> None:
    """What is accepted has Go's keep-alive: 9 probes, 15 s apart, after 15 s of silence."""
    accepted = asyncio.get_running_loop().create_future()

    class Watcher(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            own = transport.get_extra_info("socket")
            on = own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
            accepted.set_result([on, *(own.getsockopt(socket.IPPROTO_TCP, option) for option in options)])
            transport.close()

    assert await greeting(await listen("127.0.0.1:0", Watcher)) == b""
    assert await accepted == [1, 15, 15, 9]


async def test_those_who_wait_are_taken_several_in_a_round() -> None:
    """Clients with a connection for each request share turns of the loop, and so appends."""
    rounds = 0
    taken: Counter[int] = Counter()
    loop = asyncio.get_running_loop()

    def count_rounds() -> None:
        nonlocal rounds
        rounds += 1
        loop.call_soon(count_rounds)

    def make() -> asyncio.Protocol:
        taken[rounds] += 1
        return asyncio.Protocol()

    listener = await listen("127.0.0.1:0", make)
    await listener.start()
    count_rounds()
    with ExitStack() as clients:
        for _ in range(16):
            clients.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
        with anyio.fail_after(30):
            while taken.total() < 16:
                await anyio.lowlevel.checkpoint()
        assert max(taken.values()) == 4
    listener.close()


async def test_a_listener_that_is_closed_while_it_starts_is_closed() -> None:
    listener = await listen("127.0.0.1:0", Greeter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.start)
        await anyio.lowlevel.checkpoint()
        listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port))


async def test_a_listener_that_has_to_pause_again_while_it_resumes_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are scarce again with the first ones that come in: nobody else does."""
    limits = [1000]  # what the next looks find; the last one counts for all behind it
    monkeypatch.setattr(listener_module, "_LOOK_EVERY", 1)
    monkeypatch.setattr(listener_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits.pop(0) if len(limits) > 1 else limits[0], 1000))
    made = 0

    def make() -> asyncio.Protocol:
        nonlocal made
        made += 1
        return asyncio.Protocol()

    paused: list[str] = []
    listener = await listen("127.0.0.1:0", make, lambda text, **_: paused.append(text))
    await listener.start()
    with ExitStack() as clients, anyio.fail_after(30):
        for _ in range(50):
            clients.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
        limits[:] = [0]
        while not paused:
            await anyio.lowlevel.checkpoint()
        for _ in range(3):
            limits[:] = [1000, 0]
            while len(limits) > 1 and made < 50:
                await anyio.sleep(0.001)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
        assert made < 40
        limits[:] = [1000]
        while made < 50:
            await anyio.sleep(0.001)
    listener.close()


async def test_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartupError, match=rf"^listen \({address}\) failed - .*in use") as raised:
            await listen(address, Greeter)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "a..b"])
async def test_unknown_host_is_a_startup_error(host: str) -> None:
    with pytest.raises(StartupError, match=rf"^listen \({host}:0\) failed - "):
        await listen(f"{host}:0", Greeter)


async def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "nsqd.sock")
    listener = await listen(path, Greeter)
    assert (listener.address, listener.port) == (path, -1)
    assert await greeting(listener) == b"hello"


async def test_the_file_of_a_unix_socket_goes_with_its_listener(tmp_path: Path) -> None:
    """But not the one that somebody else has put there since."""
    path = tmp_path / "nsqd.sock"
    listener = await listen(str(path), Greeter)
    await listener.start()
    listener.close()
    listener.close()
    assert not path.exists()
    old = await listen(str(path), Greeter)
    path.unlink()
    new = await listen(str(path), Greeter)
    old.close()
    assert await greeting(new) == b"hello"
    assert not path.exists()


async def test_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "nsqd.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert path.is_socket()
    assert await greeting(await listen(str(path), Greeter)) == b"hello"


async def test_unix_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "nsqd.sock")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(path)
        taken.listen()
        with pytest.raises(StartupError, match="in use"):
            await listen(path, Greeter)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
