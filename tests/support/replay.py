"""Runs a golden exchange against a real daemon and compares everything that comes back."""

import json
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
import anyio.abc
from anyio import to_thread

from tests.support.daemons import Daemon, host_port
from tests.support.fixtures import Binding, Event, Fixture, bind, encode, shared
from tests.support.peers import HttpPeer, LookupPeer, Peer
from tests.support.wire import MESSAGE, Message, WireClient, http

DEADLINE_S: Final = 30.0  # nsqd's queue scan may find a timeout 5 s late
_FRAMES: Final = ("response", "error", "message")
_MESSAGE_ID: Final = re.compile(rb"[0-9a-f]{16}")
_HOP_HEADERS: Final = ("connection", "date", "content-length", "transfer-encoding")


class ReplayFailure(Exception):
    """The daemon did not do what the fixture says; the text names the event."""


class Replay:
    """One run of one fixture against ``daemon``, which is started unless it runs.

    ``target`` is "pynsqd", or "nsqd" for the reference.
    """

    settle_s = 0.5  # how long a GET may show the state before commands that get no answer

    def __init__(self, fixture: Fixture, target: str, daemon: Daemon, starting: anyio.CapacityLimiter) -> None:
        self.fixture = fixture
        self.target = target
        self._daemon = daemon
        self._starting = starting
        self._bound: Binding = {}
        self._clients: dict[str, WireClient] = {}
        self._http_peers = {name: HttpPeer() for name in ("auth server", "nsqlookupd http")}
        self._lookupd = LookupPeer(self._http_peers["nsqlookupd http"])
        self._peers: dict[str, Peer] = {**self._http_peers, "nsqlookupd": self._lookupd}
        self._began_ns = time.time_ns()

    async def run(self) -> None:
        """Go through the events and close all connections; the daemon stays. Raises ReplayFailure."""
        try:
            if not self._daemon.running:
                for peer in self._peers.values():
                    await peer.start()
                self._daemon.flags = await self._flags()
                await self._step(-1, {"op": "start"})
            for number, event in self.fixture.events_for(self.target):
                await self._step(number, event)
        finally:
            for client in self._clients.values():
                await client.close()
            for peer in self._peers.values():
                await peer.stop()

    async def _step(self, number: int, event: Event) -> None:
        try:
            with anyio.fail_after(event.get("within_ms", 30_000) / 1000):
                await getattr(self, f"_on_{event['op']}")(event)
        except Exception as error:  # whatever it is, it is the failure of this fixture and not of those beside it
            problem = str(error) or f"nothing came ({type(error).__name__})"
            raise ReplayFailure(f"{self.fixture} event {number} {json.dumps(event)[:400]}\n  {problem}") from error

    # ---- starting

    async def _flags(self) -> tuple[str, ...]:
        flags = list(self.fixture.flags)
        if any("<certs>" in flag for flag in flags):
            await to_thread.run_sync(make_certificate, self._daemon.data_path)
            flags.append("--https-address=127.0.0.1:0")
        places = {f"<{name}>": peer.address for name, peer in self._peers.items()} | {
            "<certs>": str(self._daemon.data_path)
        }
        for place, value in places.items():
            flags = [flag.replace(place, value) for flag in flags]
        return tuple(flags)

    async def _on_start(self, event: Event) -> None:
        async with self._starting:
            await to_thread.run_sync(self._daemon.start)

    # ---- TCP

    async def _on_connect(self, event: Event) -> None:
        address = self._daemon.http if event.get("to") == "http" else self._daemon.tcp
        self._clients[event["conn"]] = await WireClient.open(address, b"", DEADLINE_S)

    async def _on_send(self, event: Event) -> None:
        await self._clients[event["conn"]].send(encode(event["data"], self._bound))

    async def _on_recv(self, event: Event) -> None:
        block = await self._clients[event["conn"]].response()
        if self.fixture.server == "nsqlookupd":
            self.settle(event, {"data": block.decode("latin-1")})
            return
        kind, payload = int.from_bytes(block[:4], "big"), block[4:]
        assert kind in range(3), f"a frame of type {kind}: {payload!r}"
        seen: dict[str, Any] = {"frame": _FRAMES[kind]}
        if kind == MESSAGE:
            message = Message.parse(payload)
            seen |= {"id": self._reference(event, message), "attempts": message.attempts}
            payload = message.body
        self.settle(event, seen | {"data": payload.decode("latin-1")})

    def _reference(self, event: Event, message: Message) -> str:
        """Return the name by which the fixture knows this message; the event may give it one."""
        stamp = message.timestamp_ns.to_bytes(8, "big")
        known = next((ref for ref, value in self._bound.items() if value == message.id), None)
        if known is None:
            assert _MESSAGE_ID.fullmatch(message.id), f"message id {message.id!r}"
            known = event.get("id") or f"id{len(self._bound) // 2 + 1}"
            assert known not in self._bound, f"another message than {known}: {message}"
            self._bound |= {known: message.id, f"{known} time": stamp}
            age_s = (time.time_ns() - message.timestamp_ns) / 1e9
            assert message.timestamp_ns >= self._began_ns - 1e9, f"timestamp {age_s} s ago"
            assert age_s > -1, f"timestamp {-age_s} s ahead"
        assert self._bound[f"{known} time"] == stamp, f"the timestamp of {known} has changed"
        return known

    async def _on_closed(self, event: Event) -> None:
        await self._clients[event["conn"]].expect_closed(heartbeats=event.get("heartbeats", False))

    async def _on_quiet(self, event: Event) -> None:
        await self._clients[event["conn"]].quiet(event["ms"])

    async def _on_close(self, event: Event) -> None:
        await self._clients[event["conn"]].close()

    async def _on_shutdown_write(self, event: Event) -> None:
        await self._clients[event["conn"]].shutdown_write()

    async def _on_tls_handshake(self, event: Event) -> None:
        await self._clients[event["conn"]].start_tls(_trust(self._daemon.data_path))

    async def _on_layer(self, event: Event) -> None:
        assert event["layer"] == "deflate"
        self._clients[event["conn"]].start_deflate()

    # ---- HTTP

    async def _on_http(self, event: Event) -> None:
        """Compare an answer. A GET may need a moment: commands without a response leave no order to rely on."""
        until = anyio.current_time() + self.settle_s
        while True:
            seen = await self._http(event)
            late = anyio.current_time() >= until
            if late or not event["request"].startswith("GET ") or not self.difference(event, seen):
                break
            await anyio.sleep(0.02)
        self.settle(event, seen)

    async def _http(self, event: Event) -> dict[str, Any]:
        secure = event.get("scheme") == "https"
        answer = await http(
            host_port(self._daemon.addresses["HTTPS" if secure else "HTTP"]),
            event["request"],
            encode(event.get("body", ""), self._bound),
            headers=event.get("headers"),
            tls=_trust(self._daemon.data_path) if secure else None,
            deadline_s=DEADLINE_S,
        )
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP_HEADERS}
        kind = shared().name_headers(kept)
        return {"status": answer.status, "kind": kind, "response": answer.body.decode("latin-1")}

    # ---- the process, its files and its peers

    async def _on_wait(self, event: Event) -> None:
        await anyio.sleep(event["ms"] / 1000)

    async def _on_note(self, event: Event) -> None:
        pass

    async def _on_signal(self, event: Event) -> None:
        self._daemon.signal(signal.Signals[event["signal"]])

    async def _on_exit(self, event: Event) -> None:
        self.settle(event, {"status": await to_thread.run_sync(self._daemon.wait)})

    async def _on_file(self, event: Event) -> None:
        raw = (self._daemon.data_path / event["name"]).read_bytes()
        bind(event["data"], raw, self._bound)
        self.settle(event, {"data": raw.decode("latin-1")})

    async def _on_peer_answer(self, event: Event) -> None:
        peer = self._http_peers[event["peer"]]
        peer.status, peer.answer = event["status"], encode(event["data"], self._bound)

    async def _on_peer_request(self, event: Event) -> None:
        if event["peer"] == "nsqlookupd":
            self.settle(event, {"data": (await self._lookupd.commands.get()).decode("latin-1")})
        else:
            request, headers = await self._http_peers[event["peer"]].requests.get()
            self.settle(event, {"request": request, "accept": headers.get("accept", "")})

    # ---- comparing

    def settle(self, event: Event, seen: dict[str, Any]) -> None:
        """Fail unless what was ``seen`` is what the event expects."""
        difference = self.difference(event, seen)
        assert difference is None, difference

    def difference(self, event: Event, seen: dict[str, Any]) -> str | None:
        """Return what differs between an event and what was seen, as a text for people, or None."""
        for key, value in seen.items():
            expected, got = event.get(key), value
            if key in ("data", "response") and expected is not None:
                text = encode(expected, self._bound).decode("latin-1")
                if seen.get("frame") != "message" and event["op"] != "file":
                    expected, got = self._comparable(event, text), self._comparable(event, self.own_names(value))
                else:
                    expected = text
            if expected != got:
                return f"{key}: expected {expected!r}\n  {' ' * len(key)}       got {got!r}"
        return None

    def own_names(self, text: str) -> str:
        """Put placeholders for what this machine and this run have given the daemon."""
        text = text.replace(f'"hostname":"{socket.gethostname()}"', '"hostname":"<host>"')
        for kind, address in self._daemon.addresses.items():
            name = f"{kind.lower()}_port"
            port = address.rpartition(":")[2]
            text = re.sub(f'"{name}":( ?){port}(?!\\d)', f'"{name}":\\1<{kind.lower()}>', text)
        return text

    def _comparable(self, event: Event, text: str) -> str:
        more = event.get("masks", [])
        if "unordered" in event and text.startswith("{"):
            text = _sort_lists(text, event["unordered"], lambda item: shared().mask(item, more))
        return shared().mask(text, more)


