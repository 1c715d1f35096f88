"""Server and client joined by a socket pair, and each against a scripted peer (containerd.md 6.1, T4 to T10)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import betterproto
import pytest

from parma_api.channel.stream import SocketStream, connect_unix, stream_pair
from parma_api.gen.containerd.services.events.ttrpc.v1 import EventsBase, EventsStub, ForwardRequest
from parma_api.gen.containerd.task.v2 import (
    ConnectRequest,
    ConnectResponse,
    DeleteRequest,
    DeleteResponse,
    KillRequest,
    PauseRequest,
    StatsRequest,
    StatsResponse,
    TaskBase,
    TaskStub,
    WaitRequest,
    WaitResponse,
)
from parma_api.status import (
    ApiError,
    Code,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    RemoteError,
    ResourceExhaustedError,
    UnavailableError,
)
from parma_api.ttrpc.call import CALL, CallContext
from parma_api.ttrpc.client import TtrpcClient
from parma_api.ttrpc.envelope import (
    Request,
    Response,
    decode_response,
    encode_request,
    encode_response,
)
from parma_api.ttrpc.frame import MAX_DATA, FrameDecoder, FrameType, Oversized, encode
from parma_api.ttrpc.server import Proceed, TtrpcServer
from parma_api.ttrpc.service import MethodInfo
from parma_api.wire.strict import Unknown

Any = betterproto.lib.google.protobuf.Any
Empty = betterproto.lib.google.protobuf.Empty
SERVICE = "containerd.task.v2.Task"


class Task(TaskBase):
    """Wait blocks until released; the rest answers at once."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self.cancelled = asyncio.Semaphore(0)
        self.context: CallContext | None = None

    async def connect(self, connect_request: ConnectRequest) -> ConnectResponse:
        self.context = CALL.get()
        return ConnectResponse(shim_pid=int(connect_request.id or 0))

    async def wait(self, wait_request: WaitRequest) -> WaitResponse:
        self.waiting.release()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return WaitResponse(exit_status=int(wait_request.id))

    async def delete(self, delete_request: DeleteRequest) -> DeleteResponse:
        raise NotFoundError(f"container {delete_request.id}: not found")

    async def kill(self, kill_request: KillRequest) -> Empty:
        raise ZeroDivisionError("a secret")

    async def pause(self, pause_request: PauseRequest) -> Empty:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._refuse())
        return Empty()

    async def _refuse(self) -> None:
        raise FailedPreconditionError("not running")

    async def stats(self, stats_request: StatsRequest) -> StatsResponse:
        return StatsResponse(stats=Any(value=bytes(int(stats_request.id))))


@asynccontextmanager
async def serving(server: TtrpcServer) -> AsyncIterator[SocketStream]:
    """A connection to a server that runs until the end of the block."""
    theirs, ours = stream_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(theirs))
        try:
            yield ours
        finally:
            ours.abort()


@asynccontextmanager
async def calling(task: Task) -> AsyncIterator[TaskStub]:
    async with serving(TtrpcServer([task])) as stream, TtrpcClient(stream) as client:
        yield TaskStub(client)


