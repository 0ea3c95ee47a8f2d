"""Repair of one topic's files: no record that can be read is touched.

Damaged bytes are copied to ``bad/`` and then overwritten, in place, by one record of the same size for a channel that
cannot exist. So every other record keeps its position, and the node reads over the place without a word. An append
that was cut short is cut off. What is in no file, and what the disk itself cannot read, is left.
"""

import os
from pathlib import Path
from secrets import randbits
from struct import Struct
from typing import Final

from pynsqd.storage import files
from pynsqd.storage.format import (
    ANY_SALT,
    DEFERRED,
    OWED,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    pack_channel,
    pack_record_header,
    pack_segment_header,
    unpack_record_header,
)
from pynsqd.storage.quarantine import set_aside
from pynsqd.storage.topic_log import BAD
from pynsqd.tools.topic_files import DUE_SIZE, NOBODY, Damage, File, TopicFiles

_LONGEST_NAME: Final = 255
_FRAME_HEAD: Final = Struct(">i")


def repair(topic: TopicFiles) -> list[tuple[Damage, str]]:
    """Repair what ``topic.walk`` has found; returns every damage with what became of it. Raises OSError, StorageError.

    The data path must be locked.
    """
    by_path = {file.segment.path: file for file in topic.log + topic.deferred}
    salts = {path: _salt(topic, file) for path, file in by_path.items()}
    done = []
    for damage in sorted(topic.damage, key=lambda one: (str(one.path), one.position)):
        file = by_path.get(damage.path)
        done.append((damage, _repair_one(topic, damage, file, salts.get(damage.path, ANY_SALT))))
    topic.close()
    return done


def _salt(topic: TopicFiles, file: File) -> int:
    """Return what stands in the records of a file, asking the first whole one if the header does not say."""
    if file.header:
        return file.header.salt
    segment = file.segment
    damage_before = list(topic.damage)
    try:
        for run in segment.runs(segment.base, segment.end, 1):
            header = unpack_record_header(segment.read(run[0][0], RECORD_HEADER_SIZE), 0, run[0][0], ANY_SALT)
            if header:
                return header.salt
    finally:
        topic.damage[:] = damage_before  # it was all reported before
    return randbits(32)


def _repair_one(topic: TopicFiles, damage: Damage, file: File | None, salt: int) -> str:
    if damage.kind == "stub":
        kept = _set_aside(topic.folder / BAD, damage, damage.path.read_bytes()) if damage.bytes else "nothing in it"
        files.unlink(damage.path)
        return f"{kept}, file removed"
    if file is None or damage.kind in ("missing", "sequence"):
        return "left: nothing can be put in its place"
    segment = file.segment
    data = segment.read(damage.position, damage.bytes)
    if segment.unreadable:
        return "left: the disk cannot read it now, another day it may"
    if damage.kind == "header":
        sequence = _first_sequence(topic, file)
        content = [(segment.base, pack_segment_header(salt, segment.base, sequence))]
    elif damage.kind == "tail":
        kept = _set_aside(topic.folder / BAD, damage, data)
        _cut(segment.path, damage.position - segment.base)
        return f"{kept}, cut off"
    else:
        payload = _filler(damage, is_deferred=file in topic.deferred)
        if payload is None:
            return "left: too small for a record in its place"
        kind = DEFERRED if file in topic.deferred else OWED
        head = pack_record_header(kind, 0, 0, damage.sequence, payload, salt, damage.position)
        # The header last: half-way through the place is still damaged, not half a record.
        content = [(damage.position + RECORD_HEADER_SIZE, payload), (damage.position, head)]
    kept = _set_aside(topic.folder / BAD, damage, data)
    _overwrite(segment.path, segment.base, content)
    return f"{kept}, passed over by a record in its place" if damage.kind == "record" else f"{kept}, written anew"


def _filler(damage: Damage, *, is_deferred: bool) -> bytes | None:
    """Return the payload of the record that takes the place of damage; None if there is no room for one."""
    due = bytes(DUE_SIZE) if is_deferred else b""
    room = damage.bytes - RECORD_HEADER_SIZE - len(due) - 1
    if room < 1:
        return None
    if room <= _LONGEST_NAME:
        return due + pack_channel(NOBODY * room)
    rest = room - len(NOBODY)
    return due + pack_channel(NOBODY) + _FRAME_HEAD.pack(rest - _FRAME_HEAD.size) + bytes(rest - _FRAME_HEAD.size)


def _first_sequence(topic: TopicFiles, file: File) -> int:
    """Return the number of messages before a file: what its first record says, whole or to be put there."""
    segment = file.segment
    begin = segment.base + SEGMENT_HEADER_SIZE
    header = unpack_record_header(segment.read(begin, RECORD_HEADER_SIZE), 0, begin, ANY_SALT)
    if header:
        return header.sequence
    return next((max(one.sequence, 0) for one in topic.damage if one.position == begin), 0)


def _set_aside(folder: Path, damage: Damage, data: bytes) -> str:
    """Copy damaged bytes to ``bad/``, for good: what they are copied from is changed next."""
    path = set_aside(folder, damage.position, len(data), lambda at, length: data[at : at + length])
    descriptor = files.open_file(path, files.READ)
    try:
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
    files.sync_folder(folder)
    return f"set aside as {path}"


def _overwrite(path: Path, base: int, content: list[tuple[int, bytes]]) -> None:
    descriptor = files.open_file(path, os.O_WRONLY)
    try:
        for position, data in content:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], position - base + done)
            files.fsync(descriptor)
    finally:
        files.close(descriptor)


def _cut(path: Path, size: int) -> None:
    descriptor = files.open_file(path, os.O_WRONLY)
    try:
        files.truncate(descriptor, size)
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
