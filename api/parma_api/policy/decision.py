"""What is asked of the gate and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from parma_api.policy.points import Point
from parma_api.policy.refusal import decision_text
from parma_api.status import ApiError, InvalidArgumentError, PermissionDeniedError


@dataclass(frozen=True, slots=True)
class PointRequest:
    """One question: the point and its input document (policy.md, section 6), as JSON values."""

    point: Point
    input: Mapping[str, object]
    network_mounts: tuple[Mapping[str, object], ...] = ()
    """`create_container` only: the pod's network files, added to the default mounts for this question (section 7)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets, each in the order of the request."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    permitted: tuple[str, ...]
    ambient: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """An allowed request. What is None does not belong to the point."""

    point: Point
    input: Mapping[str, object]
    """The input as judged, its paths in plain form: what is done must use these."""
    env_list: tuple[str, ...] | None = None
    """Variables to keep, in the order of the request, each distinct entry once."""
    caps: Capabilities | None = None
    allow_stdio_access: bool | None = None
    """create and exec_external: of this process; exec_in_container: as decided when its container was created."""
    allowed_ledgers: tuple[str, ...] | None = None
    parameters: tuple[Mapping[str, object], ...] = ()
    add_module: bool = False


class PolicyDenied(PermissionDeniedError):  # noqa: N818 - says what happened, like its root's siblings
    """The policy, or a check of the gate's own, refuses; nothing was changed.

    `message` carries the decision object between `policyDecision<` and `>policyDecision` (policy.md, section 13.2).
    """

    def __init__(
        self,
        point: str,
        reason_codes: tuple[str, ...],
        document: Mapping[str, object] | None = None,
        reason: object = None,
        policy_error: str | None = None,
    ) -> None:
        self.point = point
        self.reason_codes = tuple(sorted(set(reason_codes)))
        self.document: Mapping[str, object] = document or {}
        self.reason = reason
        super().__init__(
            decision_text(point, self.reason_codes, self.document, reason, policy_error)
        )


class PolicyInvalid(InvalidArgumentError):  # noqa: N818
    """The text cannot become the policy, or a fragment of it; nothing was changed.

    `message` begins with the reason codes, which reach a remote caller in no other way.
    """

    def __init__(self, message: str, reason_codes: tuple[str, ...]) -> None:
        self.reason_codes = tuple(sorted(set(reason_codes)))
        super().__init__(f"{', '.join(self.reason_codes)}: {message}")


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What observers hear of each decision, in the order in which they fell."""

    point: str
    input: Mapping[str, object]
    """Redacted (policy.md, section 13.2)."""
    allowed: bool
    reason_codes: tuple[str, ...] = ()
    metadata_generation: int = 0
    error: ApiError | None = field(default=None, compare=False)


Observer: TypeAlias = Callable[[DecisionRecord], None]
