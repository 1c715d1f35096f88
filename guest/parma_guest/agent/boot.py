"""From PID 1's first statement to a serving agent (reference: boot order by what each import costs).

First the channel and Health, with asyncio and betterproto only. Behind the first answer the policy's half, because its
check and its evaluator's start take longest; while they run, the evaluator's client and the rest of the agent are
imported. Mounts and kernel modules have a thread of their own from the beginning: their time is the kernel's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from parma_api.channel.frame import ChannelError
from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import ByteStream
from parma_api.status import ApiError, UnavailableError
from parma_api.ttrpc.server import TtrpcServer
from parma_guest.agent import port
from parma_guest.agent.front import Front
from parma_guest.agent.hostlog import say
from parma_guest.attest.image import Image

if TYPE_CHECKING:
    from parma_guest.agent.assemble import Agent
    from parma_guest.agent.policy_half import PolicyHalf

_SEARCH_SECONDS: Final = 10.0


async def serve_channel(front: Front, stream: ByteStream, on_mux: Callable[[Any], None]) -> None:
    """One channel, until it ends."""
    mux = Mux(stream, side=Side.GUEST)
    server = TtrpcServer([front], interceptor=front.intercept)
    on_mux(mux.open)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(mux.control))
            try:
                await mux.run()
            except ChannelError as error:
                say(f"channel: {error.message}")
            finally:
                serving.cancel()
    finally:
        on_mux(None)


async def next_stream(state: dict[str, socket.socket]) -> ByteStream:
    """The channel's lower end: the port of its name, else the host's next vsock connection. Raises UnavailableError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SEARCH_SECONDS
    while True:
        if (path := port.find_port(port.PORT_NAME)) is not None:
            return await port.open_port(path)
        if "vsock" in state:
            return await port.accept_host(state["vsock"])
        if os.path.exists("/dev/vsock"):  # noqa: ASYNC240, PTH110 (one look, and pathlib costs an import)
            state["vsock"] = port.listen_vsock()
        elif loop.time() > deadline:
            raise UnavailableError(
                "no virtio-serial port parma.channel and no vsock: nobody to serve"
            )
        else:
            await asyncio.sleep(0.02)


async def run(image: Image) -> None:
    """Serve for ever. Raises ApiError when that is not possible."""
    front = Front(image)
    channels: list[Any] = [None]
    listeners: list[Callable[[Any], None]] = []

    def on_mux(opener: Any) -> None:
        channels[0] = opener
        for listener in listeners:
            listener(opener)

    async with asyncio.TaskGroup() as group:
        group.create_task(_open_back(front, image, channels, listeners))
        state: dict[str, socket.socket] = {}
        await _vsock_module_if_needed()
        while True:
            await serve_channel(front, await next_stream(state), on_mux)


async def _vsock_module_if_needed() -> None:
    """Its module is loaded only where no port is found: the port costs nothing."""
    if port.find_port(port.PORT_NAME) is not None:
        return
    from parma_guest.boot.early import load_modules

    try:
        await asyncio.to_thread(load_modules, ("vsock",))
    except ApiError as error:
        say(f"no vsock: {error.message}")


async def _open_back(
    front: Front,
    image: Image,
    channels: list[Any],
    listeners: list[Callable[[Any], None]],
) -> None:
    await asyncio.sleep(0)  # the channel first
    try:
        agent = await _opened(front, image)
    except BaseException as error:
        front.failed(
            error if isinstance(error, ApiError) else UnavailableError("no agent: see the console")
        )
        raise
    listeners.append(agent.back.on_channel)
    agent.back.on_channel(channels[0])
    front.ready(agent.back)


async def _opened(front: Front, image: Image) -> Agent:
    """Imports run in threads, so that Health is answered meanwhile; one after the other, by who waits for what."""
    prepared = asyncio.ensure_future(asyncio.to_thread(_prepare_machine, image))
    open_policy = await asyncio.to_thread(_import_policy)
    policy = open_policy(image, prepared)
    front.policy_ready(policy.setup.set_policy)
    await asyncio.to_thread(_import_client)
    build = await asyncio.to_thread(_import_build)
    await prepared
    return build(front, policy)


def _prepare_machine(image: Image) -> None:
    from parma_guest.boot.machine import prepare_machine

    prepare_machine(image)


def _import_policy() -> Callable[[Image, asyncio.Future[None]], PolicyHalf]:
    from parma_guest.agent.policy_half import open_policy

    return open_policy


def _import_client() -> None:
    from parma_api.policy.opa import import_client

    import_client()


def _import_build() -> Callable[[Front, PolicyHalf], Agent]:
    from parma_guest.agent.guest import build

    return build
