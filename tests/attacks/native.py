"""The catalogue's VM as an agent in this process: real channel, gate, OPA, documents; fake kernel parts.

Seconds instead of minutes, and the agent's own code can be weakened to see which attacks notice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from parma_guest.linux.blockdev import Disk
from parma_guest.linux.blockdev import ScsiAddress as GuestAddress
from parma_guest.storage.claims import read_claim
from parma_guest.storage.layers import LayerClaim
from parma_shim.attack.lab import Lab
from parma_shim.attack.program import CANARY_TEXT
from parma_shim.attack.rig import Rig
from parma_shim.config import Config
from parma_shim.vmm.disks import ScsiAddress
from tests.fixtures import runtime
from tests.fixtures.agent import Rig as AgentRig
from tests.fixtures.agent import agent_in_process

_TOOL = f"""
import os, signal, sys
arguments = sys.argv[1:]
if not arguments:
    signal.pause()
if len(arguments) == 1:
    data = {CANARY_TEXT[:28]!r} * {len(CANARY_TEXT) // 28}
    while data:
        data = data[os.write(1, data):]
sys.exit({{3: 97, 4: 1}}.get(len(arguments), 0))
"""
"""What the attacker's program does, as far as exit statuses and standard output go."""


class NoStream:
    """The machine's channel: nothing beneath the agent's own."""

    async def write(self, data: bytes) -> None:
        return


class NativeMachine:
    """Disks are files, and what they claim is read by the agent's own code."""

    def __init__(self, agent: AgentRig) -> None:
        self.pid = os.getpid()
        self.channel = NoStream()
        self._agent = agent
        self._lun = 0
        self._files: dict[int, bytes] = {}
        agent.storage.read_claim = self._read_claim  # type: ignore[method-assign]

    async def attach_disk(self, fd: int, **_: object) -> ScsiAddress:
        self._lun += 1
        self._files[self._lun] = os.pread(fd, 16 << 20, 0)
        return ScsiAddress(0, self._lun)

    async def detach_disk(self, address: ScsiAddress) -> None:
        del self._files[address.lun]

    async def _read_claim(self, address: GuestAddress) -> LayerClaim:
        data = self._files[address.lun]
        claim = read_claim(lambda at, size: data[at : at + size], len(data))
        return LayerClaim(address, Disk("/dev/null", "1:3"), claim)

    async def wait(self) -> None:
        await asyncio.Event().wait()

    def console_tail(self) -> str:
        return ""


class NativeRunning:
    """See sandbox.machines.HostMachine."""

    def __init__(self, agent: AgentRig) -> None:
        self.machine = NativeMachine(agent)


class NativeLab(Lab):
    """A lab whose shared VM is an agent in this process."""

    async def fresh(self) -> Rig:
        if self._rig is None:
            agent = await self._undo.enter_async_context(agent_in_process(self.policy))
            running = cast("Any", NativeRunning(agent))
            client = cast("Any", agent.client).channel
            self._rig = Rig(running, agent.mux, agent.client, client, self.policy, self.folder)
        return self._rig


@asynccontextmanager
async def native_lab(
    monkeypatch: pytest.MonkeyPatch, policy: bytes | None = None
) -> AsyncIterator[Lab]:
    """A lab with its own agent; `policy`: another than the attacker's."""
    for name in ("/tool", "tool", "/bin/sh"):
        monkeypatch.setitem(runtime._PROGRAMS, name, _TOOL)
    async with NativeLab(Config(lib_dir=Path("/nowhere")), {}, policy) as lab:
        yield lab
