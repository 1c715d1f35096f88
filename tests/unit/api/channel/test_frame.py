"""Frames of the channel: each whole, byte by byte, and with a tail; and what no peer may send."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.channel.frame import (
    HEADER,
    HELLO_PREFIX,
    MAX_DATA,
    MAX_GARBAGE,
    ChannelError,
    Credit,
    Data,
    Fin,
    Frame,
    FrameDecoder,
    Hello,
    Reset,
    data_header,
    encode_credit,
    encode_fin,
    encode_hello,
    encode_reset,
)

HELLO_HEX = "01000000 00000000 00000014 895061726d610d0a 00000001 00040000 00810000"
HELLO = bytes.fromhex(HELLO_HEX)
CASES = [
    pytest.param("03000000 00000005 00000004 00010000", Credit(5, 65536), id="credit"),
    pytest.param("04000000 00000005 00000000", Fin(5), id="fin"),
    pytest.param("05000000 00000005 00000004 00000001", Reset(5, 1), id="reset"),
    pytest.param("02000000 00000000 00000003 616263", Data(0, b"abc"), id="data"),
]


def greeted() -> FrameDecoder:
    decoder = FrameDecoder()
    decoder.feed(HELLO)
    return decoder


def joined(frames: list[Frame]) -> list[Frame]:
    """Parts of data that follow each other put together."""
    whole: list[Frame] = []
    for frame in frames:
        last = whole[-1] if whole else None
        if isinstance(frame, Data) and isinstance(last, Data) and last.stream_id == frame.stream_id:
            whole[-1] = Data(frame.stream_id, last.payload + frame.payload)
        else:
            whole.append(frame)
    return whole


def test_the_greeting() -> None:
    hello = Hello(window=262144, control_window=8454144)
    assert encode_hello(hello) == HELLO
    assert FrameDecoder().feed(HELLO) == [hello]
    slow = FrameDecoder()
    got = [slow.feed(bytes([byte])) for byte in HELLO]
    assert got[:-1] == [[]] * (len(HELLO) - 1)
    assert got[-1] == [hello]


@pytest.mark.parametrize(("text", "frame"), CASES)
def test_read(text: str, frame: Frame) -> None:
    raw = bytes.fromhex(text)
    tail = encode_fin(9)
    assert greeted().feed(raw) == [frame]
    assert greeted().feed(raw + tail) == [frame, Fin(9)]
    assert greeted().feed(raw + tail[:-1]) == [frame]
    slow = greeted()
    got: list[Frame] = []
    for byte in raw:
        got += slow.feed(bytes([byte]))
    assert joined(got) == [frame]


def test_write() -> None:
    assert encode_credit(5, 65536) == bytes.fromhex("030000000000000500000004 00010000")
    assert encode_fin(5) == bytes.fromhex("040000000000000500000000")
    assert encode_reset(5, 1) == bytes.fromhex("050000000000000500000004 00000001")
    assert data_header(5, 3) == bytes.fromhex("020000000000000500000003")


BROKEN = [
    pytest.param("00000000 00000001 00000000", id="type 0"),
    pytest.param("06000000 00000001 00000000", id="type 6"),
    pytest.param("02010000 00000001 00000001", id="reserved byte 1"),
    pytest.param("02000100 00000001 00000001", id="reserved byte 2"),
    pytest.param("02000001 00000001 00000001", id="reserved byte 3"),
    pytest.param("02000000 00000001 00000000", id="no data"),
    pytest.param("02000000 00000001 00010001", id="too much data"),
    pytest.param("03000000 00000001 00000003", id="short credit"),
    pytest.param("03000000 00000001 00000005", id="long credit"),
    pytest.param("04000000 00000001 00000001", id="fin with a payload"),
    pytest.param("05000000 00000001 00000000", id="reset without a code"),
    pytest.param(
        HELLO_HEX.replace("01000000 00000000", "01000000 00000001"), id="greeting on stream 1"
    ),
    pytest.param(HELLO_HEX.replace("895061", "895062"), id="greeting with another magic"),
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_no_peer_sends(text: str) -> None:
    with pytest.raises(ChannelError):
        greeted().feed(bytes.fromhex(text))


def test_another_version() -> None:
    with pytest.raises(ChannelError, match="version 2"):
        FrameDecoder().feed(HELLO.replace(bytes.fromhex("0000000100"), bytes.fromhex("0000000200")))


@pytest.mark.parametrize(
    "raw", [b"\0", b"GET / HTTP/1.1\r\n", b"x" + HELLO, HELLO[:5] + b"x", HELLO[1:]]
)
def test_no_garbage_where_none_is_allowed(raw: bytes) -> None:
    with pytest.raises(ChannelError, match="greeting"):
        FrameDecoder().feed(raw)


def feed_pieces(decoder: FrameDecoder, raw: bytes, piece: int) -> list[Frame]:
    frames: list[Frame] = []
    for start in range(0, len(raw), piece):
        frames += decoder.feed(raw[start : start + piece])
    return frames


GARBAGE = [
    b"x",
    HELLO_PREFIX[:-1],
    HELLO_PREFIX[:7] * 3,
    b"\x01" * 100,
    b"x" * MAX_GARBAGE,
    HELLO_PREFIX[:1] * MAX_GARBAGE,
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_stale_bytes_before_the_greeting(garbage: bytes, piece: int) -> None:
    raw = garbage + HELLO + encode_fin(3)
    frames = feed_pieces(FrameDecoder(MAX_GARBAGE), raw, piece)
    assert frames == [Hello(262144, 8454144), Fin(3)]


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_too_many_stale_bytes(piece: int) -> None:
    raw = b"x" * (MAX_GARBAGE + 1) + HELLO
    with pytest.raises(ChannelError):
        feed_pieces(FrameDecoder(MAX_GARBAGE), raw, piece)


FRAMES = st.one_of(
    st.builds(Data, st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=200)),
    st.builds(Credit, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Fin, st.integers(0, 2**32 - 1)),
    st.builds(Reset, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)


def encoded(frame: Frame) -> bytes:
    match frame:
        case Data(stream_id, payload):
            return data_header(stream_id, len(payload)) + payload
        case Credit(stream_id, amount):
            return encode_credit(stream_id, amount)
        case Fin(stream_id):
            return encode_fin(stream_id)
        case Reset(stream_id, code):
            return encode_reset(stream_id, code)
        case Hello():
            return encode_hello(frame)


@given(frames=st.lists(FRAMES, max_size=6), cuts=st.lists(st.integers(0, 700), max_size=8))
def test_any_split_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    raw = b"".join(map(encoded, frames))
    decoder = greeted()
    got: list[Frame] = []
    for start, end in itertools.pairwise([0, *sorted(min(c, len(raw)) for c in cuts), len(raw)]):
        got += decoder.feed(raw[start:end])
    assert joined(got) == joined(frames)


@given(raw=st.binary(max_size=64))
def test_any_bytes(raw: bytes) -> None:
    try:
        frames = greeted().feed(raw)
    except ChannelError:
        return
    assert sum(len(encoded(frame)) for frame in frames) <= len(raw) + HEADER.size * len(frames)


def test_bulk_is_read_in_payloads() -> None:
    """So that a payload is what one read gave, and is not copied."""
    decoder = greeted()
    decoder.feed(data_header(1, MAX_DATA))
    assert decoder.read_size == MAX_DATA
    payload = bytes(MAX_DATA)
    [frame] = decoder.feed(payload)
    assert isinstance(frame, Data)
    assert frame.payload is payload
    assert decoder.read_size == HEADER.size
    decoder.feed(data_header(1, 10)[:5])
    assert decoder.read_size == HEADER.size - 5
    decoder.feed(data_header(1, 10)[5:])
    assert decoder.read_size == MAX_DATA


@given(frames=st.lists(st.one_of(FRAMES, st.just(Data(1, bytes(MAX_DATA)))), max_size=6))
def test_reading_as_advised_gets_through(frames: list[Frame]) -> None:
    """What is asked for is never nothing, which would look like the end of the stream."""
    raw = b"".join(map(encoded, frames))
    decoder = greeted()
    got: list[Frame] = []
    while raw:
        assert decoder.read_size > 0
        size = decoder.read_size
        got += decoder.feed(raw[:size])
        raw = raw[size:]
    assert joined(got) == joined(frames)
