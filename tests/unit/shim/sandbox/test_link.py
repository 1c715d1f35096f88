"""The way to an agent, closed while nothing has told the multiplexer of the machine's end."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import stream_pair
from parma_shim.agent.client import AgentClient, GuestFacts
from parma_shim.sandbox.boot import Link
from parma_shim.sandbox.ports import RunningMachine


async def link_of(*, fails: bool) -> tuple[Link, list[str]]:
    """A link to a machine that aborts its end of the channel when it is closed, as a real one does."""
    ours, theirs = stream_pair()
    closed: list[str] = []

    class Running:
        async def close(self) -> None:
            ours.abort()
            theirs.abort()
            closed.append("machine")

    class Agent(AgentClient):
        async def close(self) -> None:
            if fails:
                raise OSError("broken")
            await super().close()

    mux = Mux(ours, side=Side.HOST)
    moving = asyncio.create_task(mux.run())
    await asyncio.sleep(0)
    agent = Agent(mux.control)
    facts = GuestFacts(version="1", variant="stub", kernel="6", report_provider="stub")
    return Link(cast("RunningMachine", Running()), mux, moving, agent, facts), closed


async def test_closing_is_quiet_and_idempotent() -> None:
    link, closed = await link_of(fails=False)
    await link.close()
    await link.close()
    assert link.moving.done()
    assert closed == ["machine", "machine"]


async def test_the_machine_ends_whatever_the_channel_does() -> None:
    link, closed = await link_of(fails=True)
    with pytest.raises(OSError, match="broken"):
        await link.close()
    assert closed == ["machine"]