async def replay_all(fixtures: list[Fixture], target: str, folder: Path) -> dict[str, str]:
    """Run fixtures side by side and return the failures by name.

    Starting is most of the work and waiting most of the time, so few start and many run at once, and a node without
    flags of its own is used again once it is empty.
    """
    starting, running = anyio.CapacityLimiter(2), anyio.CapacityLimiter(16)
    failures: dict[str, str] = {}
    idle: list[Daemon] = []

    async def replay(number: int, fixture: Fixture) -> None:
        async with running:
            shared_node = _can_share(fixture)
            daemon = idle.pop() if shared_node and idle else Daemon(fixture.server, data_path=folder / str(number))
            daemon.data_path.mkdir(exist_ok=True)
            reusable = False
            try:
                await Replay(fixture, target, daemon, starting).run()
                reusable = shared_node and await _is_empty_again(daemon)
            except ReplayFailure as failure:
                failures[str(fixture)] = str(failure)
            finally:
                if reusable:
                    idle.append(daemon)
                else:
                    daemon.kill()

    try:
        async with anyio.create_task_group() as tasks:
            for number, fixture in enumerate(sorted(fixtures, key=_waiting_ms, reverse=True)):
                tasks.start_soon(replay, number, fixture)
    finally:
        for daemon in idle:
            daemon.kill()
    return failures


