"""Port-forward: connections to the loopback of the pod's namespace, carried to the guest's loopback.

containerd dials there; a rule of nftables leads every such connection to our listeners (`parma_shim.net.portforward`).
Each becomes a stream of the channel, under the policy's point `port_forward`; a refusal closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Protocol

from parma_api.channel.stream import ByteStream, SocketStream, StreamClosedError
from parma_api.status import ApiError
from parma_shim.agent.client import AgentClient
from parma_shim.io.stdio import Channel
from parma_shim.net.portforward import PortRedirect, original_destination
from parma_shim.sandbox.ports import Network

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128


class Reporter(Protocol):
    """Makes a refusal readable and keeps its record."""

    def explained(self, error: ApiError) -> ApiError: ...


async def serve_ports(
    network: Network, agent: AgentClient, channel: Channel, reporter: Reporter
) -> None:
    """Until cancelled. A host without `nft` has no port-forward, and pods all the same."""
    try:
        redirect = await network.redirect_ports()
    except ApiError as error:
        log.warning("no port-forward for this pod: %s", error.message)
        return
    try:
        await _accept_all(redirect, agent, channel, reporter)
    finally:
        redirect.close()


async def _accept_all(
    redirect: PortRedirect, agent: AgentClient, channel: Channel, reporter: Reporter
) -> None:
    room = asyncio.Semaphore(MAX_CONNECTIONS)
    async with asyncio.TaskGroup() as group:

        async def accept(listener: socket.socket) -> None:
            while True:
                await room.acquire()
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                task = group.create_task(_forward(peer, agent, channel, reporter))
                task.add_done_callback(lambda _: room.release())

        for listener in redirect.listeners:
            group.create_task(accept(listener))


async def _forward(
    peer: socket.socket, agent: AgentClient, channel: Channel, reporter: Reporter
) -> None:
    connection = SocketStream(peer)
    stream: ByteStream | None = None
    try:
        _, port = original_destination(peer)
        stream_id = channel.next_id()
        stream = channel.open(stream_id)
        await agent.forward_port(port, stream_id)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(connection, stream))
            group.create_task(_copy(stream, connection))
    except ApiError as error:
        log.warning("port-forward: %s", reporter.explained(error).message.partition("\n")[0])
    finally:
        connection.abort()
        if stream is not None:
            stream.abort()


async def _copy(source: ByteStream, target: ByteStream) -> None:
    with contextlib.suppress(StreamClosedError):
        while data := await source.read():
            await target.write(data)
        await target.finish()
        return
    source.abort()
    target.abort()
