"""The channel's sessions: credit, turns, ends, and every frame that must not come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_api.channel.buffer import ReceiveBuffer
from parma_api.channel.frame import (
    MAX_DATA,
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
from parma_api.channel.session import (
    CONTROL,
    MAX_CREDIT,
    ROOM,
    ChannelSession,
    ResetCode,
    Side,
)
from parma_api.status import FailedPreconditionError, ResourceExhaustedError

WINDOW = 1000
GREETING = encode_hello(Hello(WINDOW, 2 * WINDOW))


def session(side: Side, **options: int) -> ChannelSession:
    """One end that has greeted and was greeted."""
    end = ChannelSession(side, window=WINDOW, control_window=2 * WINDOW, **options)
    end.next_batch()
    end.receive(GREETING)
    return end


def frames(end: ChannelSession) -> list[Frame]:
    """All that the end wants to write, parts of data not joined."""
    decoder = FrameDecoder()
    decoder.feed(GREETING)
    got: list[Frame] = []
    while batch := end.next_batch():
        got += decoder.feed(batch.data)
    return got


def opened(side: Side = Side.HOST, count: int = 1, **options: int) -> ChannelSession:
    """With streams 1, 3, ... open."""
    end = session(side, **options)
    for number in range(count):
        if side is Side.HOST:
            end.next_id()
        end.open(2 * number + 1)
    return end


# --- ids -----------------------------------------------------------------------------------------------------------


def test_the_host_allocates_odd_ids_upward() -> None:
    host = session(Side.HOST)
    assert [host.next_id() for _ in range(3)] == [1, 3, 5]
    with pytest.raises(FailedPreconditionError):
        session(Side.GUEST).next_id()
    host._last_id = (1 << 32) - 1
    with pytest.raises(ResourceExhaustedError):
        host.next_id()


@pytest.mark.parametrize("stream_id", [-1, 0, 2, 1 << 32, (1 << 32) + 1])
def test_ids_that_cannot_be_opened(stream_id: int) -> None:
    for side in Side:
        with pytest.raises(FailedPreconditionError):
            session(side).open(stream_id)


def test_each_id_once() -> None:
    guest = opened(Side.GUEST)
    with pytest.raises(FailedPreconditionError):
        guest.open(1)
    guest.reset(1)
    with pytest.raises(FailedPreconditionError):
        guest.open(1)
    with pytest.raises(FailedPreconditionError):
        session(Side.HOST).open(1)


def test_streams_are_capped() -> None:
    host = opened(count=3, max_streams=3)
    with pytest.raises(ResourceExhaustedError):
        host.open(host.next_id())
    host.reset(3)
    host.open(7)


# --- the table of frames -------------------------------------------------------------------------------------------

DATA_1 = data_header(1, 1) + b"x"
REFUSED = [
    pytest.param(Side.HOST, data_header(3, 1) + b"x", id="data on an id never allocated"),
    pytest.param(Side.HOST, encode_credit(3, 1), id="credit on it"),
    pytest.param(Side.HOST, encode_fin(3), id="fin on it"),
    pytest.param(Side.HOST, encode_reset(3, 1), id="reset on it"),
    pytest.param(Side.GUEST, data_header(2, 1) + b"x", id="even id"),
    pytest.param(Side.GUEST, encode_reset(2, 1), id="reset of an even id"),
    pytest.param(Side.GUEST, encode_reset(CONTROL, 1), id="reset of stream 0"),
    pytest.param(Side.GUEST, GREETING, id="second greeting"),
    pytest.param(Side.GUEST, encode_fin(1) + DATA_1, id="data after fin"),
    pytest.param(Side.GUEST, encode_fin(1) * 2, id="second fin"),
    pytest.param(
        Side.GUEST, data_header(1, WINDOW + 1) + bytes(WINDOW + 1), id="more data than credit"
    ),
    pytest.param(Side.GUEST, DATA_1 * (WINDOW + 1), id="the same in pieces"),
    pytest.param(
        Side.GUEST, data_header(5, WINDOW + 1) + bytes(WINDOW + 1), id="and before it is open"
    ),
    pytest.param(
        Side.GUEST, data_header(0, 2 * WINDOW + 1) + bytes(2 * WINDOW + 1), id="on stream 0"
    ),
    pytest.param(Side.GUEST, encode_credit(1, MAX_CREDIT), id="too much credit"),
    pytest.param(Side.GUEST, encode_fin(0) * 2, id="second fin on stream 0"),
]


@pytest.mark.parametrize(("side", "raw"), REFUSED)
def test_refused(side: Side, raw: bytes) -> None:
    with pytest.raises(ChannelError):
        opened(side).receive(raw)


@pytest.mark.parametrize(
    "raw", [DATA_1, encode_credit(1, 5), encode_fin(1), encode_reset(1, 1), DATA_1 * 5000]
)
def test_frames_of_a_stream_that_is_over_are_dropped(raw: bytes) -> None:
    """They crossed our reset on the way."""
    host = opened()
    host.reset(1)
    host.receive(raw)
    assert not host.is_open(1)
    assert frames(host) == [Reset(1, ResetCode.ABORTED)]


def test_data_before_the_stream_is_opened_here_is_kept() -> None:
    guest = session(Side.GUEST)
    guest.receive(data_header(1, WINDOW) + bytes(WINDOW) + encode_fin(1))
    guest.open(1)
    assert guest.take(1, 5000) == bytes(WINDOW)
    assert guest.at_end(1)


def test_a_stream_that_ended_before_it_was_opened_can_still_be() -> None:
    guest = session(Side.GUEST)
    guest.receive(encode_fin(1))
    guest.open(1)
    assert guest.at_end(1)
    guest.send(1, b"answer")
    guest.finish(1)
    assert frames(guest) == [Data(1, b"answer"), Fin(1)]
    guest.take(1, 10)
    assert not guest.is_open(1)


def test_a_stream_that_was_dropped_before_it_was_opened_cannot_be() -> None:
    guest = session(Side.GUEST)
    guest.receive(encode_reset(1, 1))
    with pytest.raises(FailedPreconditionError):
        guest.open(1)


def test_streams_of_a_peer_that_opens_too_many_are_dropped() -> None:
    guest = session(Side.GUEST, max_streams=2)
    guest.receive(b"".join(data_header(number, 1) + b"x" for number in (1, 3, 5)))
    assert frames(guest) == [Reset(5, ResetCode.TOO_MANY_STREAMS)]
    guest.receive(data_header(5, 1) + b"y")
    assert frames(guest) == []


def test_a_reset_is_told_once() -> None:
    host = opened()
    host.receive(DATA_1 + encode_reset(1, 1))
    assert host.resets == {1}
    assert host.take(1, 10) == b""
    with pytest.raises(FailedPreconditionError):
        host.send(1, b"x")
    host.finish(1)
    host.reset(1)
    assert frames(host) == []


# --- credit --------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_greeting() -> None:
    host = ChannelSession(Side.HOST)
    host.send(CONTROL, b"x")
    batch = host.next_batch()
    assert batch is not None
    assert FrameDecoder().feed(batch.data) == [Hello(256 << 10, (8 << 20) + MAX_DATA)]
    assert host.next_batch() is None
    host.receive(GREETING)
    assert frames(host) == [Data(0, b"x")]


def test_a_sender_stops_at_its_credit() -> None:
    host = opened()
    host.send(1, bytes(WINDOW + 500))
    assert frames(host) == [Data(1, bytes(WINDOW))]
    assert host.queued(1) == 500
    host.receive(encode_credit(1, 200))
    assert frames(host) == [Data(1, bytes(200))]
    host.receive(encode_credit(1, 1000))
    assert frames(host) == [Data(1, bytes(300))]


def test_a_reader_grants_what_it_has_taken() -> None:
    guest = opened(Side.GUEST)
    guest.receive(data_header(1, WINDOW) + bytes(WINDOW))
    guest.take(1, WINDOW // 2 - 1)
    assert frames(guest) == []
    guest.take(1, 1)
    assert frames(guest) == [Credit(1, WINDOW // 2)]
    guest.receive(data_header(1, WINDOW // 2) + bytes(WINDOW // 2))
    with pytest.raises(ChannelError):
        guest.receive(DATA_1)


def test_no_credit_for_a_stream_that_has_ended() -> None:
    guest = opened(Side.GUEST)
    guest.receive(data_header(1, WINDOW) + bytes(WINDOW) + encode_fin(1))
    guest.take(1, WINDOW)
    assert frames(guest) == []


# --- windows that grow ---------------------------------------------------------------------------------------------


def _through(guest: ChannelSession, stream_id: int) -> int:
    """A peer uses all its credit, a reader takes all at once; the credit that the peer is given for it."""
    state = guest._streams[stream_id]
    while size := min(state.allowance, MAX_DATA):
        guest.receive(data_header(stream_id, size) + bytes(size))
    guest.take(stream_id, state.received.size)
    (credit,) = frames(guest)
    assert isinstance(credit, Credit)
    assert credit.stream_id == stream_id
    return credit.amount


def test_a_window_doubles_while_its_reader_keeps_up() -> None:
    guest = opened(Side.GUEST)
    assert [_through(guest, 1) for _ in range(5)] == [
        2 * WINDOW,
        4 * WINDOW,
        8 * WINDOW,
        8 * WINDOW,
        8 * WINDOW,
    ]
    with pytest.raises(ChannelError, match="more data than credit"):
        guest.receive(data_header(1, 8 * WINDOW + 1) + bytes(8 * WINDOW + 1))


def test_a_window_does_not_grow_for_a_reader_that_lags() -> None:
    guest = opened(Side.GUEST)
    for _ in range(20):
        state = guest._streams[1]
        if state.allowance:
            size = state.allowance
            guest.receive(data_header(1, size) + bytes(size))
        guest.take(1, WINDOW // 2)
        frames(guest)
    assert guest._streams[1].window == WINDOW


def test_all_windows_together_grow_by_so_much_only() -> None:
    guest = opened(Side.GUEST, 3, room=9 * WINDOW + 5)
    for _ in range(4):
        _through(guest, 1)
    for _ in range(4):
        _through(guest, 3)
    assert [guest._streams[number].window for number in (1, 3, 5)] == [
        8 * WINDOW,
        3 * WINDOW + 5,
        WINDOW,
    ]
    assert _through(guest, 5) == WINDOW


def test_a_stream_that_is_over_gives_its_room_back() -> None:
    guest = opened(Side.GUEST, 2, room=WINDOW)
    _through(guest, 1)
    assert _through(guest, 3) == WINDOW
    guest.receive(encode_reset(1, 1))
    assert _through(guest, 3) == 2 * WINDOW


def test_stream_0_keeps_its_window() -> None:
    guest = session(Side.GUEST)
    assert [_through(guest, CONTROL) for _ in range(3)] == [2 * WINDOW] * 3


def test_frames_are_at_most_64_kib() -> None:
    host = ChannelSession(Side.HOST)
    host.receive(encode_hello(Hello(1 << 20, 1 << 20)))
    host.send(CONTROL, bytes(3 * MAX_DATA + 1))
    frames_seen = frames(host)
    sizes = [len(frame.payload) for frame in frames_seen if isinstance(frame, Data)]
    assert sum(sizes) == 3 * MAX_DATA + 1


# --- turns ---------------------------------------------------------------------------------------------------------


def turns(host: ChannelSession) -> list[int]:
    seen: list[int] = []
    while batch := host.next_batch():
        seen += batch.streams
    return seen


def wide(count: int) -> ChannelSession:
    host = ChannelSession(Side.HOST)
    host.receive(encode_hello(Hello(1 << 20, 1 << 20)))
    for _ in range(count):
        host.open(host.next_id())
    host.next_batch()
    return host


def test_streams_take_turns() -> None:
    host = wide(3)
    for stream_id in (1, 3, 5):
        host.send(stream_id, bytes(3 * MAX_DATA))
    assert turns(host) == [1, 3, 5] * 3


def test_control_waits_for_one_frame_and_leaves_every_second() -> None:
    host = wide(2)
    for stream_id in (1, 3):
        host.send(stream_id, bytes(3 * MAX_DATA))
    host.send(CONTROL, bytes(4 * MAX_DATA))
    assert turns(host) == [0, 1, 0, 3, 0, 1, 0, 3, 1, 3]


def test_a_stream_without_credit_holds_up_nobody() -> None:
    host = opened(count=2)
    host.send(1, bytes(5 * WINDOW))
    host.send(3, b"x")
    assert frames(host) == [Data(1, bytes(WINDOW)), Data(3, b"x")]


def test_fin_comes_behind_the_data() -> None:
    host = opened()
    host.send(1, bytes(WINDOW + 1))
    host.finish(1)
    with pytest.raises(FailedPreconditionError):
        host.send(1, b"late")
    assert frames(host) == [Data(1, bytes(WINDOW))]
    host.receive(encode_credit(1, 1))
    assert frames(host) == [Data(1, b"\0"), Fin(1)]


# --- two ends ------------------------------------------------------------------------------------------------------


class Model:
    """Two sessions, the bytes between them, and what each stream should deliver."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        host = ChannelSession(Side.HOST, window=50, control_window=70)
        guest = ChannelSession(Side.GUEST, window=60, control_window=90)
        self.ends = (host, guest)
        self.wires = (bytearray(), bytearray())
        self.sent: dict[tuple[int, int], bytearray] = {}
        self.got: dict[tuple[int, int], bytearray] = {}
        self.finished: set[tuple[int, int]] = set()
        self.ids = [CONTROL]

    def open(self) -> None:
        """The guest opens later: at its first use."""
        stream_id = self.ends[0].next_id()
        self.ends[0].open(stream_id)
        self.ids.append(stream_id)

    def use(self, side: int) -> int:
        stream_id = self.random.choice(self.ids)
        if side == 1 and stream_id and stream_id not in self.ends[1]._done:
            state = self.ends[1]._streams.get(stream_id)
            if state is None or not state.opened:
                self.ends[1].open(stream_id)
        return stream_id

    def send(self, side: int) -> None:
        stream_id = self.use(side)
        if (stream_id, side) in self.finished or not self.ends[side].is_open(stream_id):
            return
        data = self.random.randbytes(self.random.randrange(1, 120))
        self.ends[side].send(stream_id, data)
        self.sent.setdefault((stream_id, side), bytearray()).extend(data)

    def finish(self, side: int) -> None:
        stream_id = self.use(side)
        if stream_id != CONTROL:
            self.ends[side].finish(stream_id)
            self.finished.add((stream_id, side))

    def write(self, side: int) -> bool:
        batch = self.ends[side].next_batch()
        self.wires[side].extend(batch.data if batch else b"")
        return batch is not None

    def deliver(self, side: int) -> bool:
        size = min(len(self.wires[side]), self.random.randrange(1, 200))
        self.ends[1 - side].receive(bytes(self.wires[side][:size]))
        del self.wires[side][:size]
        return size > 0

    def take(self, side: int) -> bool:
        stream_id = self.use(side)
        return self.take_from(stream_id, side)

    def take_from(self, stream_id: int, side: int) -> bool:
        data = self.ends[side].take(stream_id, self.random.randrange(1, 100))
        self.got.setdefault((stream_id, 1 - side), bytearray()).extend(data)
        return bool(data)

    def check(self) -> None:
        for end in self.ends:
            for state in end._streams.values():
                assert state.allowance >= 0
                assert state.received.size <= state.window

    def drain(self) -> None:
        """Until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            for side in (0, 1):
                for stream_id in self.ids:
                    if side == 1 and stream_id not in self.ends[1]._done:
                        state = self.ends[1]._streams.get(stream_id)
                        if stream_id and (state is None or not state.opened):
                            self.ends[1].open(stream_id)
                    moved |= self.take_from(stream_id, side)
                moved |= self.write(side)
                moved |= self.deliver(side)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 300))
def test_every_byte_arrives_once_and_in_order(seed: int, steps: int) -> None:
    model = Model(seed)
    actions = [
        "open",
        "send",
        "send",
        "send",
        "finish",
        "write",
        "write",
        "deliver",
        "deliver",
        "take",
        "take",
    ]
    for _ in range(steps):
        name = model.random.choice(actions)
        if name == "open":
            model.open()
        else:
            getattr(model, name)(model.random.randrange(2))
        model.check()
    for side in (0, 1):
        for stream_id in model.ids[1:]:
            if model.ends[side].is_open(stream_id):
                model.ends[side].finish(stream_id)
    model.drain()
    for key in model.sent.keys() | model.got.keys():
        assert model.got.get(key, b"") == model.sent.get(key, b"")
    assert not model.ends[0].wants_write
    # A stream that both ends finished after the guest came to it leaves nothing behind.
    for stream_id in model.ids[1:]:
        for side in (0, 1):
            model.ends[side].finish(stream_id)
    model.drain()
    for end in model.ends:
        assert set(end._streams) == {CONTROL}
        assert not end._done._above
        assert end._room == ROOM


@settings(max_examples=200, deadline=None)
@given(
    raw=st.lists(
        st.one_of(
            st.builds(
                lambda i, n: data_header(i, n) + bytes(n), st.integers(0, 9), st.integers(1, 300)
            ),
            st.builds(
                encode_credit,
                st.integers(0, 9),
                st.integers(0, 1 << 32).filter(lambda n: n < 1 << 32),
            ),
            st.builds(encode_fin, st.integers(0, 9)),
            st.builds(encode_reset, st.integers(0, 9), st.integers(0, 9)),
        ),
        max_size=30,
    )
)
def test_any_frames_from_a_hostile_peer(raw: list[bytes]) -> None:
    for side in Side:
        end = opened(side, 2)
        try:
            for piece in raw:
                end.receive(piece)
        except ChannelError:
            continue
        assert sum(state.received.size for state in end._streams.values()) <= 7 * WINDOW


# --- the buffer ----------------------------------------------------------------------------------------------------


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=6000), max_size=20),
    sizes=st.lists(st.integers(1, 9000), min_size=1),
)
def test_buffer(pieces: list[bytes], sizes: list[int]) -> None:
    buffer = ReceiveBuffer()
    for piece in pieces:
        buffer.append(piece)
    assert buffer.size == sum(map(len, pieces))
    got = b""
    number = 0
    while buffer.size:
        taken = buffer.take(sizes[number % len(sizes)])
        assert 0 < len(taken) <= sizes[number % len(sizes)]
        got += taken
        number += 1
    assert got == b"".join(pieces)
    assert buffer.take(1) == b""


def test_small_pieces_are_collected() -> None:
    buffer = ReceiveBuffer()
    for _ in range(100_000):
        buffer.append(b"x")
    assert len(buffer._pieces) == 2
