"""What the gate needs of an evaluator; `opa` is the one there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from parma_api.policy.metadata import Metadata


@dataclass(frozen=True, slots=True)
class Module:
    """A Rego text of the tenant's or of a fragment, byte for byte."""

    name: str
    """The single name of its package: `policy`, or the fragment's namespace."""
    text: bytes


@dataclass(frozen=True, slots=True)
class Versions:
    """What the policy states about itself; None: nothing, or no single text."""

    api: object
    framework: object


class EvaluationError(Exception):
    """The evaluator answered, but not with a decision; the text is safe to show."""


class EngineLostError(Exception):
    """The evaluator died, hung or answered nonsense; it has been killed, the next question starts it anew."""


class Engine(Protocol):
    """One evaluator for one set of modules."""

    async def evaluate(
        self,
        metadata: Metadata,
        document: Mapping[str, object],
        values: Mapping[str, object] | None = None,
    ) -> Mapping[str, object]:
        """The answer of `data.gate.decide` over exactly this state. Raises EvaluationError, EngineLostError."""
        ...

    async def sync(self, metadata: Metadata) -> None:
        """Bring the replica to this state ahead of the next question; never raises for a lost evaluator."""
        ...

    async def versions(self) -> Versions:
        """What the policy states. Raises EvaluationError, EngineLostError."""
        ...

    async def close(self) -> None:
        """End the evaluator; idempotent."""
        ...


class EngineLoader(Protocol):
    """Makes engines: one for each set of modules."""

    async def load(self, modules: Sequence[Module]) -> Engine:
        """Check and start. Raises PolicyInvalid naming line and reason, EngineLostError."""
        ...
