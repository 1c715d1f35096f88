"""One VM for all attacks of a module, and agents in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from parma_shim.attack.lab import Lab
from parma_shim.config import Config
from tests.fixtures.agent import agent_in_process
from tests.fixtures.group import Driver, policy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """The malicious shim's; its VM is booted when the first attack needs it."""
    folder: Path = tmp_path_factory.mktemp("lab")
    config = Config(run_dir=folder / "run", lib_dir=folder / "lib")
    async with Lab(config, dict(os.environ)) as made:
        yield made


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    """An agent in this process and its shim, nothing set up."""
    text = policy()
    async with agent_in_process(text) as rig:
        yield Driver(rig, text)


@pytest.fixture
async def ready(driver: Driver) -> Driver:
    """The same with policy, network, scratch and layers."""
    await driver.setup()
    return driver
