"""An agent in this process and the shim that drives it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.agent import agent_in_process
from tests.fixtures.group import Driver, policy


@pytest.fixture
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """With the default policy, or the one given by indirect parametrization; nothing is set up yet."""
    text = getattr(request, "param", None) or policy()
    async with agent_in_process(text) as rig:
        yield Driver(rig, text)


@pytest.fixture
async def ready(driver: Driver) -> Driver:
    """The same with policy, network, scratch and layers."""
    await driver.setup()
    return driver
