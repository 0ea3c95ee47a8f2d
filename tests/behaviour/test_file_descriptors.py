"""What happens when the node has no file descriptors left: those who are in stay, the others wait."""

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually
from tests.support.wire import command, http

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process: Linux only")

_LIMIT = 160
_CROWD = 300


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_accepting_pauses_and_resumes(loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who is connected is dropped, files can be opened, one line is logged, and room lets the next ones in."""
    if loop == "asyncio":
        (tmp_path / "no").mkdir()
        (tmp_path / "no/uvloop.py").write_text("raise ImportError")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'no'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    else:
        pytest.importorskip("uvloop")
    with Daemon("nsqd", data_path=tmp_path) as node, ExitStack() as crowd:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (_LIMIT, _LIMIT))
        async with await V2.open(node.tcp) as client:
            assert await client.ask(command(b"PUB t", b"x")) == OK
            sockets = []
            for _ in range(_CROWD):
                one = crowd.enter_context(socket.create_connection(node.tcp, timeout=30))
                one.sendall(b"  V2" + command(b"PUB t", b"y"))
                sockets.append(one)
            await eventually(lambda: "file descriptors are running out" in node.stderr)
            # New topics need files; the reserve is for them.
            for number in range(3):
                assert await client.ask(command(b"PUB new%d" % number, b"x")) == OK
            served = [one for one in sockets if _answer(one) == OK_BYTES]
            assert 50 <= len(served) < _LIMIT
            for one in served:
                one.close()
            rest = [one for one in sockets if one not in served]
            while rest:  # they come in as others leave
                await eventually(lambda: [one for one in rest if _answer(one) == OK_BYTES])
                for one in [one for one in rest if one in _ANSWERED]:
                    one.close()
                    rest.remove(one)
            assert await client.ask(command(b"PUB t", b"x")) == OK
            await eventually(lambda: _answers(node.http))
            assert (await Api(node.http).topic())["message_count"] == _CROWD + 2
        assert node.stderr.count("file descriptors are running out") <= 2  # one a listener
        assert "Traceback" not in node.stderr
        assert "Too many open files" not in node.stderr


@pytest.mark.parametrize("server", ["nsqd", "nsqlookupd"])
def test_as_many_files_as_may_be(server: str, tmp_path: Path) -> None:
    """Whatever the shell says, as programs in Go do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
        daemon = stack.enter_context(Daemon(server, data_path=tmp_path))
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (hard, hard)


OK_BYTES = b"\0\0\0\x06\0\0\0\0OK"
_ANSWERED: set[socket.socket] = set()


def _answer(one: socket.socket) -> bytes:
    """Return what is there, without waiting for it."""
    one.settimeout(0.01)
    try:
        got = one.recv(100)
    except TimeoutError:
        return b""
    assert got == OK_BYTES
    _ANSWERED.add(one)
    return got


async def _answers(address: tuple[str, int]) -> bool:
    return (await http(address, "GET /ping")).status == 200