class Peer:
    """A raw peer: frames by hand."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._frames: list[tuple[int, int, int, bytes]] = []

    async def send(self, stream_id: int, kind: int, flags: int, data: bytes) -> None:
        await self.stream.write(encode(stream_id, kind, flags, data))  # type: ignore[arg-type]

    async def call(self, stream_id: int, method: str = "Connect", **fields: object) -> None:
        request = Request(SERVICE, method, **fields)  # type: ignore[arg-type]
        await self.send(stream_id, FrameType.REQUEST, 0, encode_request(request))

    async def frame(self) -> tuple[int, int, int, bytes]:
        while not self._frames:
            data = await self.stream.read()
            if not data:
                raise EOFError
            for frame in self._decoder.feed(data):
                assert not isinstance(frame, Oversized)
                self._frames.append((frame.stream_id, frame.type, frame.flags, frame.data))
        return self._frames.pop(0)

    async def answer(self) -> tuple[int, Response]:
        stream_id, kind, flags, data = await self.frame()
        assert (kind, flags) == (FrameType.RESPONSE, 0)
        return stream_id, decode_response(data, Unknown.REFUSE)


async def failure(call: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


# --- T2, T3: errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "method", "text"),
    [("no.such.Service", "Connect", "service no.such.Service"), (SERVICE, "Nope", "method Nope")],
)
async def test_unknown_names(service: str, method: str, text: str) -> None:
    async with serving(TtrpcServer([Task()])) as stream:
        peer = Peer(stream)
        await peer.send(1, FrameType.REQUEST, 0, encode_request(Request(service, method)))
        assert await peer.answer() == (1, Response(code=12, message=text))
        await peer.call(3)
        assert await peer.answer() == (3, Response())


async def test_a_method_that_nobody_wrote() -> None:
    async with serving(TtrpcServer([Task()])) as stream:
        peer = Peer(stream)
        await peer.call(1, "Checkpoint")
        assert await peer.answer() == (1, Response(code=12, message="method Checkpoint"))


async def test_error_of_a_handler() -> None:
    async with calling(Task()) as stub:
        error = await failure(stub.delete(DeleteRequest(id="x")))
        assert (error.code, error.message) == (Code.NOT_FOUND, "container x: not found")
        error = await failure(stub.pause(PauseRequest()))
        assert (error.code, error.message) == (Code.FAILED_PRECONDITION, "not running")


async def test_what_is_not_our_error_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with calling(Task()) as stub:
        error = await failure(stub.kill(KillRequest()))
    assert error.code is Code.INTERNAL
    assert "secret" not in error.message
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


async def test_malformed_payload_names_the_field() -> None:
    async with serving(TtrpcServer([Task()])) as stream:
        peer = Peer(stream)
        await peer.call(1, payload=b"\x0a\x02a")
        stream_id, response = await peer.answer()
        assert (stream_id, response.code) == (1, 3)
        assert "ConnectRequest.id: truncated" in response.message


@pytest.mark.parametrize("unknown", Unknown)
async def test_fields_of_a_newer_peer(unknown: Unknown) -> None:
    async with serving(TtrpcServer([Task()], unknown_fields=unknown)) as stream:
        peer = Peer(stream)
        await peer.call(1, payload=b"\xa2\x06\x01x")
        assert (await peer.answer())[1].code == (0 if unknown is Unknown.IGNORE else 3)


async def test_oversized_request_and_response() -> None:
    async with serving(TtrpcServer([Task()])) as stream:
        peer = Peer(stream)
        await peer.send(1, FrameType.REQUEST, 0, bytes(MAX_DATA + 1))
        assert (await peer.answer())[1].code == 8
        await peer.call(1, "Stats", payload=bytes(StatsRequest(str(MAX_DATA))))
        assert (await peer.answer())[1].code == 8
        await peer.call(3, "Stats", payload=bytes(StatsRequest(str(MAX_DATA - 100))))
        assert (await peer.answer())[1].code == 0


# --- T4: pieces ----------------------------------------------------------------------------------------------------


async def test_requests_byte_by_byte_and_several_at_once() -> None:
    raw = b"".join(
        encode(n, FrameType.REQUEST, 0, encode_request(Request(SERVICE, "Connect"))) for n in (1, 3)
    )
    async with serving(TtrpcServer([Task()])) as stream:
        peer = Peer(stream)
        for byte in raw:
            await stream.write(bytes([byte]))
        assert {(await peer.answer())[0] for _ in range(2)} == {1, 3}


@pytest.mark.parametrize(
    "cut", [1, 9, 10, 15], ids=["in header", "at its end", "before data", "in data"]
)
async def test_eof_within_a_frame_ends_the_connection(cut: int) -> None:
    raw = encode(1, FrameType.REQUEST, 0, encode_request(Request(SERVICE, "Connect")))
    theirs, ours = stream_pair()
    await ours.write(raw[:cut])
    await ours.finish()
    await TtrpcServer([Task()]).serve(theirs)
    assert await ours.read() == b""
    ours.abort()


# --- T5: concurrency -----------------------------------------------------------------------------------------------


async def test_a_hundred_calls_answered_out_of_order() -> None:
    task = Task()
    async with calling(task) as stub, asyncio.TaskGroup() as group:
        waits = [group.create_task(stub.wait(WaitRequest(id=str(n)))) for n in range(100)]
        for _ in range(100):
            await task.waiting.acquire()
        assert (await stub.connect(ConnectRequest(id="7"))).shim_pid == 7
        task.release.set()
        assert [(await wait).exit_status for wait in waits] == list(range(100))


async def test_large_calls_at_once_keep_their_order_on_the_wire() -> None:
    """More than the writer queues: ids must still increase, else the server refuses."""
    async with calling(Task()) as stub, asyncio.TaskGroup() as group:
        size = str((1 << 20) - 1)
        padded = [
            group.create_task(stub.stats(StatsRequest(id=size.rjust(200_000)))) for _ in range(30)
        ]
        assert {len((await call).stats.value) for call in padded} == {(1 << 20) - 1}


# --- T6: deadlines -------------------------------------------------------------------------------------------------


async def test_timeout_cancels_the_handler_and_answers_4() -> None:
    task = Task()
    async with serving(TtrpcServer([task])) as stream:
        peer = Peer(stream)
        await peer.call(1, "Wait", timeout_nano=1_000_000)
        stream_id, response = await peer.answer()
        assert (stream_id, response.code) == (1, 4)
        assert not task.cancelled.locked()


async def test_no_timeout_and_a_deadline_that_handlers_see() -> None:
    task = Task()
    async with calling(task) as stub:
        await stub.connect(ConnectRequest())
        assert task.context is not None
        assert task.context.deadline is None
        await stub.connect(ConnectRequest(), timeout=100)
        left = (task.context.deadline or 0) - asyncio.get_running_loop().time()
        assert 50 < left <= 100


async def test_the_client_gives_up_by_itself() -> None:
    theirs, ours = stream_pair()
    async with TtrpcClient(ours) as client:
        error = await failure(TaskStub(client).wait(WaitRequest(), timeout=0.001))
        assert isinstance(error, DeadlineExceededError)
        assert not client.inboxes
        peer = Peer(theirs)
        stream_id, *_ = await peer.frame()
        await peer.send(stream_id, FrameType.RESPONSE, 0, b"")  # late: dropped
        call = asyncio.create_task(TaskStub(client).connect(ConnectRequest()))
        stream_id, *_ = await peer.frame()
        await peer.send(stream_id, FrameType.RESPONSE, 0, encode_response(Response(b"\x08\x05")))
        assert (await call).shim_pid == 5
    theirs.abort()


# --- T7: loss ------------------------------------------------------------------------------------------------------


async def test_loss_fails_pending_and_later_calls() -> None:
    task = Task()
    theirs, ours = stream_pair()
    async with asyncio.TaskGroup() as group:
        serve = group.create_task(TtrpcServer([task]).serve(theirs))
        async with TtrpcClient(ours) as client:
            stub = TaskStub(client)
            calls = [group.create_task(failure(stub.wait(WaitRequest()))) for _ in range(3)]
            for _ in calls:
                await task.waiting.acquire()
            serve.cancel()
            for call in calls:
                error = await call
                assert isinstance(error, UnavailableError)
                assert error.message == "ttrpc: closed"
            await client.wait_lost()
            assert isinstance(await failure(stub.connect(ConnectRequest())), UnavailableError)


async def test_eof_cancels_the_handlers_of_that_connection_only() -> None:
    task = Task()
    server = TtrpcServer([task])
    async with serving(server) as first, serving(server) as second:
        one, two = Peer(first), Peer(second)
        await one.call(1, "Wait", payload=bytes(WaitRequest("1")))
        await two.call(1, "Wait", payload=bytes(WaitRequest("2")))
        await task.waiting.acquire()
        await task.waiting.acquire()
        await first.finish()
        await task.cancelled.acquire()
        task.release.set()
        assert (await two.answer())[1].payload == bytes(WaitResponse(exit_status=2))


async def test_a_cancelled_call_leaves_the_connection_whole() -> None:
    task = Task()
    async with calling(task) as stub:
        call = asyncio.create_task(stub.wait(WaitRequest()))
        await task.waiting.acquire()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        assert (await stub.connect(ConnectRequest(id="3"))).shim_pid == 3


async def test_close_fails_pending_calls() -> None:
    task = Task()
    async with serving(TtrpcServer([task])) as stream:
        client = TtrpcClient(stream)
        call = asyncio.create_task(failure(TaskStub(client).wait(WaitRequest())))
        await task.waiting.acquire()
        await client.close()
        assert isinstance(await call, UnavailableError)
        await client.close()


# --- T8: metadata --------------------------------------------------------------------------------------------------


async def test_metadata_with_repeated_and_unknown_keys() -> None:
    task = Task()
    async with (
        serving(TtrpcServer([task])) as stream,
        TtrpcClient(stream, metadata={"A": "0"}) as client,
    ):
        pairs = [("traceparent", "x"), ("a", "1"), ("a", "2")]
        await TaskStub(client).connect(ConnectRequest(), metadata=pairs)
        assert task.context is not None
        assert task.context.metadata == {"a": ("0", "1", "2"), "traceparent": ("x",)}


async def test_events_carry_the_namespace() -> None:
    seen: list[CallContext] = []

    class Events(EventsBase):
        async def forward(self, forward_request: ForwardRequest) -> Empty:
            seen.append(CALL.get())
            return Empty()

    headers = {"containerd-namespace-ttrpc": "k8s.io"}
    async with (
        serving(TtrpcServer([Events()])) as stream,
        TtrpcClient(stream, metadata=headers) as client,
    ):
        await EventsStub(client).forward(ForwardRequest())
    assert seen[0].metadata == {"containerd-namespace-ttrpc": ("k8s.io",)}


# --- the interceptor -----------------------------------------------------------------------------------------------


async def test_the_interceptor_sees_every_call_and_may_refuse() -> None:
    seen: list[str] = []

    async def gate(
        method: MethodInfo, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        seen.append(f"{method.service}/{method.method} {type(request).__name__}")
        assert method.request_type is type(request)
        if getattr(request, "id", "") == "13":
            raise FailedPreconditionError("refused")
        return await proceed(request)

    task = Task()
    server = TtrpcServer([task], interceptor=gate)
    async with serving(server) as stream, TtrpcClient(stream) as client:
        stub = TaskStub(client)
        assert (await stub.connect(ConnectRequest(id="5"))).shim_pid == 5
        task.context = None
        assert (await failure(stub.connect(ConnectRequest(id="13")))).message == "refused"
        assert task.context is None
        assert (await failure(stub.delete(DeleteRequest(id="5")))).code is Code.NOT_FOUND
    connect = f"{SERVICE}/Connect ConnectRequest"
    assert seen == [connect, connect, f"{SERVICE}/Delete DeleteRequest"]


def test_one_object_for_each_service() -> None:
    with pytest.raises(ValueError, match="two objects"):
        TtrpcServer([TaskBase(), TaskBase()])


# --- T10 and sockets -----------------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    return sock


async def test_unix_socket_and_graceful_shutdown(listener: socket.socket) -> None:
    task = Task()
    server = TtrpcServer([task])
    async with asyncio.TaskGroup() as group:
        serving_task = group.create_task(server.serve_unix(listener))
        idle = TtrpcClient(await connect_unix(listener.getsockname()))
        busy = TtrpcClient(await connect_unix(listener.getsockname()))
        assert (await TaskStub(idle).connect(ConnectRequest(id="1"))).shim_pid == 1
        waits = [group.create_task(TaskStub(busy).wait(WaitRequest(id="4"))) for _ in range(5)]
        for _ in waits:
            await task.waiting.acquire()
        stopping = group.create_task(server.shutdown(grace=60))
        await idle.wait_lost()
        assert not stopping.done()
        task.release.set()
        assert [(await wait).exit_status for wait in waits] == [4] * 5
        await stopping
        await serving_task
        await idle.close()
        await busy.close()
    listener.close()


async def test_shutdown_gives_up_after_its_grace(listener: socket.socket) -> None:
    task = Task()
    server = TtrpcServer([task])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve_unix(listener))
        async with TtrpcClient(await connect_unix(listener.getsockname())) as client:
            call = group.create_task(failure(TaskStub(client).wait(WaitRequest())))
            await task.waiting.acquire()
            await server.shutdown(grace=0.001)
            assert isinstance(await call, UnavailableError)
            await task.cancelled.acquire()
    listener.close()


async def test_a_peer_of_another_uid_is_refused(listener: socket.socket) -> None:
    server = TtrpcServer([Task()])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve_unix(listener, peer_uid=os.geteuid() + 1))
        stream = await connect_unix(listener.getsockname())
        assert await stream.read() == b""
        stream.abort()
        server.close()
    listener.close()


async def test_a_connection_reset_is_an_end(listener: socket.socket) -> None:
    task = Task()
    server = TtrpcServer([task])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve_unix(listener))
        stream = await connect_unix(listener.getsockname())
        peer = Peer(stream)
        await peer.call(1, "Wait", payload=bytes(WaitRequest("1")))
        await task.waiting.acquire()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.abort()
        await task.cancelled.acquire()
        server.close()
    listener.close()


async def test_connect_to_nothing(tmp_path: Path) -> None:
    error = await failure(connect_unix(str(tmp_path / "absent")))
    assert isinstance(error, UnavailableError)


# --- limits --------------------------------------------------------------------------------------------------------


async def test_client_refuses_what_is_too_large_itself() -> None:
    task = Task()
    async with (
        serving(TtrpcServer([task])) as stream,
        TtrpcClient(stream, max_response=1000) as client,
    ):
        stub = TaskStub(client)
        error = await failure(stub.connect(ConnectRequest(id="1" * MAX_DATA)))
        assert isinstance(error, ResourceExhaustedError)
        assert isinstance(
            await failure(stub.stats(StatsRequest(id="2000"))), ResourceExhaustedError
        )
        assert (await stub.connect(ConnectRequest(id="2"))).shim_pid == 2


async def test_a_malformed_response_is_refused() -> None:
    theirs, ours = stream_pair()
    async with TtrpcClient(ours) as client, asyncio.TaskGroup() as group:
        call = group.create_task(failure(TaskStub(client).connect(ConnectRequest())))
        peer = Peer(theirs)
        stream_id, *_ = await peer.frame()
        await peer.send(stream_id, FrameType.RESPONSE, 0, encode_response(Response(b"\x08")))
        assert (await call).message.startswith("ConnectResponse.shim_pid: truncated")
    theirs.abort()


async def test_calls_leave_nothing_behind() -> None:
    task = Task()
    server = TtrpcServer([task])
    async with serving(server) as stream, TtrpcClient(stream) as client:
        for number in range(50):
            await TaskStub(client).connect(ConnectRequest(id=str(number)))
        await failure(TaskStub(client).delete(DeleteRequest()))
        [connection] = server._connections
        assert not client.inboxes
        assert not client.session._streams
        assert not connection._session._streams
        await asyncio.wait_for(connection._idle.wait(), 10)
        assert not connection._calls
        assert not connection._inboxes
    assert not server._connections


async def test_remote_errors_keep_their_code() -> None:
    theirs, ours = stream_pair()
    async with TtrpcClient(ours) as client, asyncio.TaskGroup() as group:
        peer = Peer(theirs)
        for code in range(1, 17):
            call = group.create_task(failure(TaskStub(client).connect(ConnectRequest())))
            stream_id, *_ = await peer.frame()
            raw = encode_response(Response(code=code, message=f"text {code}"))
            await peer.send(stream_id, FrameType.RESPONSE, 0, raw)
            error = await call
            assert isinstance(error, RemoteError)
            assert (error.code, error.message) == (code, f"text {code}")
    theirs.abort()
