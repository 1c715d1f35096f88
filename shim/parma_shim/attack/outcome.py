"""What an attack may come to: refused as it must be, or an error that says what the host got."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass

from parma_api.policy.refusal import parse_decision
from parma_api.status import ApiError, Code, InternalError
from parma_shim.agent.text import clean

_CODES = re.compile(r"([a-z0-9_]+\.[a-z0-9_]+(?:, [a-z0-9_]+\.[a-z0-9_]+)*): ")
MAX_OBSERVED = 240


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of an attack that came to what it must come to."""

    observed: str
    reason_codes: tuple[str, ...] = ()


class AttackError(InternalError):
    """The host got through, or was stopped in another way than the threat model says."""


def codes_of(error: ApiError) -> tuple[str, ...]:
    """The policy's reason codes; where the agent itself refused, the name of the status."""
    decision = parse_decision(error.message)
    found = decision.get("reason_codes") if decision is not None else None
    if isinstance(found, list):
        return tuple(str(code) for code in found)
    if named := _CODES.match(error.message):
        return tuple(named[1].split(", "))
    return (error.code.name.lower(),)


def text_of(error: ApiError) -> str:
    """One line for people, without the decision object."""
    return clean(error.message.partition("policyDecision<")[0].strip(), MAX_OBSERVED)


async def denied(what: str, call: Awaitable[object], *codes: str) -> Observation:
    """`call` must be refused by the policy with all of `codes`. Raises AttackError."""
    observation, status = await _refused(what, call)
    missing = [code for code in codes if code not in observation.reason_codes]
    if missing or status is not Code.PERMISSION_DENIED:
        raise AttackError(
            f"{what}: {status.name}, {', '.join(observation.reason_codes)}; wanted {', '.join(codes)}: "
            f"{observation.observed}"
        )
    return observation


async def refused(what: str, call: Awaitable[object], *statuses: Code) -> Observation:
    """`call` must be refused by the agent's own rules with one of `statuses`. Raises AttackError."""
    observation, status = await _refused(what, call)
    if status not in statuses:
        wanted = ", ".join(code.name for code in statuses)
        raise AttackError(f"{what}: {status.name}, not {wanted}: {observation.observed}")
    return observation


async def stopped(what: str, call: Awaitable[object]) -> Observation:
    """`call` must be refused, by the policy or by the agent, but not by an accident."""
    observation, status = await _refused(what, call)
    if status in (Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        raise AttackError(f"{what}: {status.name}: {observation.observed}")
    return observation


async def _refused(what: str, call: Awaitable[object]) -> tuple[Observation, Code]:
    try:
        await call
    except ApiError as error:
        return Observation(f"{what}: {text_of(error)}", codes_of(error)), error.code
    raise AttackError(f"{what}: the host got through")


def all_of(*observations: Observation) -> Observation:
    """Several cases of one attack: the first one's words, everybody's codes."""
    codes = dict.fromkeys(code for found in observations for code in found.reason_codes)
    more = f" (and {len(observations) - 1} more)" if len(observations) > 1 else ""
    return Observation(observations[0].observed + more, tuple(codes))
