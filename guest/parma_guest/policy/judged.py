"""What the interceptor hands to a handler: decisions, and the facts that they were made from."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from parma_api.policy.decision import Decision, PointRequest
from parma_api.status import InternalError

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request on its way to the gate: its queue, the questions, and what the handler needs besides the answers."""

    queue: str
    requests: tuple[PointRequest, ...]
    facts: object = None


@dataclass(frozen=True, slots=True)
class Judged:
    """An allowed request: one decision for each question, in order."""

    decisions: tuple[Decision, ...]
    facts: object
    deadline: float
    """Of the running loop's clock."""

    @property
    def decision(self) -> Decision:
        """Of the last question, which is the one that the method is named after."""
        return self.decisions[-1]


JUDGED: ContextVar[Judged] = ContextVar("judged request")


def judged() -> Judged:
    """The judged request that the running handler serves. Raises InternalError if none was: nothing runs unjudged."""
    try:
        return JUDGED.get()
    except LookupError:
        raise InternalError("a gated handler was called without a decision") from None


def facts_of(kind: type[Facts]) -> Facts:
    """The facts of the judged request."""
    facts = judged().facts
    if not isinstance(facts, kind):
        raise InternalError(f"facts of another kind than {kind.__name__}")
    return facts
