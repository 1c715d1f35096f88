"""The server: one task group for each connection, one task for each call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import betterproto
import grpclib
import grpclib.const

from parma_api.channel.stream import ByteStream, SocketStream, StreamClosedError
from parma_api.status import (
    ApiError,
    Code,
    DeadlineExceededError,
    InternalError,
    RemoteError,
    UnimplementedError,
)
from parma_api.ttrpc.call import (
    CALL,
    CallContext,
    Decoding,
    MessageStream,
    UnaryStream,
)
from parma_api.ttrpc.events import CallStarted, Failed, Message, RemoteClosed, Reply, ServerEvent
from parma_api.ttrpc.inbox import Inbox
from parma_api.ttrpc.service import Method, MethodInfo, ServiceBase, method_table
from parma_api.ttrpc.session import ServerSession
from parma_api.ttrpc.writer import FrameWriter
from parma_api.wire.strict import DEFAULT_LIMITS, Limits, Unknown

log = logging.getLogger(__name__)

Proceed: TypeAlias = Callable[[betterproto.Message], Awaitable[betterproto.Message]]
Interceptor: TypeAlias = Callable[
    [MethodInfo, betterproto.Message, Proceed], Awaitable[betterproto.Message]
]
"""Sees every call before its handler; the call goes on only through `proceed`."""

UNARY: Final = grpclib.const.Cardinality.UNARY_UNARY
_PEER_CREDENTIALS: Final = struct.Struct(
    "3i"
)  # pid, uid, gid: struct ucred, SO_PEERCRED in socket(7)


class TtrpcServer:
    """Serves services on any number of streams."""

    def __init__(
        self,
        services: Sequence[ServiceBase],
        *,
        interceptor: Interceptor | None = None,
        unknown_fields: Unknown = Unknown.REFUSE,
        limits: Limits = DEFAULT_LIMITS,
        max_calls: int = 1024,
    ) -> None:
        """`max_calls`: under way at once, for each connection.

        Raises ValueError for a service offered twice, or an interceptor over a method that streams: it could judge the
        first message only.
        """
        self.methods = method_table(list(services))
        self.interceptor = interceptor
        self.decoding = Decoding(unknown_fields, limits)
        self.max_calls = max_calls
        self._connections: set[_Connection] = set()
        self._closing = asyncio.Event()
        streaming = [
            method.info.method
            for table in self.methods.values()
            for method in table.values()
            if method.info.cardinality is not UNARY
        ]
        if interceptor is not None and streaming:
            raise ValueError(f"an interceptor judges unary methods only, not {streaming}")

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection until the peer closes it, or the server is shut down; then cancel its calls."""
        connection = _Connection(self, stream)
        self._connections.add(connection)
        try:
            if self._closing.is_set():
                await connection.drain()
            await connection.run()
        finally:
            self._connections.discard(connection)
            stream.abort()

    async def serve_unix(self, sock: socket.socket, *, peer_uid: int | None = None) -> None:
        """Accept on a listening socket, which stays the caller's, until shut down.

        peer_uid: whose connections are served, by SO_PEERCRED; None: this process's own effective uid.
        """
        wanted = os.geteuid() if peer_uid is None else peer_uid
        sock.settimeout(0)
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(self._accept(sock, wanted, group))
            await self._closing.wait()
            accepting.cancel()

    async def shutdown(self, grace: float) -> None:
        """Accept no more, close connections as their calls end, and after `grace` seconds all that are left."""
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace), asyncio.TaskGroup() as group:
                for connection in self._connections:
                    group.create_task(connection.drain())
        self.close()

    def close(self) -> None:
        """Drop everything now."""
        self._closing.set()
        for connection in list(self._connections):
            connection.abort()

    async def _accept(self, sock: socket.socket, uid: int, group: asyncio.TaskGroup) -> None:
        delay = 0.001
        while True:
            try:
                peer, _ = await asyncio.get_running_loop().sock_accept(sock)
            except OSError as error:  # out of descriptors, or a peer that was gone at once
                log.warning("accept failed, retrying: %s", error.strerror)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
                continue
            delay = 0.001
            found = _peer_uid(peer)
            if found == uid:
                group.create_task(self._serve_apart(SocketStream(peer)))
            else:
                log.warning("connection of uid %d refused, only %d is served", found, uid)
                peer.close()

    async def _serve_apart(self, stream: ByteStream) -> None:
        """What goes wrong in one connection ends only that one."""
        try:
            await self.serve(stream)
        except Exception:
            log.exception("connection ended by an error of ours")


def _peer_uid(peer: socket.socket) -> int:
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    uid: int = _PEER_CREDENTIALS.unpack(raw)[1]
    return uid


