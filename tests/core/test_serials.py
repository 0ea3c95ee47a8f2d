"""Serials of deferred messages go on over restarts, also when no file is left to tell them."""

from pathlib import Path

from pynsqd.storage.log_store import LogStore
from tests.support.session_wire import Node, S, command


def test_a_deferred_message_is_kept_after_all_earlier_files_are_gone(tmp_path: Path) -> None:
    node = Node(LogStore(tmp_path, 1 << 20, print))
    node.client().ask(command(b"DPUB t 1000", b"x"))
    node.turn()
    first = node.consumer(1, channel=b"other")
    node.advance(ns=2 * S)
    first.send(b"FIN " + first.messages()[0].id + b"\n")
    node.turn()
    node.consumer(10)  # a channel that owns what is deferred from serial 1 on
    for _ in range(6):
        node.advance(ns=60 * S)
        node.checkpoint()
    assert not list(tmp_path.rglob("*.def"))
    node.stop()
    node.client().ask(command(b"DPUB t 10000", b"near"))
    node.turn()
    node.checkpoint()
    node.kill()
    assert len(node.channel().deferred) == 1
