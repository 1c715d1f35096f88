"""The client: calls over one connection; what generated stubs take as their channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

import betterproto
import grpclib.const

from parma_api.channel.stream import ByteStream, StreamClosedError
from parma_api.status import ApiError, DeadlineExceededError, InternalError, UnavailableError
from parma_api.ttrpc.envelope import Request
from parma_api.ttrpc.events import ClientEvent, Completed, Failed, Message, Phase, RemoteClosed
from parma_api.ttrpc.frame import MAX_DATA
from parma_api.ttrpc.inbox import Inbox
from parma_api.ttrpc.session import ClientSession
from parma_api.ttrpc.writer import FrameWriter
from parma_api.wire.strict import DEFAULT_LIMITS, Limits, Unknown, decode

log = logging.getLogger(__name__)

R = TypeVar("R", bound=betterproto.Message)
Metadata: TypeAlias = Mapping[str, str] | Collection[tuple[str, str]]
Cardinality: TypeAlias = grpclib.const.Cardinality
CLOSED = "ttrpc: closed"


class Deadline(Protocol):
    """grpclib's, which the signatures of generated stubs name."""

    def time_remaining(self) -> float:
        """Seconds."""
        ...


class TtrpcClient:
    """One connection, any number of calls at once.

    The first call starts the connection's tasks; `close` (or leaving `async with`) ends them. When the connection is
    lost, every call fails with UnavailableError, those to come too: there is no reconnect, make a new client.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        unknown_fields: Unknown = Unknown.REFUSE,
        limits: Limits = DEFAULT_LIMITS,
        max_response: int = MAX_DATA,
        metadata: Metadata = (),
    ) -> None:
        """`max_response`: bytes of a frame's data. `metadata`: sent with every call, before the call's own."""
        self.unknown = unknown_fields
        self.limits = limits
        self.metadata = _pairs(metadata)
        self.session = ClientSession(unknown_fields, max_response)
        self.inboxes: dict[int, Inbox] = {}
        self._stream = stream
        self._writer = FrameWriter(stream)
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def request(
        self,
        route: str,
        cardinality: Cardinality,
        request_type: type[betterproto.Message],
        reply_type: type[R],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Metadata | None = None,
    ) -> ClientCall[R]:
        """A call, as generated stubs make it. `route`: /service/method. `timeout`: seconds; None: for ever."""
        del request_type
        if deadline is not None:
            left = deadline.time_remaining()
            timeout = left if timeout is None else min(left, timeout)
        pairs = [*self.metadata, *_pairs(metadata or ())]
        return ClientCall(self, route, cardinality, reply_type, timeout, pairs)

    async def wait_lost(self) -> None:
        """Return when the connection is lost or closed."""
        if not self._closed and not self._lost.is_set():
            self._start()
            await self._lost.wait()

    async def close(self) -> None:
        """Drop the connection; pending calls fail. Idempotent."""
        self._closed = True
        self._stream.abort()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._fail_all()

    async def send(self, frame: Callable[[], bytes]) -> None:
        """Make a frame and queue it, with nothing in between: stream ids must increase on the wire.

        Raises UnavailableError, and what `frame` raises.
        """
        self._start()
        await self._writer.wait_room()
        made = frame()
        try:
            self._writer.put(made)
        except StreamClosedError:
            raise UnavailableError(CLOSED) from None

    def require_connected(self) -> None:
        """Raises UnavailableError."""
        if self._closed or self._lost.is_set():
            raise UnavailableError(CLOSED)

    def _start(self) -> None:
        self.require_connected()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="ttrpc client")

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._writer.run())
                try:
                    await self._read()
                finally:
                    writing.cancel()
        finally:
            self._fail_all()
            self._stream.abort()

    async def _read(self) -> None:
        with contextlib.suppress(StreamClosedError):
            while data := await self._stream.read():
                for event in self.session.receive(data):
                    self._handle(event)

    def _handle(self, event: ClientEvent) -> None:
        inbox = self.inboxes.get(event.stream_id)
        if inbox is None:
            return
        match event:
            case Completed(_, payload):
                self._deliver(event.stream_id, inbox, payload)
                inbox.end()
            case Message(_, payload):
                self._deliver(event.stream_id, inbox, payload)
            case RemoteClosed():
                inbox.end()
            case Failed(_, error):
                inbox.end(error)

    def _deliver(self, stream_id: int, inbox: Inbox, payload: bytes) -> None:
        try:
            inbox.put(payload)
        except ApiError as error:
            self.session.forget(stream_id)
            inbox.end(error)

    def _fail_all(self) -> None:
        self._lost.set()
        for inbox in self.inboxes.values():
            inbox.end(UnavailableError(CLOSED))


class ClientCall(AsyncIterator[R]):
    """One call: an async context manager with the methods that generated stubs use.

    Leaving it before its end forgets the call: ttrpc has no cancel message, so the server goes on, and what it answers
    is dropped.
    """

    def __init__(
        self,
        client: TtrpcClient,
        route: str,
        cardinality: Cardinality,
        reply_type: type[R],
        timeout: float | None,
        metadata: list[tuple[str, str]],
    ) -> None:
        self._client = client
        self._service, self._method = route.removeprefix("/").rsplit("/", 1)
        self._cardinality = cardinality
        self._reply_type = reply_type
        self._seconds = timeout
        self._timeout = asyncio.timeout(timeout)
        self._metadata = metadata
        self._stream_id: int | None = None

    async def __aenter__(self) -> Self:
        self._client.require_connected()
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream_id is not None:
            self._client.session.forget(self._stream_id)
            self._client.inboxes.pop(self._stream_id, None)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            text = f"{self._method}: no answer within {self._seconds} s"
            raise DeadlineExceededError(text) from None

    async def send_request(self) -> None:
        """Open a call whose requests are a stream."""
        await self._open(b"", Phase.OPEN)

    async def send_message(self, message: betterproto.Message, *, end: bool = False) -> None:
        """A request. Raises ResourceExhaustedError when it is too large; then nothing was sent."""
        payload = bytes(message)
        if self._stream_id is not None:
            await self._follow(partial(self._client.session.send, self._stream_id, payload))
        elif self._cardinality.client_streaming:
            await self.send_request()
            await self.send_message(message)
        else:
            unary = not self._cardinality.server_streaming
            await self._open(payload, Phase.UNARY if unary else Phase.LISTENING)
            return
        if end:
            await self.end()

    async def end(self) -> None:
        """No more requests."""
        assert self._stream_id is not None, "end() before send_request()"
        await self._follow(partial(self._client.session.close, self._stream_id))

    async def recv_message(self) -> R | None:
        """The next response; None when there are no more. Raises the error that the server answered."""
        assert self._stream_id is not None, "recv_message() before send_message()"
        payload = await self._client.inboxes[self._stream_id].get()
        if payload is None:
            if not self._cardinality.server_streaming:
                raise InternalError(f"{self._method}: answered without a response")
            return None
        return decode(self._reply_type, payload, self._client.limits, unknown=self._client.unknown)

    async def __anext__(self) -> R:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _open(self, payload: bytes, phase: Phase) -> None:
        request = Request(
            service=self._service,
            method=self._method,
            payload=payload,
            timeout_nano=0 if self._seconds is None else max(1, int(self._seconds * 1e9)),
            metadata=tuple(self._metadata),
        )
        streams_back = bool(self._cardinality.server_streaming)

        def begin() -> bytes:
            call = self._client.session.call(request, phase, streams_back=streams_back)
            self._stream_id, frame = call
            self._client.inboxes[self._stream_id] = Inbox()
            return frame

        await self._client.send(begin)

    async def _follow(self, frame: Callable[[], bytes]) -> None:
        """Send a later frame, unless the server has ended the call: its end is then read, and says why."""
        stream_id = self._stream_id
        assert stream_id is not None
        await self._client.send(
            lambda: frame() if self._client.session.is_active(stream_id) else b""
        )


def _pairs(metadata: Metadata) -> list[tuple[str, str]]:
    pairs: Collection[tuple[str, str]] = (
        metadata.items() if isinstance(metadata, Mapping) else metadata
    )
    return [(key.lower(), value) for key, value in pairs]
