"""Events to containerd: one ordered queue, sent over a connection of its own, tried again, flushed at the end.

While containerd is down they wait; what it cannot take after some attempts is dropped with a line in the log, so that
one bad event does not hold up the rest. An event without its envelope would end containerd itself (containerd.md 0.9):
it is made here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import betterproto
from betterproto.lib.google.protobuf import Any

from parma_api.channel.stream import ByteStream, connect_unix
from parma_api.gen.containerd import events
from parma_api.gen.containerd.services.events.ttrpc.v1 import EventsStub, ForwardRequest
from parma_api.gen.containerd.types import Envelope
from parma_api.status import ApiError, Code, UnavailableError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.wire.strict import Unknown

log = logging.getLogger(__name__)

MAX_QUEUE = 2048
CALL_DEADLINE = 5.0
MAX_REFUSALS = 5
"""Answers with an error, for one event. Failed connections are not counted: containerd may be down for long."""
_LONGEST_WAIT = 5.0

TOPICS: dict[type[betterproto.Message], str] = {
    events.TaskCreate: "/tasks/create",
    events.TaskStart: "/tasks/start",
    events.TaskExecAdded: "/tasks/exec-added",
    events.TaskExecStarted: "/tasks/exec-started",
    events.TaskExit: "/tasks/exit",
    events.TaskDelete: "/tasks/delete",
    events.TaskOom: "/tasks/oom",
    events.TaskPaused: "/tasks/paused",
    events.TaskResumed: "/tasks/resumed",
}
_NAMES: dict[type[betterproto.Message], str] = {events.TaskOom: "TaskOOM"}
"""Where the message's name is not the class's."""

Dial = Callable[[], Awaitable[ByteStream]]


def envelope(event: betterproto.Message, namespace: str, at: datetime) -> Envelope:
    """The event with everything that containerd asks of it."""
    kind = type(event)
    name = f"containerd.events.{_NAMES.get(kind, kind.__name__)}"
    return Envelope(
        timestamp=at,
        namespace=namespace,
        topic=TOPICS[kind],
        event=Any(type_url=name, value=bytes(event)),
    )


class Publisher:
    """Takes events at once, sends them in order from `run`."""

    def __init__(self, dial: Dial, namespace: str, *, first_wait: float = 0.1) -> None:
        self._dial = dial
        self._namespace = namespace
        self._first_wait = first_wait
        self._queue: deque[Envelope] = deque()
        self._changed = asyncio.Event()
        self._client: TtrpcClient | None = None

    def publish(self, event: betterproto.Message) -> None:
        """Queues it; the oldest is dropped when the queue is full."""
        if len(self._queue) >= MAX_QUEUE:
            log.warning("events: the oldest of %d is dropped", MAX_QUEUE)
            self._queue.popleft()
        self._queue.append(envelope(event, self._namespace, datetime.now(UTC)))
        self._changed.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        try:
            while True:
                while self._queue:
                    await self._send_first()
                self._changed.clear()
                await self._changed.wait()
        finally:
            await self._disconnect()

    async def flush(self, seconds: float) -> None:
        """Waits until all events are sent, for `seconds` at most; `run` is running."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._queue:  # noqa: ASYNC110 -- the end of a shim, once
                    await asyncio.sleep(0.01)

    async def _send_first(self) -> None:
        """The event stays at the head until it is delivered or given up."""
        item = self._queue[0]
        refusals = 0
        wait = self._first_wait
        while self._queue and self._queue[0] is item:
            try:
                await self._forward(item)
            except ApiError as error:
                if error.code not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                    refusals += 1
                if refusals < MAX_REFUSALS:
                    await self._disconnect()
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _LONGEST_WAIT)
                    continue
                log.warning("event %s is given up: %s", item.topic, error.message)
            if self._queue and self._queue[0] is item:
                self._queue.popleft()
            return

    async def _forward(self, item: Envelope) -> None:
        if self._client is None:
            self._client = TtrpcClient(
                await self._dial(),
                unknown_fields=Unknown.IGNORE,
                metadata={"containerd-namespace-ttrpc": self._namespace},
            )
        stub = EventsStub(self._client)
        await stub.forward(ForwardRequest(envelope=item), timeout=CALL_DEADLINE)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def dial_containerd(path: str) -> Dial:
    """Connects to $TTRPC_ADDRESS. Without one every event waits for ever, which is as good as none."""

    async def dial() -> ByteStream:
        if not path:
            raise UnavailableError("containerd gave no address for events")
        return await connect_unix(path.removeprefix("unix://"))

    return dial
