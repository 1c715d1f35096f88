"""The gate: every request that changes something is decided, staged, carried out, and only then booked."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from parma_api.policy.decision import Decision, Observer, PointRequest
from parma_api.policy.engine import EngineLoader
from parma_api.policy.metadata import Metadata

DEVICES: Final = "devices"
"""The queue of devices and overlays; every other queue is named by its container id."""


class Stance(enum.Enum):
    """Where the gate stands."""

    DENY_ALL = "deny all: no policy yet"
    POLICY = "the policy decides"
    INCONSISTENT = "state and books may differ: nothing is changed any more"


class Gate:
    """Decides, stages, commits. One for each container group."""

    def __init__(self, loader: EngineLoader, *, observers: Sequence[Observer] = ()) -> None:
        raise NotImplementedError

    @property
    def stance(self) -> Stance:
        raise NotImplementedError

    async def set_policy(self, text: bytes, host_data: bytes) -> None:
        """Raises PolicyInvalid (policy.host_data_mismatch, already_set, invalid, api.*, framework.*)."""
        raise NotImplementedError

    @asynccontextmanager
    async def transaction(
        self, queue: str, requests: Sequence[PointRequest], deadline: float
    ) -> AsyncIterator[tuple[Decision, ...]]:
        """Decide all, run the body, commit. `deadline`: the running loop's time, in seconds."""
        raise NotImplementedError
        yield ()

    async def query(self, request: PointRequest) -> Decision:
        """Decide a request that changes nothing outside; waits for no queue. Raises PolicyDenied."""
        raise NotImplementedError

    async def load_fragment(self, envelope: bytes, media_type: str = "") -> None:
        """A signed envelope (COSE_Sign1): fragment, trust list, or reference information. Raises PolicyDenied."""
        raise NotImplementedError

    def mark_inconsistent(self, reason: str) -> None:
        """An undo failed: refuse every later change."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """The committed state."""
        raise NotImplementedError

    def reference_information(self) -> Mapping[str, bytes]:
        """Signed reference information by media type, for containers."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
