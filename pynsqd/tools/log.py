"""``pynsqd log verify|repair|dump``: what the files of a data path hold, and what is wrong with them."""

import base64
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pynsqd.core.log import DEFERRED_BIT
from pynsqd.storage import metadata
from pynsqd.storage.checkpoint import FILE_NAMES, Checkpoint
from pynsqd.storage.dirlock import DirLock
from pynsqd.storage.format import DEFERRED, OWED, Record, plain_messages, unpack_channel
from pynsqd.storage.log_store import LogStore
from pynsqd.tools.command import CLEAN, FOUND, MISUSED, Arguments, MisusedError, run, warn
from pynsqd.tools.progress import Progress
from pynsqd.tools.repair import repair
from pynsqd.tools.topic_files import DUE_SIZE, Damage, TopicFiles, is_filler
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.encoder import attempts, message_id, split_frames, timestamp_ns
from pynsqd.wire.errors import StartupError

_NAME: Final = "pynsqd log"
_PREVIEW: Final = 60  # characters of a body


def main(argv: Sequence[str]) -> int:
    """Run the tool; returns 0 if all is well, 1 if there is damage, 2 for a wrong call or unreadable files."""
    return run(_NAME, lambda: _main(argv), failed=MISUSED)


def _main(argv: Sequence[str]) -> int:
    parser = Arguments(prog=_NAME, description="Look at the files of a data path, or repair them.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verify|repair|dump")
    texts = {
        "verify": "read everything and report damage; changes nothing",
        "repair": "cut off torn appends and set damage aside, so that the files read clean; the node must be stopped",
        "dump": "print the messages of a topic",
    }
    for verb, text in texts.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("data_path", metavar="DATA_PATH", type=Path)
        sub.add_argument("topic", metavar="TOPIC", nargs=None if verb == "dump" else "?")
        sub.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.data_path
    if not folder.is_dir():
        raise MisusedError(f"{folder} is no folder")
    lock = _lock(folder)
    if lock is None and arguments.verb == "repair":
        raise MisusedError(f"{folder} is in use by a node: stop it first")
    try:
        if lock is None:
            warn(_NAME, f"{folder} is in use by a node: what it is writing now may be left out")
        elif arguments.verb != "repair":
            lock.release()
        return _VERBS[arguments.verb](arguments, lock is None)
    finally:
        if lock is not None and arguments.verb == "repair":
            lock.release()


def _lock(folder: Path) -> DirLock | None:
    try:
        return DirLock(folder)
    except StartupError as error:
        if "in use" in str(error):
            return None
        raise


def _topics(arguments: Namespace) -> list[str]:
    """Return the topics that are meant, after a look at the version of every file."""
    store = LogStore(arguments.data_path, 1, lambda _topic, _text: None)
    store.check()
    found = sorted(store.topics())
    if arguments.topic is None:
        return found
    if arguments.topic not in found:
        raise MisusedError(f"{arguments.data_path} has no files of topic {arguments.topic}")
    return [arguments.topic]


def _open(arguments: Namespace, topic: str, live: bool) -> TopicFiles:
    return TopicFiles(arguments.data_path / "topics" / f"{topic}.log", live=live)


def _walk(files: TopicFiles, topic: str) -> None:
    with Progress(f"reading {topic}", files.size) as progress:
        for _ in files.walk(progress.advance):
            pass


# -- verify ----------------------------------------------------------------------------------------------------------


def _verify(arguments: Namespace, live: bool) -> int:
    report, damaged = _examine(arguments, live)
    _print(arguments, report)
    return FOUND if damaged else CLEAN


def _examine(arguments: Namespace, live: bool) -> tuple[dict[str, Any], bool]:
    kept: dict[str, str] = {}
    folder: Path = arguments.data_path
    topics = _topics(arguments)
    checkpoint = Checkpoint(folder)
    checkpoint.close()
    kept["checkpoint"] = "ok"
    if checkpoint.states is None:
        there = any((folder / name).exists() for name in FILE_NAMES)
        kept["checkpoint"] = "damaged: no file is whole, everything kept will be delivered again" if there else "none"
    try:
        kept["metadata"] = "ok" if (folder / metadata.FILE_NAME).exists() else "none"
        known = {one.name for one in metadata.load(folder, lambda text: kept.update(metadata=f"damaged: {text}"))}
    except StartupError as error:
        if "of version" in str(error):
            raise
        known = set(topics)
        kept["metadata"] = f"damaged: {error}"
    reports = []
    for topic in topics:
        files = _open(arguments, topic, live)
        _walk(files, topic)
        state = (checkpoint.states or {}).get(topic)
        end = _known_end(files, state) if state else 0
        if state and state["end"] > end:
            files.damage.append(Damage("missing", files.folder, end, state["end"] - end, "the checkpoint knew of them"))
        if topic not in known:
            files.notes.append(f"{topic} is not in the metadata: it will be there when somebody creates it")
        reports.append(_describe(topic, files))
        files.close()
    damaged = any(one["damage"] for one in reports) or any(text.startswith("damaged") for text in kept.values())
    return {"data_path": str(folder), **kept, "clean": not damaged, "topics": reports}, damaged


def _known_end(files: TopicFiles, state: dict[str, Any]) -> int:
    """Return the end of the log; if it has no file that is where its checkpoint begins to need one."""
    if files.log:
        return files.end
    needed: list[int] = [state["stop"][0] if state["stop"] else state["end"]]
    for channel in state["channels"].values():
        needed.append(channel["cursor"][0])
        needed += [position for position, _, _ in channel["owed"] if not position & DEFERRED_BIT]
    return min(needed)