def _can_share(fixture: Fixture) -> bool:
    ends = any(event["op"] in ("signal", "start") for event in fixture.events)
    return fixture.server == "nsqd" and not fixture.flags and not ends


async def _is_empty_again(daemon: Daemon) -> bool:
    """Delete all topics and wait until no producer is left; False if that does not come."""
    until = anyio.current_time() + 2
    while anyio.current_time() < until:
        answer = await http(daemon.http, "GET /stats?format=json&include_mem=false")
        stats = json.loads(answer.body)
        if not stats["topics"] and not stats["producers"]:
            return True
        for topic in stats["topics"]:
            await http(daemon.http, f"POST /topic/delete?topic={quote(topic['topic_name'])}")
        await anyio.sleep(0.01)
    return False


def _waiting_ms(fixture: Fixture) -> int:
    return sum(event.get("ms", 0) for event in fixture.events)


def _sort_lists(text: str, keys: list[str], mask: Any) -> str:
    """Sort the lists that stand under one of ``keys`` in a JSON object; the order of keys stays."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            key: sorted(value, key=lambda item: mask(json.dumps(item, separators=(",", ":"))))
            if key in keys and isinstance(value, list)
            else value
            for key, value in pairs
        }

    return json.dumps(json.loads(text, object_pairs_hook=build), separators=(",", ":"))


def make_certificate(folder: Path) -> None:
    """Write a self-signed certificate for localhost to ``srv.pem`` and its key to ``srv.key``."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-keyout", str(folder / "srv.key"), "-out", str(folder / "srv.pem")]
    subprocess.run(words, check=True, capture_output=True)


def _trust(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "srv.pem"))
    context.check_hostname = False
    return context
