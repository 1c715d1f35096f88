"""The queue of events: order, repetition, giving up (containerd.md 2.8)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from betterproto.lib.google.protobuf import Empty

from parma_api.channel.stream import ByteStream, stream_pair
from parma_api.gen.containerd import events
from parma_api.gen.containerd.services.events.ttrpc.v1 import EventsBase, ForwardRequest
from parma_api.status import InvalidArgumentError
from parma_api.ttrpc.server import TtrpcServer
from parma_shim.task.events import MAX_QUEUE, MAX_REFUSALS, Publisher, dial_containerd, envelope


def test_an_envelope_is_complete() -> None:
    at = datetime.now(UTC)
    made = envelope(events.TaskOom(container_id="c"), "ns", at)
    assert (made.topic, made.namespace, made.timestamp) == ("/tasks/oom", "ns", at)
    assert made.event.type_url == "containerd.events.TaskOOM"
    assert envelope(events.TaskExit(), "ns", at).event.type_url == "containerd.events.TaskExit"


class Picky(EventsBase):
    """Refuses one container's events."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.done = asyncio.Event()

    async def forward(self, forward_request: ForwardRequest) -> Empty:
        event = events.TaskStart().parse(forward_request.envelope.event.value)
        self.asked.append(event.container_id)
        if event.container_id == "bad":
            raise InvalidArgumentError("no")
        if event.container_id == "last":
            self.done.set()
        return Empty()


async def test_a_bad_event_does_not_hold_up_the_rest() -> None:
    picky = Picky()
    server = TtrpcServer([picky])
    serving = []

    async def dial() -> ByteStream:
        ours, theirs = stream_pair()
        serving.append(asyncio.create_task(server.serve(theirs)))
        return ours

    publisher = Publisher(dial, "ns", first_wait=0.001)
    for name in ("first", "bad", "last"):
        publisher.publish(events.TaskStart(container_id=name))
    running = asyncio.create_task(publisher.run())
    await asyncio.wait_for(picky.done.wait(), 10)
    await publisher.flush(5)
    running.cancel()
    await asyncio.wait((running,))
    server.close()
    await asyncio.wait(serving)
    assert picky.asked == ["first", *["bad"] * MAX_REFUSALS, "last"]


async def test_a_bounded_queue_and_nobody_to_tell() -> None:
    publisher = Publisher(dial_containerd(""), "ns", first_wait=0.001)
    for number in range(MAX_QUEUE + 3):
        publisher.publish(events.TaskStart(pid=number))
    running = asyncio.create_task(publisher.run())
    await publisher.flush(0.05)
    running.cancel()
    await asyncio.wait((running,))
    assert len(publisher._queue) == MAX_QUEUE
    assert events.TaskStart().parse(publisher._queue[0].event.value).pid == 3