def _describe(topic: str, files: TopicFiles) -> dict[str, Any]:
    log, deferred = files.log_counts, files.deferred_counts
    return {
        "topic": topic,
        "segments": log.files,
        "records": log.records,
        "messages": log.messages,
        "owed_messages": log.owed,
        "bytes": log.bytes,
        "deferred_files": deferred.files,
        "deferred_records": deferred.records,
        "deferred_messages": deferred.messages,
        "deferred_bytes": deferred.bytes,
        "damage": [_as_json(one) for one in files.damage],
        "notes": files.notes,
    }


def _as_json(damage: Damage) -> dict[str, Any]:
    return {
        "kind": damage.kind,
        "file": str(damage.path),
        "position": damage.position,
        "bytes": damage.bytes,
        "reason": damage.reason,
    }


def _print(arguments: Namespace, report: dict[str, Any]) -> None:
    if arguments.json:
        _line(json.dumps(report))
        return
    for one in report["topics"]:
        log = "{segments} segments, {records} records, {messages} messages, {bytes} bytes".format(**one)
        again = "; {owed_messages} messages again for one channel".format(**one) if one["owed_messages"] else ""
        later = "; {deferred_messages} deferred messages in {deferred_files} files, {deferred_bytes} bytes"
        _line(f"{one['topic']}: {log}{again}{later.format(**one) if one['deferred_files'] else ''}")
        for damage in one["damage"]:
            became = f"; {damage['repaired']}" if "repaired" in damage else ""
            place = "{bytes} bytes at position {position} of {file}: {reason}".format(**damage)
            _line(f"  damage: {place}{became}")
        for note in one["notes"]:
            _line(f"  note: {note}")
    for name in ("metadata", "checkpoint"):
        _line(f"{name}: {report[name]}")


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


# -- repair ----------------------------------------------------------------------------------------------------------


def _repair(arguments: Namespace, _live: bool) -> int:
    became: dict[str, list[dict[str, Any]]] = {}
    for topic in _topics(arguments):
        files = _open(arguments, topic, False)
        _walk(files, topic)
        became[topic] = [_as_json(damage) | {"repaired": text} for damage, text in repair(files)]
    # What counts is what is found now.
    report, damaged = _examine(Namespace(**(vars(arguments) | {"topic": None})), False)
    report["topics"] = [one for one in report["topics"] if one["topic"] in became]
    for one in report["topics"]:
        known = {(damage["file"], damage["position"]) for damage in became[one["topic"]]}
        new = [damage for damage in one["damage"] if (damage["file"], damage["position"]) not in known]
        one["damage"] = became[one["topic"]] + new
    _print(arguments, report)
    return FOUND if damaged else CLEAN


# -- dump ------------------------------------------------------------------------------------------------------------


def _dump(arguments: Namespace, live: bool) -> int:
    (topic,) = _topics(arguments)
    files = _open(arguments, topic, live)
    show: Callable[[dict[str, Any], bytes], str] = _json_line if arguments.json else _text_line
    for records in files.walk(lambda _: None):
        for record in records:
            for message, body in _messages(record):
                _line(show(message, body))
    files.close()
    for one in files.damage:
        warn(_NAME, f"{one.bytes} bytes at position {one.position} of {one.path} are damaged: {one.reason}")
    return FOUND if files.damage else CLEAN


def _messages(record: Record) -> Iterator[tuple[dict[str, Any], bytes]]:
    position, kind, flags, count, _, payload = record
    if is_filler(record):
        return
    channel, due_ns = "", 0
    if position & DEFERRED_BIT and kind == DEFERRED:
        due_ns = int.from_bytes(payload[:DUE_SIZE], "big")
        channel, payload = unpack_channel(payload, DUE_SIZE)
    elif kind == OWED:
        channel, payload = unpack_channel(payload)
    else:
        payload = plain_messages(kind, flags, count, payload)[1]
    for frame in split_frames(payload):
        message: dict[str, Any] = {
            "position": position,
            "id": message_id(frame).decode("ascii", "backslashreplace"),
            "timestamp_ns": timestamp_ns(frame),
            "attempts": attempts(frame),
        }
        if channel:
            message["channel"] = channel
        if due_ns:
            message["due_ns"] = due_ns
        yield message, frame[MESSAGE_HEADER:]


def _json_line(message: dict[str, Any], body: bytes) -> str:
    return json.dumps(message | {"body": base64.b64encode(body).decode()})


def _text_line(message: dict[str, Any], body: bytes) -> str:
    words = [f"{message['position']} {message['id']} {message['timestamp_ns']} attempts={message['attempts']}"]
    words += [f"{name}={message[key]}" for name, key in (("channel", "channel"), ("due", "due_ns")) if key in message]
    return f"{' '.join(words)} {_preview(body)}"


def _preview(body: bytes) -> str:
    try:
        text = body.decode()
        shown = text if text.isprintable() else f"hex:{body[: _PREVIEW // 2].hex()}"
    except UnicodeDecodeError:
        shown = f"hex:{body[: _PREVIEW // 2].hex()}"
    whole = len(shown) <= _PREVIEW and (len(body) <= _PREVIEW // 2 or not shown.startswith("hex:"))
    return shown if whole else f"{shown[:_PREVIEW]}… ({len(body)} bytes)"


_VERBS: Final[dict[str, Callable[[Namespace, bool], int]]] = {"verify": _verify, "repair": _repair, "dump": _dump}
