"""The layout of segments and records; the bytes themselves are part of the promise of docs/storage-format.md."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.storage import format as layout
from pynsqd.storage.format import (
    ANY_SALT,
    BATCH,
    CONSECUTIVE,
    OWED,
    RecordHeader,
    SegmentHeader,
    checksum,
    pack_channel,
    pack_record_header,
    pack_segment_header,
    parse,
    unpack_channel,
    unpack_record_header,
    unpack_segment_header,
)

SALT = 0xA1B2C3D4


def record(payload: bytes, position: int, *, kind: int = BATCH, sequence: int = 9) -> bytes:
    return pack_record_header(kind, CONSECUTIVE, 3, sequence, payload, SALT, position) + payload


def test_segment_header_is_laid_out_as_the_document_says() -> None:
    head = struct.pack(">6sHIQQ", b"pynsqd", 2, SALT, 4096, 77)
    assert pack_segment_header(SALT, 4096, 77) == head + struct.pack(">I", zlib.crc32(head))


def test_record_header_is_laid_out_as_the_document_says() -> None:
    head = struct.pack(">HBBIIIQI", 0xFBD1, 2, 1, SALT, 3, 5, 9, zlib.crc32(b"frame"))
    crc = zlib.crc32(head, 0x1_0000_0020 & 0xFFFFFFFF)
    got = pack_record_header(OWED, CONSECUTIVE, 3, 9, b"frame", SALT, 0x1_0000_0020)
    assert got == head + struct.pack(">I", crc)


def test_segment_header_reads_back() -> None:
    assert unpack_segment_header(pack_segment_header(SALT, 4096, 77)) == SegmentHeader(2, SALT, 4096, 77)


def test_segment_header_of_another_version_reads_back() -> None:
    head = struct.pack(">6sHIQQ", b"pynsqd", 9, SALT, 4096, 77)
    assert unpack_segment_header(head + struct.pack(">I", zlib.crc32(head))) == SegmentHeader(9, SALT, 4096, 77)


def test_no_bit_of_a_segment_header_may_flip() -> None:
    header = pack_segment_header(SALT, 4096, 77)
    for bit in range(len(header) * 8):
        assert unpack_segment_header(flipped(header, bit)) is None


@pytest.mark.parametrize("data", [b"", b"pynsqd", bytes(32), b"\xff" * 31])
def test_what_is_no_segment_header_is_none(data: bytes) -> None:
    assert unpack_segment_header(data) is None


def test_a_segment_header_with_another_magic_is_none() -> None:
    head = struct.pack(">6sHIQQ", b"foreig", 1, SALT, 4096, 77)
    assert unpack_segment_header(head + struct.pack(">I", zlib.crc32(head))) is None


def test_record_header_reads_back() -> None:
    data = b"xx" + record(b"payload", 1000)
    expected = RecordHeader(BATCH, CONSECUTIVE, SALT, 3, 7, 9, zlib.crc32(b"payload"))
    assert unpack_record_header(data, 2, 1000, SALT) == expected
    assert unpack_record_header(data, 2, 1000, ANY_SALT) == expected


def test_a_record_is_none_at_another_position_or_in_another_file() -> None:
    data = record(b"payload", 1000)
    assert unpack_record_header(data, 0, 1001, SALT) is None
    assert unpack_record_header(data, 0, 1000, SALT + 1) is None


def test_a_record_header_that_is_cut_off_is_none() -> None:
    data = record(b"", 1000)
    assert len(data) == layout.RECORD_HEADER_SIZE
    assert unpack_record_header(data, 0, 1000, SALT)
    assert unpack_record_header(data[:-1], 0, 1000, SALT) is None


def test_no_bit_of_a_record_may_flip() -> None:
    data = record(b"payload", 1000)
    for bit in range(len(data) * 8):
        records, halt = parse(flipped(data, bit), 1000, SALT)
        assert records == []
        assert halt == ((1000, "header", 0) if bit < 32 * 8 else (1000, "payload", len(data)))


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 1 << 40))
def test_records_in_a_row_read_back(payloads: list[bytes], position: int) -> None:
    data = b""
    expected = []
    for number, payload in enumerate(payloads):
        expected.append((position + len(data), BATCH, CONSECUTIVE, 3, number, payload))
        data += record(payload, position + len(data), sequence=number)
    assert parse(data, position, SALT) == (expected, (position + len(data), "short", 32))


@given(st.integers(0, 100))
def test_parse_asks_for_what_is_missing(cut: int) -> None:
    data = record(b"first", 0) + record(b"p" * 64, 37)
    whole, part = (37, cut) if cut < 96 else (133, 0)
    records, halt = parse(data[: 37 + min(cut, 96)], 0, SALT)
    assert len(records) == (1 if cut < 96 else 2)
    assert halt == (whole, "short", 96 if 32 <= part < 96 else 32)


def test_parse_knows_no_records_of_another_file_unless_the_salt_is_lost() -> None:
    data = record(b"payload", 0)
    assert parse(data, 0, SALT ^ 1) == ([], (0, "header", 0))
    assert len(parse(data, 0, ANY_SALT)[0]) == 1


def test_checksum_is_the_crc32_of_zlib() -> None:
    """Files go from a machine with zlib-ng to one without."""
    for size in (0, 1, 28, 234, 4096, 50_000):
        data = bytes(range(256)) * 200
        assert checksum(data[:size]) == zlib.crc32(data[:size])


@pytest.mark.parametrize("name", ["", "c", "a" * 64])
def test_channel_reads_back(name: str) -> None:
    assert pack_channel(name)[0] == len(name)
    assert unpack_channel(pack_channel(name) + b"frames") == (name, b"frames")
    assert unpack_channel(b"due time" + pack_channel(name) + b"frames", 8) == (name, b"frames")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
