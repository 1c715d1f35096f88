"""Play a sequence of requests through the agent's own gate and a real OPA, without a machine.

The format of step files is that of `tests/vectors/policy/README.md`; the output is contracts.md section 3.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parma_api.policy.decision import Decision, PointRequest, PolicyDenied, PolicyInvalid
from parma_api.policy.engine import EngineLoader
from parma_api.policy.fragment import Claims, Receipt, load_module
from parma_api.policy.gate import DEVICES, Gate
from parma_api.policy.points import Point
from parma_api.policy.refusal import parse_decision
from parma_api.status import InvalidArgumentError

COLLECTIONS: Final = (
    "devices", "rw_devices", "overlayTargets", "matches", "started", "p9mounts", "scratch_mounts", "issuers",
    "fragment_parameters",
)  # fmt: skip
_STEP_SECONDS: Final = 60.0


class _NotCarriedOut(Exception):  # noqa: N818
    """The action of a step that the file says fails."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came out of one step; step 0 is the setting of the policy."""

    step: int
    point: str
    allowed: bool
    reason_codes: tuple[str, ...] = ()
    decision: Decision | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    decision_input: Mapping[str, object] | None = None
    message: str = ""

    def to_json(self) -> dict[str, object]:
        """The line that `parma policy simulate --json` prints."""
        line: dict[str, object] = {"step": self.step, "point": self.point, "allowed": self.allowed}
        if self.allowed:
            line.update(_answer(self.decision))
        else:
            line["reason_codes"] = list(self.reason_codes)
            if self.decision_input is not None:
                line["decision_input"] = self.decision_input
        if self.step:
            line["metadata"] = self.metadata
        return line


def _answer(decision: Decision | None) -> dict[str, object]:
    answer: dict[str, object] = {}
    if decision is None:
        return answer
    if decision.env_list is not None:
        answer["env_list"] = sorted(decision.env_list)
    if decision.caps is not None:
        caps = decision.caps
        answer["caps"] = {
            "ambient": sorted(caps.ambient),
            "bounding": sorted(caps.bounding),
            "effective": sorted(caps.effective),
            "inheritable": sorted(caps.inheritable),
            "permitted": sorted(caps.permitted),
        }
    if decision.allow_stdio_access is not None:
        answer["allow_stdio_access"] = decision.allow_stdio_access
    if decision.allowed_ledgers is not None:
        answer["allowed_ledgers"] = sorted(decision.allowed_ledgers)
    return answer


@dataclass(frozen=True, slots=True)
class Script:
    """A step file that was read; `folder` is where its fragments and policies lie."""

    steps: tuple[Mapping[str, Any], ...]
    folder: Path
    host_data: bytes | None = None
    """Set for files that start without a policy."""


def parse_script(document: object, folder: Path) -> Script:
    """Raises InvalidArgumentError for what is no step file."""
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list | type(None)):
        raise InvalidArgumentError("a step file is a JSON object with a list `steps`")
    steps = document.get("steps") or []
    for number, step in enumerate(steps, 1):
        if not isinstance(step, dict) or not isinstance(step.get("point"), str):
            raise InvalidArgumentError(
                f"step {number} has no point; see the description of step files"
            )
        if step["point"] not in (*Point, "extend_default_mounts", "set_policy"):
            raise InvalidArgumentError(f"step {number}: there is no point {step['point']}")
        if step["point"] != "set_policy" and not isinstance(step.get("input"), dict):
            raise InvalidArgumentError(f"step {number} has no input object")
    stance = document.get("kind") == "stance"
    try:
        host_data = bytes.fromhex(document["host_data"]) if stance else None
    except (KeyError, TypeError, ValueError):
        raise InvalidArgumentError(
            "a file of kind stance needs host_data, 64 hexadecimal digits"
        ) from None
    return Script(tuple(steps), folder, host_data)


