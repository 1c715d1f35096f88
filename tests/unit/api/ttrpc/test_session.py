"""Both sessions against golden bytes (containerd.md 1.6) and each breach of the protocol (1.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.gen.containerd.task.v2 import ConnectRequest, ConnectResponse, ShutdownRequest
from parma_api.status import (
    ApiError,
    Code,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
from parma_api.ttrpc.envelope import (
    Request,
    Response,
    decode_response,
    encode_request,
    encode_response,
)
from parma_api.ttrpc.events import (
    CallStarted,
    ClientEvent,
    Completed,
    Failed,
    Message,
    Phase,
    RemoteClosed,
    Reply,
    ServerEvent,
)
from parma_api.ttrpc.frame import HEADER, MAX_DATA, Flag, Frame, FrameDecoder, FrameType, encode
from parma_api.ttrpc.session import MAX_STREAM_ID, ClientSession, ServerSession
from parma_api.wire.strict import Unknown

SERVICE = "containerd.task.v2.Task"
CONNECT = bytes.fromhex(
    "0000004f0000000101000a17636f6e7461696e6572642e7461736b2e76322e5461736b1207436f6e6e6563741a040a02"
    "74312a250a1a636f6e7461696e6572642d6e616d6573706163652d7474727063120764656661756c74"
)
SHUTDOWN = bytes.fromhex(
    "0000002f0000000301000a17636f6e7461696e6572642e7461736b2e76322e5461736b120853687574646f776e1a040a"
    "0274312080bcc1960b"
)
CONNECT_OK = bytes.fromhex("00000006000000010200120408071009")
CONNECT_OK_EMPTY_STATUS = bytes.fromhex("000000080000000102000a00120408071009")
EMPTY_OK = bytes.fromhex("00000000000000110200")
NOT_FOUND = bytes.fromhex(
    "0000001b0000000502000a1908051215636f6e7461696e6572206e6f742063726561746564"
)
NO_METHOD = bytes.fromhex("000000110000000302000a0f080c120b6d6574686f64204e6f7065")
CLIENT_CLOSE = bytes.fromhex("00000000000000090305")

CONNECT_CALL = Request(
    SERVICE, "Connect", bytes(ConnectRequest("t1")), 0, (("containerd-namespace-ttrpc", "default"),)
)
SHUTDOWN_CALL = Request(SERVICE, "Shutdown", bytes(ShutdownRequest("t1")), 3_000_000_000)


def request(stream_id: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return encode(stream_id, FrameType.REQUEST, flags, encode_request(Request("s", "m", payload)))


def data(stream_id: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return encode(stream_id, FrameType.DATA, flags, payload)


def answer(reply: ServerEvent | bytes) -> tuple[int, Code, str]:
    """Stream id, code and text of the one Response frame in a reply."""
    frame = reply.frame if isinstance(reply, Reply) else reply
    assert isinstance(frame, bytes)
    [decoded] = FrameDecoder().feed(frame)
    assert isinstance(decoded, Frame)
    assert decoded.type == FrameType.RESPONSE
    response = decode_response(decoded.data, Unknown.REFUSE)
    assert not response.payload
    return decoded.stream_id, Code(response.code), response.message


# --- golden bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        pytest.param(CONNECT, CallStarted(1, CONNECT_CALL, Phase.UNARY), id="connect"),
        pytest.param(SHUTDOWN, CallStarted(3, SHUTDOWN_CALL, Phase.UNARY), id="shutdown"),
    ],
)
def test_golden_requests(raw: bytes, event: CallStarted) -> None:
    tail = request(99)
    assert ServerSession().receive(raw) == [event]
    assert ServerSession().receive(raw + tail) == [
        event,
        CallStarted(99, Request("s", "m"), Phase.UNARY),
    ]
    assert ServerSession().receive(raw + tail[:-1]) == [event]
    slow = ServerSession()
    assert [slow.receive(bytes([byte])) for byte in raw][:-1] == [[]] * (len(raw) - 1)
    client = ClientSession()
    while True:
        stream_id, frame = client.call(event.request, Phase.UNARY)
        if stream_id == event.stream_id:
            break
    assert frame == raw


def client_with_calls(*, streams_back: bool = False) -> ClientSession:
    """Calls 1, 3, ... 17 are pending."""
    client = ClientSession()
    for _ in range(9):
        client.call(Request("s", "m"), Phase.UNARY, streams_back=streams_back)
    return client


def simplified(events: list[ClientEvent]) -> list[object]:
    """Errors compare by code and text."""
    return [
        (event.stream_id, event.error.code, event.error.message)
        if isinstance(event, Failed)
        else event
        for event in events
    ]


RESPONSES = [
    pytest.param(CONNECT_OK, Completed(1, bytes(ConnectResponse(7, 9))), id="ok"),
    pytest.param(
        CONNECT_OK_EMPTY_STATUS, Completed(1, bytes(ConnectResponse(7, 9))), id="empty status"
    ),
    pytest.param(EMPTY_OK, Completed(17, b""), id="empty ok"),
    pytest.param(NOT_FOUND, (5, Code.NOT_FOUND, "container not created"), id="not found"),
    pytest.param(NO_METHOD, (3, Code.UNIMPLEMENTED, "method Nope"), id="unimplemented"),
]


@pytest.mark.parametrize(("raw", "event"), RESPONSES)
def test_golden_responses(raw: bytes, event: object) -> None:
    tail = encode(15, FrameType.RESPONSE, 0, b"")
    assert simplified(client_with_calls().receive(raw)) == [event]
    assert simplified(client_with_calls().receive(raw + tail)) == [event, Completed(15, b"")]
    assert simplified(client_with_calls().receive(raw + tail[:-1])) == [event]
    slow = client_with_calls()
    got: list[ClientEvent] = []
    for byte in raw:
        assert not got
        got += slow.receive(bytes([byte]))
    assert simplified(got) == [event]


def test_golden_answers() -> None:
    server = ServerSession()
    for stream_id in range(1, 19, 2):
        server.receive(request(stream_id))
    assert server.respond(1, bytes(ConnectResponse(7, 9))) == CONNECT_OK
    assert server.respond(17, b"") == EMPTY_OK
    assert server.fail(5, NotFoundError("container not created")) == NOT_FOUND
    assert server.fail(3, UnimplementedError("method Nope")) == NO_METHOD


def test_golden_close() -> None:
    client = ClientSession()
    for _ in range(5):
        client.call(Request("s", "m"), Phase.OPEN)
    assert client.close(9) == CLIENT_CLOSE
    server = ServerSession()
    server.receive(request(9, Flag.REMOTE_OPEN))
    assert server.receive(CLIENT_CLOSE) == [RemoteClosed(9)]


# --- server --------------------------------------------------------------------------------------------------------

BROKEN = encode(7, FrameType.REQUEST, 0, b"\x0a\xff")
ODD, REUSED = "StreamID must be odd", "cannot be re-used and must increment"
BREACHES = [
    pytest.param(request(2), (2, Code.INVALID_ARGUMENT, ODD), id="even id"),
    pytest.param(request(0), (0, Code.INVALID_ARGUMENT, ODD), id="zero id"),
    pytest.param(request(5), (5, Code.INVALID_ARGUMENT, REUSED), id="same id again"),
    pytest.param(request(3), (3, Code.INVALID_ARGUMENT, REUSED), id="lower id"),
    pytest.param(BROKEN, (7, Code.INVALID_ARGUMENT, "unmarshal request error: "), id="garbage"),
    pytest.param(
        data(7), (7, Code.INVALID_ARGUMENT, "StreamID is no longer active"), id="no such stream"
    ),
    pytest.param(
        encode(7, FrameType.REQUEST, 0, bytes(MAX_DATA + 1)),
        (
            7,
            Code.RESOURCE_EXHAUSTED,
            f"message length {MAX_DATA + 1} exceed maximum message size of {MAX_DATA}",
        ),
        id="oversized",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), BREACHES)
def test_breaches_are_answered_and_the_connection_lives(
    raw: bytes, expected: tuple[int, Code, str]
) -> None:
    server = ServerSession()
    server.receive(request(5))
    [reply] = server.receive(raw)
    stream_id, code, text = answer(reply)
    assert (stream_id, code) == expected[:2]
    assert expected[2] in text
    assert server.receive(request(9)) == [CallStarted(9, Request("s", "m"), Phase.UNARY)]
    assert server.is_active(5)


def test_an_even_id_is_not_consumed_and_garbage_is() -> None:
    server = ServerSession()
    server.receive(request(4))
    assert isinstance(server.receive(request(1))[0], CallStarted)
    server.receive(BROKEN)
    assert answer(server.receive(request(7))[0])[1:] == (
        Code.INVALID_ARGUMENT,
        "StreamID " + REUSED,
    )


@pytest.mark.parametrize("kind", [0, 2, 4, 255])
def test_other_frames_are_ignored(kind: int) -> None:
    server = ServerSession()
    server.receive(request(5))
    assert server.receive(HEADER.pack(3, 5, kind, 0) + b"abc") == []
    assert server.receive(HEADER.pack(MAX_DATA + 1, 5, kind, 0) + bytes(MAX_DATA + 1)) == []
    assert server.is_active(5)


@pytest.mark.parametrize("flags", [0, Flag.REMOTE_CLOSED], ids=["unary", "server stream"])
def test_data_that_may_not_come_ends_the_call(flags: int) -> None:
    server = ServerSession()
    server.receive(request(1, flags))
    reply, failed = server.receive(data(1, 0, b"x"))
    assert answer(reply)[:2] == (1, Code.INVALID_ARGUMENT)
    assert isinstance(failed, Failed)
    assert not server.is_active(1)
    with pytest.raises(FailedPreconditionError):
        server.respond(1, b"")


def test_oversized_data_ends_its_stream() -> None:
    server = ServerSession()
    server.receive(request(1, Flag.REMOTE_OPEN))
    reply, failed = server.receive(data(1, 0, bytes(MAX_DATA + 1)))
    assert answer(reply)[1] is Code.RESOURCE_EXHAUSTED
    assert isinstance(failed, Failed)


def test_stream_of_requests() -> None:
    server = ServerSession()
    started = CallStarted(1, Request("s", "m", b"first"), Phase.OPEN)
    assert server.receive(request(1, Flag.REMOTE_OPEN, b"first")) == [started, Message(1, b"first")]
    assert server.receive(data(1, 0, b"a") + data(1)) == [Message(1, b"a"), Message(1, b"")]
    assert server.receive(data(1, Flag.NO_DATA)) == []
    assert server.receive(data(1, Flag.REMOTE_CLOSED | Flag.NO_DATA)) == [RemoteClosed(1)]
    assert server.is_active(1)
    assert server.send(1, b"") == data(1)
    assert server.close(1) == data(1, Flag.REMOTE_CLOSED | Flag.NO_DATA)
    assert not server.is_active(1)


def test_data_with_close_is_delivered_then_refused() -> None:
    server = ServerSession()
    server.receive(request(1, Flag.REMOTE_OPEN))
    message, closed, reply, failed = server.receive(data(1, Flag.REMOTE_CLOSED, b"x"))
    assert (message, closed) == (Message(1, b"x"), RemoteClosed(1))
    assert answer(reply) == (1, Code.INVALID_ARGUMENT, "data close message cannot include data")
    assert isinstance(failed, Failed)


def test_a_response_that_is_too_large_becomes_an_error() -> None:
    server = ServerSession()
    server.receive(request(1) + request(3))
    largest = bytes(MAX_DATA - 5)
    assert len(server.respond(1, largest)) == MAX_DATA + 10
    assert answer(server.respond(3, largest + b"x"))[:2] == (3, Code.RESOURCE_EXHAUSTED)


def test_calls_under_way_are_capped() -> None:
    server = ServerSession(max_streams=2)
    server.receive(request(1) + request(3))
    assert answer(server.receive(request(5))[0])[1] is Code.RESOURCE_EXHAUSTED
    server.respond(1, b"")
    assert isinstance(server.receive(request(7))[0], CallStarted)


def test_error_texts_are_cut_and_made_utf8() -> None:
    server = ServerSession()
    server.receive(request(1) + request(3))
    assert len(answer(server.fail(1, ApiError("x" * 100_000)))[2]) == 16384
    assert answer(server.fail(3, ApiError("\udc80")))[2] == "?"


@given(raw=st.binary(max_size=80))
def test_any_bytes_at_the_server(raw: bytes) -> None:
    server = ServerSession()
    server.receive(request(1, Flag.REMOTE_OPEN))
    for event in server.receive(raw):
        if isinstance(event, Reply):
            assert answer(event)[1] is not Code.OK


# --- client --------------------------------------------------------------------------------------------------------


def test_ids_are_odd_and_increase_until_they_are_used_up() -> None:
    client = ClientSession()
    ids = [client.call(Request("s", "m"), Phase.UNARY)[0] for _ in range(3)]
    assert ids == [1, 3, 5]
    client._next_id = MAX_STREAM_ID
    assert client.call(Request("s", "m"), Phase.UNARY)[0] == MAX_STREAM_ID
    with pytest.raises(UnavailableError, match="reconnect"):
        client.call(Request("s", "m"), Phase.UNARY)


def test_an_oversized_request_is_refused_here() -> None:
    client = ClientSession()
    with pytest.raises(ResourceExhaustedError):
        client.call(Request("s", "m", bytes(MAX_DATA)), Phase.UNARY)
    assert client.call(Request("s", "m"), Phase.OPEN)[0] == 1
    with pytest.raises(ResourceExhaustedError):
        client.send(1, bytes(MAX_DATA + 1))
    assert client.is_active(1)


def test_late_and_strange_frames_are_dropped() -> None:
    client = ClientSession()
    client.call(Request("s", "m"), Phase.UNARY)
    client.forget(1)
    assert client.receive(encode(1, FrameType.RESPONSE, 0, b"")) == []
    assert client.receive(encode(99, FrameType.RESPONSE, 0, b"")) == []
    assert client.receive(encode(1, FrameType.REQUEST, 0, b"")) == []


def test_data_in_answer_to_one_response_is_an_error() -> None:
    client = ClientSession()
    client.call(Request("s", "m"), Phase.UNARY)
    client.call(Request("s", "m"), Phase.OPEN)
    [first] = client.receive(data(1, 0, b"x"))
    [second] = client.receive(data(3, 0, b"x"))
    for event in (first, second):
        assert isinstance(event, Failed)
        assert "protocol error" in event.error.message


def test_a_broken_response_fails_its_call_only() -> None:
    client = client_with_calls()
    [event] = client.receive(encode(3, FrameType.RESPONSE, 0, b"\x12\xff"))
    assert isinstance(event, Failed)
    assert event.error.code is Code.INTERNAL
    assert client.receive(EMPTY_OK) == [Completed(17, b"")]


def test_responses_above_the_cap() -> None:
    client = ClientSession(max_response=100)
    client.call(Request("s", "m"), Phase.UNARY)
    [event] = client.receive(
        encode(1, FrameType.RESPONSE, 0, encode_response(Response(bytes(101))))
    )
    assert isinstance(event, Failed)
    assert event.error.code is Code.RESOURCE_EXHAUSTED


def test_an_unknown_status_code() -> None:
    client = ClientSession()
    client.call(Request("s", "m"), Phase.UNARY)
    raw = encode_response(Response(code=99, message="odd"))
    [event] = client.receive(encode(1, FrameType.RESPONSE, 0, raw))
    assert isinstance(event, Failed)
    assert (event.error.code, event.error.message) == (Code.UNKNOWN, "odd")


def test_stream_of_responses() -> None:
    client = ClientSession()
    client.call(Request("s", "m"), Phase.LISTENING, streams_back=True)
    assert client.receive(data(1, 0, b"a") + data(1)) == [Message(1, b"a"), Message(1, b"")]
    assert client.receive(data(1, Flag.REMOTE_CLOSED, b"z")) == [Message(1, b"z"), RemoteClosed(1)]
    assert not client.is_active(1)


def test_stream_ended_by_a_response() -> None:
    client = client_with_calls(streams_back=True)
    assert client.receive(CONNECT_OK) == [Message(1, bytes(ConnectResponse(7, 9))), RemoteClosed(1)]
    [event] = client.receive(NOT_FOUND)
    assert isinstance(event, Failed)


def test_half_close() -> None:
    client = ClientSession()
    assert client.call(Request("s", "m"), Phase.OPEN, streams_back=True)[1][9] == Flag.REMOTE_OPEN
    assert client.send(1, b"") == data(1)
    client.close(1)
    with pytest.raises(FailedPreconditionError):
        client.send(1, b"late")
    assert client.receive(data(1, 0, b"still")) == [Message(1, b"still")]


@given(raw=st.binary(max_size=80))
def test_any_bytes_at_the_client(raw: bytes) -> None:
    for event in client_with_calls().receive(raw):
        assert event.stream_id < 18
