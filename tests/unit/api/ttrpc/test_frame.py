"""The frame codec: each case whole, byte by byte, and with a tail."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.ttrpc.frame import MAX_DATA, Flag, Frame, FrameDecoder, FrameType, Oversized, encode

CASES = [
    pytest.param("00000000000000110200", Frame(17, 2, 0, b""), id="empty response"),
    pytest.param("00000000000000090305", Frame(9, 3, 5, b""), id="client close"),
    pytest.param("00000003ffffffff0102616263", Frame(0xFFFFFFFF, 1, 2, b"abc"), id="highest id"),
    pytest.param("0000000100000001fffe00", Frame(1, 255, 254, b"\0"), id="unknown type and flags"),
]
TAIL = encode(77, FrameType.DATA, Flag.NONE, b"tail")
TAIL_FRAME = Frame(77, 3, 0, b"tail")


@pytest.mark.parametrize(("text", "frame"), CASES)
def test_read(text: str, frame: Frame) -> None:
    raw = bytes.fromhex(text)
    whole = FrameDecoder()
    assert whole.feed(raw) == [frame]
    assert whole.idle
    assert FrameDecoder().feed(raw + TAIL) == [frame, TAIL_FRAME]
    assert FrameDecoder().feed(raw + TAIL[:-1]) == [frame]
    slow = FrameDecoder()
    for byte in raw[:-1]:
        assert slow.feed(bytes([byte])) == []
        assert not slow.idle
    assert slow.feed(raw[-1:]) == [frame]


def test_write() -> None:
    assert (
        encode(9, FrameType.DATA, Flag.REMOTE_CLOSED | Flag.NO_DATA, b"").hex()
        == "00000000000000090305"
    )
    assert (
        encode(1, FrameType.REQUEST, Flag.REMOTE_OPEN, b"abc").hex() == "00000003000000010102616263"
    )


def test_the_largest_frame() -> None:
    data = bytes(MAX_DATA)
    assert FrameDecoder().feed(encode(3, FrameType.REQUEST, 0, data)) == [Frame(3, 1, 0, data)]


@pytest.mark.parametrize("piece", [1 << 16, 1 << 20, 1 << 30])
def test_an_oversized_frame_is_thrown_away(piece: int) -> None:
    raw = encode(3, FrameType.REQUEST, 0, bytes(MAX_DATA + 1)) + TAIL
    decoder = FrameDecoder()
    frames: list[Frame | Oversized] = []
    for start in range(0, len(raw), piece):
        frames += decoder.feed(raw[start : start + piece])
    assert frames == [Oversized(3, 1, MAX_DATA + 1), TAIL_FRAME]
    assert decoder.idle


def test_an_oversized_frame_is_reported_before_its_data_comes() -> None:
    decoder = FrameDecoder(max_data=8)
    assert decoder.feed(bytes.fromhex("ffffffff000000030100")) == [Oversized(3, 1, 0xFFFFFFFF)]
    assert decoder.feed(bytes(1000)) == []
    assert not decoder.idle


@given(
    frames=st.lists(
        st.builds(
            Frame,
            st.integers(0, (1 << 32) - 1),
            st.integers(0, 255),
            st.integers(0, 255),
            st.binary(max_size=20),
        ),
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 150), max_size=6),
)
def test_any_split_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    raw = b"".join(encode(f.stream_id, f.type, f.flags, f.data) for f in frames)  # type: ignore[arg-type]
    decoder = FrameDecoder()
    got: list[Frame | Oversized] = []
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, end in itertools.pairwise(edges):
        got += decoder.feed(raw[start:end])
    assert got == frames
    assert decoder.idle