class Player:
    """One group's life. `loader` is as the agent's; the gate is the agent's."""

    def __init__(self, loader: EngineLoader) -> None:
        self.gate = Gate(loader)
        self._network_mounts: tuple[Mapping[str, object], ...] = ()

    async def set_policy(
        self, text: bytes, host_data: bytes | None = None, *, step: int = 0
    ) -> StepResult:
        """As the shim hands it over; without `host_data` the text is taken as attested."""
        try:
            await self.gate.set_policy(text, host_data or hashlib.sha256(text).digest())
        except PolicyInvalid as error:
            return StepResult(
                step,
                "set_policy",
                allowed=False,
                reason_codes=error.reason_codes,
                message=error.message,
            )
        return StepResult(step, "set_policy", allowed=True, metadata=self._shown())

    async def play(self, script: Script) -> AsyncIterator[StepResult]:
        """Every step in order; a refusal does not end the file."""
        for number, step in enumerate(script.steps, 1):
            yield await self._step(number, step, script)

    async def _step(self, number: int, step: Mapping[str, Any], script: Script) -> StepResult:
        point = str(step["point"])
        if point == "set_policy":
            text = _read(script.folder / Path(str(step.get("policy"))).name)
            return await self.set_policy(text, script.host_data, step=number)
        if point == "extend_default_mounts":
            self._network_mounts += tuple(step["input"].get("mounts", ()))
            return StepResult(number, point, allowed=True, metadata=self._shown())
        try:
            decision = await self._carry_out(Point(point), step, script)
        except PolicyDenied as error:
            shown = parse_decision(error.message) or {}
            decision_input = shown.get("input")
            return StepResult(
                number,
                point,
                allowed=False,
                reason_codes=error.reason_codes,
                metadata=self._shown(),
                decision_input=decision_input if isinstance(decision_input, dict) else None,
                message=error.message,
            )
        return StepResult(number, point, allowed=True, decision=decision, metadata=self._shown())

    async def _carry_out(
        self, point: Point, step: Mapping[str, Any], script: Script
    ) -> Decision | None:
        deadline = asyncio.get_running_loop().time() + _STEP_SECONDS
        if point is Point.LOAD_FRAGMENT:
            text = _read(script.folder / Path(str(step.get("fragment"))).name)
            await load_module(self.gate, _claims(step["input"]), text, deadline)
            return None
        mounts = self._network_mounts if point is Point.CREATE_CONTAINER else ()
        request = PointRequest(point, step["input"], mounts)
        queue = str(step["input"].get("containerID", DEVICES))
        decision: Decision | None = None
        with suppress(_NotCarriedOut):
            async with self.gate.transaction(queue, [request], deadline) as decisions:
                decision = decisions[0]
                if step.get("carried_out") is False:
                    raise _NotCarriedOut
        return decision

    def _shown(self) -> dict[str, object]:
        collections = self.gate.metadata().collections
        shown: dict[str, object] = {name: collections.get(name, {}) for name in COLLECTIONS}
        shown["matches"] = {
            container: len(candidates) if isinstance(candidates, list) else candidates
            for container, candidates in self.gate.metadata().mapping("matches").items()
        }
        return shown


def _claims(document: Mapping[str, Any]) -> Claims:
    try:
        receipts = tuple(
            Receipt(r["issuer"], tuple(r["ttl_subjects"])) for r in document.get("receipts", ())
        )
        return Claims(document["issuer"], document["feed"], document.get("header_svn"), receipts)
    except (KeyError, TypeError) as error:
        raise InvalidArgumentError(f"load_fragment: the input lacks {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from error


@asynccontextmanager
async def player(make_loader: Callable[[], EngineLoader]) -> AsyncIterator[Player]:
    """A player whose evaluators are ended with the block."""
    opened = Player(make_loader())
    try:
        yield opened
    finally:
        await opened.gate.close()


async def simulate(
    make_loader: Callable[[], EngineLoader], policy: bytes | None, script: Script
) -> Sequence[StepResult]:
    """All results; a policy that is refused gives the one of step 0."""
    async with player(make_loader) as opened:
        if script.host_data is None and policy is not None:
            first = await opened.set_policy(policy)
            if not first.allowed:
                return [first]
        return [result async for result in opened.play(script)]
