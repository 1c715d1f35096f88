"""The agent's smaller half: what SetPolicy needs, and nothing else.

What a pod waits for longest is the policy's check and the start of its evaluator. They begin as soon as this half is
imported; the kernel's modules are loaded, and the rest of the agent is imported, while they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from parma_api.policy.gate import Gate
from parma_api.policy.opa import OpaLoader
from parma_guest.agent.hostlog import HostLog, install
from parma_guest.agent.places import BUNDLES, OPA, RUN
from parma_guest.agent.policy_setup import PolicySetup
from parma_guest.agent.transcript import Transcript
from parma_guest.attest import choose
from parma_guest.attest.image import Image, Kernel
from parma_guest.attest.provider import ReportProvider
from parma_guest.policy.envelopes import Envelopes

OPA_RUN = f"{RUN}/opa"
OPA_START = 90.0
"""Seconds: an emulated guest on a host that starts ten of them needs tens of them; the shim waits for 120."""


@dataclass(frozen=True, slots=True)
class PolicyHalf:
    """The gate, the record of its decisions from the first one on, and who takes the policy."""

    gate: Gate
    transcript: Transcript
    envelopes: Envelopes
    setup: PolicySetup
    provider: Callable[[], Awaitable[ReportProvider]]
    """The image's one report provider."""


def policy_half(
    gate: Gate,
    provider: Callable[[], Awaitable[ReportProvider]],
    on_logging_allowed: Callable[[], None],
) -> PolicyHalf:
    """Of the guest's real parts, or a test's."""
    transcript = Transcript()
    gate.observers.append(transcript.record)
    envelopes = Envelopes(gate)
    setup = PolicySetup(gate, envelopes, provider, on_logging_allowed=on_logging_allowed)
    return PolicyHalf(gate, transcript, envelopes, setup, provider)


def open_policy(image: Image, prepared: asyncio.Future[None]) -> PolicyHalf:
    """The real guest's. `prepared`: the machine, of which reports of real hardware need a part. Raises OSError."""
    log = HostLog()
    install(log)
    Path(OPA_RUN).mkdir(mode=0o700, parents=True, exist_ok=True)
    loader = OpaLoader(Path(OPA), Path(BUNDLES), Path(OPA_RUN), start_timeout=OPA_START)
    gate = Gate(loader)
    return policy_half(gate, _Provider(image, prepared), log.allow)


class _Provider:
    """The image's one report provider, sought when it is first needed."""

    def __init__(self, image: Image, prepared: asyncio.Future[None]) -> None:
        self._image = image
        self._prepared = prepared
        self._found: ReportProvider | None = None

    async def __call__(self) -> ReportProvider:
        if self._found is None:
            if self._image is Image.RELEASE:
                await asyncio.shield(self._prepared)
            self._found = await asyncio.to_thread(choose.choose, self._image, Kernel())
        return self._found