class _Connection:
    """One peer: reader, writer, and a task for each of its calls."""

    def __init__(self, server: TtrpcServer, stream: ByteStream) -> None:
        self._server = server
        self._stream = stream
        self._session = ServerSession(server.decoding.unknown, server.max_calls)
        self._writer = FrameWriter(stream)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._writer.run())
            try:
                await self._read(group)
            except StreamClosedError:
                log.debug("connection lost")
            finally:
                for task in list(self._calls.values()):
                    task.cancel()
                writing.cancel()

    async def drain(self) -> None:
        """Close as soon as no call is under way, its answer written."""
        await self._idle.wait()
        await self._writer.flush()
        with contextlib.suppress(StreamClosedError):
            await self._stream.finish()
        self._stream.abort()

    def abort(self) -> None:
        self._stream.abort()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        """Never waits for a handler; only for room to answer a peer that breaks the rules."""
        while data := await self._stream.read():
            for event in self._session.receive(data):
                await self._handle(event, group)
            await asyncio.sleep(0)  # a peer that never pauses must not keep the loop to itself

    async def _handle(self, event: ServerEvent, group: asyncio.TaskGroup) -> None:
        match event:
            case CallStarted(stream_id):
                self._start(event, group)
            case Message(stream_id, payload):
                try:
                    self._inboxes[stream_id].put(payload)
                except ApiError as error:
                    self._calls[stream_id].cancel()
                    await self._writer.send(self._session.fail(stream_id, error))
            case RemoteClosed(stream_id):
                self._inboxes[stream_id].end()
            case Failed(stream_id, error):
                self._inboxes[stream_id].end(error)
                self._calls[stream_id].cancel()
            case Reply(frame):
                await self._writer.send(frame)

    def _start(self, event: CallStarted, group: asyncio.TaskGroup) -> None:
        stream_id = event.stream_id
        self._idle.clear()
        self._inboxes[stream_id] = Inbox()
        task = self._calls[stream_id] = group.create_task(self._call(event))
        # Not at the end of _call: a task that is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: self._forget(stream_id))

    def _forget(self, stream_id: int) -> None:
        del self._calls[stream_id], self._inboxes[stream_id]
        if not self._calls:
            self._idle.set()

    async def _call(self, event: CallStarted) -> None:
        """One call from its request to its last frame."""
        stream_id = event.stream_id
        try:
            frame = await self._answer(event)
            if self._session.is_active(stream_id):
                await self._writer.send(frame())
        except StreamClosedError:
            log.debug("answer of call %d is lost with its connection", stream_id)

    async def _answer(self, event: CallStarted) -> Callable[[], bytes]:
        """Runs the handler; returns what makes the last frame."""
        stream_id, request = event.stream_id, event.request
        deadline: float | None = None
        if request.timeout_nano:
            deadline = asyncio.get_running_loop().time() + request.timeout_nano / 1e9
        CALL.set(CallContext(deadline, request.metadata_lists()))
        timeout = asyncio.timeout_at(deadline)
        try:
            method = self._method(request.service, request.method)
            async with timeout:
                if method.info.cardinality is UNARY:
                    payload = await self._unary(method, request.payload)
                    return lambda: self._session.respond(stream_id, payload)
                return await self._streaming(method, event)
        except Exception as error:  # noqa: BLE001 - the one edge where every error becomes a status
            if timeout.expired() and isinstance(error, TimeoutError):
                error = DeadlineExceededError("context deadline exceeded")
            failure = as_api_error(error, request.service, request.method)
            return lambda: self._session.fail(stream_id, failure)

    def _method(self, service: str, name: str) -> Method:
        methods = self._server.methods.get(service)
        if methods is None:
            raise UnimplementedError(f"service {service}")
        method = methods.get(name)
        if method is None:
            raise UnimplementedError(f"method {name}")
        return method

    async def _unary(self, method: Method, payload: bytes) -> bytes:
        request = self._server.decoding(method.info.request_type, payload)

        async def proceed(judged: betterproto.Message) -> betterproto.Message:
            stream = UnaryStream(judged)
            await method.handler.func(stream)
            return stream.response

        interceptor = self._server.interceptor
        if interceptor is None:
            return bytes(await proceed(request))
        return bytes(await interceptor(method.info, request, proceed))

    async def _streaming(self, method: Method, event: CallStarted) -> Callable[[], bytes]:
        stream_id = event.stream_id
        inbox = self._inboxes[stream_id]
        if not method.info.cardinality.client_streaming:
            inbox.put(event.request.payload)
            inbox.end()
        responses: list[bytes] = []

        async def send(payload: bytes) -> None:
            if method.info.cardinality.server_streaming:
                await self._writer.send(self._session.send(stream_id, payload))
            else:
                responses.append(payload)

        await method.handler.func(MessageStream(method, inbox, self._server.decoding, send))
        if method.info.cardinality.server_streaming:
            return lambda: self._session.close(stream_id)
        if not responses:
            raise InternalError("the handler gave no response")
        return lambda: self._session.respond(stream_id, responses[0])


def as_api_error(error: Exception, service: str, method: str) -> ApiError:
    """The status that an exception of a handler becomes. What we did not raise ourselves stays in our log."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ApiError):
        return error
    if isinstance(error, grpclib.GRPCError):  # what generated methods raise until they are written
        code = Code(error.status.value)
        text = f"method {method}" if code is Code.UNIMPLEMENTED else error.message or code.name
        return RemoteError(code, text)
    log.error("%s/%s failed", service, method, exc_info=error)
    return InternalError(f"{method} failed: the reason is in the server's log")
