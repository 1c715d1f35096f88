"""Streaming: the seven upstream cases, half close, empty messages, errors after data, slow readers (T9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import betterproto
import grpclib.const
import pytest

from parma_api.channel.stream import SocketStream, stream_pair
from parma_api.gen.parma.agent.v1 import HealthRequest as Nothing
from parma_api.gen.parma.agent.v1 import Resources as Part
from parma_api.gen.ttrpc import KeyValue as Text
from parma_api.status import ApiError, Code, NotFoundError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.ttrpc.envelope import Request, Response, decode_response, encode_request
from parma_api.ttrpc.frame import Flag, Frame, FrameDecoder, FrameType, encode
from parma_api.ttrpc.inbox import MAX_MESSAGES
from parma_api.ttrpc.server import TtrpcServer
from parma_api.ttrpc.service import ServiceBase
from parma_api.wire.strict import Unknown

Cardinality = grpclib.const.Cardinality
Kind = type[betterproto.Message]


def part(num: int, total: int) -> Part:
    return Part(pids_limit=num, memory_limit=total)


METHODS: dict[str, tuple[Cardinality, Kind, Kind]] = {
    "Echo": (Cardinality.UNARY_UNARY, Text, Text),
    "EchoStream": (Cardinality.STREAM_STREAM, Text, Text),
    "SumStream": (Cardinality.STREAM_UNARY, Part, Part),
    "DivideStream": (Cardinality.UNARY_STREAM, Part, Part),
    "EchoNull": (Cardinality.STREAM_UNARY, Text, Nothing),
    "EchoNullStream": (Cardinality.STREAM_STREAM, Text, Nothing),
    "EmptyPayloadStream": (Cardinality.UNARY_STREAM, Nothing, Text),
    "FailLate": (Cardinality.UNARY_STREAM, Text, Text),
    "EndEarly": (Cardinality.STREAM_STREAM, Text, Text),
    "Stuck": (Cardinality.STREAM_UNARY, Text, Nothing),
}


class Streaming(ServiceBase):
    """Written as the generator would write it."""

    def __init__(self) -> None:
        self.is_stuck = asyncio.Event()
        self.cancelled = asyncio.Event()

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        handlers = {}
        for name, (cardinality, request, reply) in METHODS.items():
            func = getattr(self, name.lower())
            handlers[f"/test.Streaming/{name}"] = grpclib.const.Handler(
                func, cardinality, request, reply
            )
        return handlers

    async def echo(self, stream) -> None:  # type: ignore[no-untyped-def]
        message = await stream.recv_message()
        await stream.send_message(Text(message.key, message.value + "!"))

    async def echostream(self, stream) -> None:  # type: ignore[no-untyped-def]
        async for message in stream:
            await stream.send_message(Text(message.key, message.value + "!"))

    async def sumstream(self, stream) -> None:  # type: ignore[no-untyped-def]
        total = count = 0
        async for message in stream:
            total, count = total + message.memory_limit, count + 1
        await stream.send_message(part(count, total))

    async def dividestream(self, stream) -> None:  # type: ignore[no-untyped-def]
        wanted = await stream.recv_message()
        for _ in range(wanted.pids_limit):
            await stream.send_message(part(0, wanted.memory_limit // wanted.pids_limit))

    async def echonull(self, stream) -> None:  # type: ignore[no-untyped-def]
        numbers = [int(message.value) async for message in stream]
        assert numbers == list(range(len(numbers)))
        await stream.send_message(Nothing())

    async def echonullstream(self, stream) -> None:  # type: ignore[no-untyped-def]
        async for _ in stream:
            for _ in range(10):
                await stream.send_message(Nothing())

    async def emptypayloadstream(self, stream) -> None:  # type: ignore[no-untyped-def]
        assert await stream.recv_message() == Nothing()
        for number in range(3):
            await stream.send_message(Text(str(number)))

    async def faillate(self, stream) -> None:  # type: ignore[no-untyped-def]
        await stream.recv_message()
        await stream.send_message(Text("one"))
        raise NotFoundError("no more")

    async def endearly(self, stream) -> None:  # type: ignore[no-untyped-def]
        await stream.recv_message()
        await stream.send_message(Text("bye"))

    async def stuck(self, stream) -> None:  # type: ignore[no-untyped-def]
        """Reads nothing."""
        self.is_stuck.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@asynccontextmanager
async def connected(service: Streaming) -> AsyncIterator[SocketStream]:
    theirs, ours = stream_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(TtrpcServer([service]).serve(theirs))
        try:
            yield ours
        finally:
            ours.abort()


@asynccontextmanager
async def stubbed(service: Streaming | None = None) -> AsyncIterator[betterproto.ServiceStub]:
    async with connected(service or Streaming()) as stream, TtrpcClient(stream) as client:
        yield betterproto.ServiceStub(client)  # type: ignore[arg-type]


def route(name: str) -> str:
    return f"/test.Streaming/{name}"


# --- the upstream cases --------------------------------------------------------------------------------------------


async def test_echo() -> None:
    async with stubbed() as stub:
        assert await stub._unary_unary(route("Echo"), Text("k", "v"), Text) == Text("k", "v!")


async def test_echo_stream() -> None:
    async with stubbed() as stub:
        sent = [Text(str(number), "x") for number in range(100)]
        replies = stub._stream_stream(route("EchoStream"), sent, Text, Text)
        assert [reply async for reply in replies] == [Text(str(n), "x!") for n in range(100)]


async def test_sum_stream_counts_empty_messages() -> None:
    async with stubbed() as stub:
        numbers = [Part(), *(part(0, number) for number in range(-99, 101)), Part()]
        assert await stub._stream_unary(route("SumStream"), numbers, Part, Part) == part(202, 100)


async def test_divide_stream() -> None:
    async with stubbed() as stub:
        replies = [
            reply async for reply in stub._unary_stream(route("DivideStream"), part(10, 100), Part)
        ]
        assert replies == [part(0, 10)] * 10


async def test_echo_null() -> None:
    async with stubbed() as stub:
        sent = [Text("", str(number)) for number in range(100)]
        assert await stub._stream_unary(route("EchoNull"), sent, Text, Nothing) == Nothing()


async def test_echo_null_stream() -> None:
    async with stubbed() as stub:
        sent = [Text("", str(number)) for number in range(100)]
        replies = stub._stream_stream(route("EchoNullStream"), sent, Text, Nothing)
        assert [reply async for reply in replies] == [Nothing()] * 1000


async def test_empty_payload_stream() -> None:
    async with stubbed() as stub:
        replies = stub._unary_stream(route("EmptyPayloadStream"), Nothing(), Text)
        assert [reply.key async for reply in replies] == ["0", "1", "2"]


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_error_after_data() -> None:
    async with stubbed() as stub:
        replies = stub._unary_stream(route("FailLate"), Text("x"), Text)
        assert (await anext(replies)).key == "one"
        with pytest.raises(ApiError, match="no more") as caught:
            await anext(replies)
        assert caught.value.code is Code.NOT_FOUND


async def test_the_server_may_end_first() -> None:
    async with stubbed() as stub:
        ended = asyncio.Event()

        async def endless() -> AsyncIterator[Text]:
            yield Text("a")
            await ended.wait()
            yield Text("late: the stream is over, it is not sent")

        replies = [
            reply async for reply in stub._stream_stream(route("EndEarly"), endless(), Text, Text)
        ]
        assert replies == [Text("bye")]
        ended.set()
        assert await stub._unary_unary(route("Echo"), Text("k"), Text) == Text("k", "!")


async def test_frames_of_a_server_stream() -> None:
    """Data for each message, then Data with both flags; an empty message is a frame without the no-data flag."""
    async with connected(Streaming()) as stream:
        opening = Request("test.Streaming", "EchoNullStream", b"")
        await stream.write(encode(1, FrameType.REQUEST, Flag.REMOTE_OPEN, encode_request(opening)))
        await stream.write(encode(1, FrameType.DATA, 0, b""))
        await stream.write(encode(1, FrameType.DATA, Flag.REMOTE_CLOSED | Flag.NO_DATA, b""))
        frames = await read_frames(stream, 11)
        assert frames == [Frame(1, 3, 0, b"")] * 10 + [Frame(1, 3, 5, b"")]


async def test_frames_of_a_client_stream() -> None:
    async with connected(Streaming()) as stream:
        opening = Request("test.Streaming", "SumStream")
        await stream.write(encode(1, FrameType.REQUEST, Flag.REMOTE_OPEN, encode_request(opening)))
        await stream.write(encode(1, FrameType.DATA, 0, bytes(part(0, 5))))
        await stream.write(encode(1, FrameType.DATA, Flag.REMOTE_CLOSED | Flag.NO_DATA, b""))
        [frame] = await read_frames(stream, 1)
        assert (frame.type, frame.flags) == (FrameType.RESPONSE, 0)
        assert decode_response(frame.data, Unknown.REFUSE) == Response(bytes(part(1, 5)))


async def test_a_malformed_message_in_a_stream() -> None:
    async with connected(Streaming()) as stream:
        opening = Request("test.Streaming", "SumStream")
        await stream.write(encode(1, FrameType.REQUEST, Flag.REMOTE_OPEN, encode_request(opening)))
        await stream.write(encode(1, FrameType.DATA, 0, b"\x08"))
        [frame] = await read_frames(stream, 1)
        assert decode_response(frame.data, Unknown.REFUSE).code == Code.INVALID_ARGUMENT


async def read_frames(stream: SocketStream, count: int) -> list[Frame]:
    decoder = FrameDecoder()
    frames: list[Frame] = []
    while len(frames) < count:
        data = await stream.read()
        assert data
        for frame in decoder.feed(data):
            assert isinstance(frame, Frame)
            frames.append(frame)
    return frames


# --- slow readers --------------------------------------------------------------------------------------------------


async def test_a_stuck_stream_is_given_up_and_blocks_no_other() -> None:
    service = Streaming()
    async with stubbed(service) as stub:

        async def flood() -> AsyncIterator[Text]:
            yield Text("x")
            await service.is_stuck.wait()
            for _ in range(MAX_MESSAGES):
                yield Text("x")

        with pytest.raises(ApiError, match="not being read") as caught:
            await stub._stream_unary(route("Stuck"), flood(), Text, Nothing)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        await service.cancelled.wait()
        assert await stub._unary_unary(route("Echo"), Text("k"), Text) == Text("k", "!")


async def test_a_consumer_that_does_not_read_blocks_no_unary_call() -> None:
    async with stubbed() as stub:
        replies = stub._unary_stream(route("DivideStream"), part(500, 500), Part)
        first = await anext(replies)
        assert first == part(0, 1)
        assert await stub._unary_unary(route("Echo"), Text("k"), Text) == Text("k", "!")
        assert len([reply async for reply in replies]) == 499


async def test_a_stream_left_early_is_forgotten() -> None:
    async with connected(Streaming()) as stream, TtrpcClient(stream) as client:
        stub = betterproto.ServiceStub(client)  # type: ignore[arg-type]
        replies = stub._unary_stream(route("DivideStream"), part(10, 10), Part)
        await anext(replies)
        await replies.aclose()  # type: ignore[attr-defined]
        assert not client.inboxes
        assert await stub._unary_unary(route("Echo"), Text("k"), Text) == Text("k", "!")


def test_an_interceptor_cannot_judge_streams() -> None:
    async def gate(method: object, request: object, proceed: object) -> betterproto.Message:
        raise NotImplementedError

    with pytest.raises(ValueError, match="unary methods only"):
        TtrpcServer([Streaming()], interceptor=gate)
