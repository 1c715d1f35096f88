"""A denied and an allowed action through the whole agent, natively, over an empty call: 50 containers, 50 started."""

from __future__ import annotations

import asyncio
from typing import Final

from parma_api.gen.parma.agent.v1 import (
    HealthRequest,
    ScsiAddress,
    SignalProcessRequest,
    StartContainerRequest,
    UnmountLayerRequest,
)
from parma_api.gen.parma.agent.v1 import MountLayerRequest as MountLayer
from parma_api.status import Code, RemoteError
from parma_api.volumes import layer_path
from tests.bench.row import Limit, Rows, in_turns_async, row, scaled
from tests.fixtures.agent import agent_in_process
from tests.fixtures.group import (
    FOREIGN,
    LAYERS,
    Driver,
    container_id,
    description,
    oci_document,
    policy,
    process,
)

CONTAINERS: Final = 50
ROUNDS: Final = 200
_LUN: Final = 77
_URGENT: Final = 23
"""SIGURG, which does nothing to a process that does not ask for it."""
_LIMIT: Final = Limit(over=5)


def _policy() -> bytes:
    described = [
        description(name=f"c{number}", command=["sleep", str(1000 + number)], signals=[_URGENT])
        for number in range(CONTAINERS)
    ]
    return policy(*described)


async def _run_all(driver: Driver) -> None:
    await driver.setup()
    for number in range(CONTAINERS):
        container = container_id(number)
        await driver.mount_overlay(container)
        document = oci_document(container, process=process(("sleep", str(1000 + number))))
        await driver.create(container, document)
        await driver.rig.client.start_container(StartContainerRequest(container_id=container))


async def _measure() -> Rows:
    text = _policy()
    async with agent_in_process(text) as rig:
        driver = Driver(rig, text)
        await _run_all(driver)
        client, started = rig.client, container_id(CONTAINERS - 1)
        driver.plug(_LUN, FOREIGN)
        driver.plug(_LUN + 1, LAYERS[0])

        async def empty() -> None:
            await client.health(HealthRequest())

        async def denied() -> None:
            request = MountLayer(device=ScsiAddress(0, _LUN), target=layer_path(_LUN))
            try:
                await client.mount_layer(request)
            except RemoteError as error:
                if error.code is Code.PERMISSION_DENIED:
                    return
                raise
            raise AssertionError("the foreign layer was mounted")

        async def signal() -> None:
            await client.signal_process(SignalProcessRequest(container_id=started, signal=_URGENT))

        async def mount() -> None:
            target = layer_path(_LUN + 1)
            await client.mount_layer(MountLayer(device=ScsiAddress(0, _LUN + 1), target=target))
            await client.unmount_layer(UnmountLayerRequest(target=target))

        base, refused, signalled, mounted = await in_turns_async(
            ROUNDS, empty, denied, signal, mount
        )
    under = scaled(base, 1e3)
    return [
        row("agent.denied.mount_layer", "ms", scaled(refused, 1e3), "empty call", under, _LIMIT),
        row("agent.allowed.signal", "ms", scaled(signalled, 1e3), "empty call", under, _LIMIT),
        row("agent.allowed.mount_layer", "ms", scaled(mounted, 5e2), "empty call", under, _LIMIT),
    ]


def run() -> Rows:
    """Rows for `make bench`; the mount's figure is half of a mount and its unmount."""
    return asyncio.run(_measure())
