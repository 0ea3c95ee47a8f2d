"""Deflate and snappy without a socket."""

import zlib

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.net.layers.codecs import Codec, CodecError, Deflate, Snappy

IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
PIECE = 1 << 18


def deflated(data: bytes) -> bytes:
    """Compress as a client does, up to the flush."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


def snapped(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress(data))


def chunk(kind: int, data: bytes) -> bytes:
    return bytes((kind,)) + len(data).to_bytes(3, "little") + data


def everything(codec: Codec, data: bytes, most: int = PIECE) -> bytes:
    """Feed ``data`` and return all that comes of it."""
    codec.feed(data)
    parts = []
    while codec.more:
        parts.append(codec.decode(most))
    return b"".join(parts)


@pytest.mark.parametrize(("codec", "compress"), [(lambda: Deflate(6), deflated), (Snappy, snapped)])
@given(data=st.binary(max_size=2000).map(lambda data: data * 50), cuts=st.lists(st.integers(1, 500), max_size=20))
def test_input_may_be_cut_anywhere(codec, compress, data: bytes, cuts: list[int]) -> None:
    decoder, raw, seen, at = codec(), compress(data), b"", 0
    for cut in [*cuts, len(raw)]:
        seen += everything(decoder, raw[at : at + cut])
        at += cut
    assert seen == data


def test_each_write_can_be_read_by_itself_and_what_is_written_is_the_format() -> None:
    snappy, seen = Snappy(), b""
    deflate, inflate = Deflate(6), zlib.decompressobj(-15)
    for data in (b"a", b"b" * 200_000, b"c" * 7):
        seen += snappy.encode(data)
        assert bytes(cramjam.snappy.decompress(seen)).endswith(data)
        written = deflate.encode(data)
        assert written.endswith(b"\0\0\xff\xff")
        assert inflate.decompress(written) == data
    assert seen.count(IDENTIFIER) == 1


def test_the_level_is_that_of_the_output() -> None:
    text = b"".join(b"%d " % number for number in range(5000))
    for level in (1, 6, 9):
        stream = zlib.compressobj(level, zlib.DEFLATED, -15)
        assert Deflate(level).encode(text) == stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("codec", "raw"), [(Deflate(6), deflated(bytes(50 << 20))), (Snappy(), snapped(bytes(9 << 20)))]
)
def test_a_bomb_comes_in_pieces(codec: Codec, raw: bytes) -> None:
    codec.feed(raw)
    sizes = []
    while codec.more:
        sizes.append(len(codec.decode(PIECE)))
    assert max(sizes) <= PIECE + 65536
    assert sum(sizes) in (50 << 20, 9 << 20)


def test_a_piece_that_is_just_full_is_asked_for_more() -> None:
    """zlib may have taken all of the input and still hold output back."""
    raw = deflated(bytes(3000) + b"abc" * 500)
    for cut in range(len(raw)):
        codec = Deflate(6)
        assert everything(codec, raw[:cut], most=100) == zlib.decompressobj(-15).decompress(raw[:cut])


def test_the_end_of_a_deflate_stream_is_seen() -> None:
    codec = Deflate(6)
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    assert everything(codec, stream.compress(b"x") + stream.flush() + b"junk") == b"x"
    assert codec.ended


def test_an_empty_block_is_nothing() -> None:
    codec = Deflate(6)
    assert everything(codec, b"\0\0\0\xff\xff") == b""
    assert not codec.ended


def test_snappy_takes_repeated_identifiers_and_skips_what_it_may() -> None:
    padding = chunk(0xFE, bytes(70_000)) + chunk(0x80, b"")
    codec = Snappy()
    assert everything(codec, snapped(b"one") + padding + snapped(b"two") + snapped(b"three")[10:]) == b"onetwothree"
    codec = Snappy()
    for at in range(0, len(padding) + 30, 1000):
        raw = (IDENTIFIER + padding + snapped(b"x"))[at : at + 1000]
        seen = everything(codec, raw)
    assert seen == b"x"


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage that is no snappy",
        snapped(b"x")[10:],  # no identifier first
        chunk(0xFE, b""),
        b"\xff\x06\x00\x00sNaPpX",
        b"\xff\x07\x00\x00sNaPpYY",
        IDENTIFIER + chunk(0x02, b"not for us"),
        IDENTIFIER + b"\x00\xff\xff\xff",  # as long as can be said
        IDENTIFIER + chunk(0x01, b"abcd" + b"checksum is wrong"),
        IDENTIFIER + chunk(0x01, b"abc"),
        IDENTIFIER + chunk(0x00, b"abcd\xff\xff\xff\x7fx"),  # declares 256 MiB
        snapped(b"x" * 1000)[:-1] + b"y",
    ],
)
def test_what_is_no_snappy_is_refused(raw: bytes) -> None:
    with pytest.raises(CodecError):
        everything(Snappy(), raw)


def test_what_is_no_deflate_is_refused() -> None:
    with pytest.raises(CodecError):
        everything(Deflate(6), b"\xff" * 8)


def test_a_chunk_that_has_not_come_whole_is_awaited() -> None:
    codec = Snappy()
    raw = snapped(b"x" * 100)
    assert everything(codec, raw[:-1]) == b""
    assert everything(codec, raw[-1:]) == b"x" * 100


@pytest.mark.parametrize("empty", [chunk(0xFE, b""), IDENTIFIER], ids=["skipped", "identifier"])
def test_snappy_chunks_without_data_are_taken_in_pieces(empty: bytes) -> None:
    """65,000 of them fit into one read, and took so long that nobody else was served for a second."""
    codec = Snappy()
    codec.feed(IDENTIFIER + empty * 10_000)
    pieces = 0
    while codec.more:
        assert codec.decode(PIECE) == b""
        pieces += 1
    assert pieces == 3
