"""A transcript replayed against the policy: would it have decided so? Through the agent's own gate and a real OPA.

The transcript leaves out what must not leave the group: values of variables, texts of fragments. So each decision is
same (the policy decides as recorded), other (it cannot have decided so), or open (what is left out could explain it).
Which decisions were carried out follows from the generation that the next ones were made in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from parma_api.policy.decision import PointRequest, PolicyDenied, PolicyInvalid
from parma_api.policy.defaults import default_sets
from parma_api.policy.engine import EngineLoader
from parma_api.policy.gate import Gate
from parma_api.policy.metadata import Metadata
from parma_api.policy.points import Point
from parma_api.volumes import NETWORK_FILES
from parma_tenant.verify.checks import Check, failed, passed, skipped
from parma_tenant.verify.transcript import Entry, TranscriptFile

NAME: Final = "transcript.replay"
_CAPABILITIES: Final[Mapping[str, dict[str, list[str]]]] = {
    "[privileged]": default_sets(privileged=True),
    "[unprivileged]": default_sets(privileged=False),
}
_HIDDEN: Final = frozenset(
    (
        "process.env process.env_required process.env_undecidable process.mounts"
        " process.no_single_candidate process.capabilities_undecidable process.stdio_undecidable"
    ).split()
)
"""Refusals that values of variables, or the pod's network files, decide."""
_OWN: Final = frozenset(
    "policy.not_loaded state.inconsistent policy.evaluation request.invalid".split()
)
"""Refusals that depend on the machine's state, not on the policy."""
_WITH_TEXT: Final = (Point.LOAD_FRAGMENT, Point.LOAD_TRANSPARENCY_TRUST_LIST)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Numbers of decisions: the same, open, and the first that is other, with why."""

    same: int
    open: int
    other: tuple[Entry, str] | None = None


async def check_replay(
    loader: EngineLoader, policy: bytes, transcript: TranscriptFile, host_data: bytes
) -> Check:
    """`transcript.replay`. The policy must be the one that the report names."""
    digest = hashlib.sha256(policy).digest()
    if digest != host_data:
        reason = "the policy is not the one in the report's HOST_DATA"
        return failed(NAME, reason, expected=host_data.hex(), got=digest.hex())
    if transcript.skipped:
        return skipped(NAME, f"the first {transcript.skipped} decisions are not shown")
    gate = Gate(loader)
    try:
        await gate.set_policy(policy, host_data)
        outcome = await _Replay(gate).run(transcript.entries)
    except PolicyInvalid as error:
        return failed(NAME, f"the policy cannot be loaded: {error.message}")
    finally:
        await gate.close()
    if outcome.other is not None:
        entry, why = outcome.other
        return failed(NAME, f"decision {entry.sequence} ({entry.point}): {why}")
    count = f"{outcome.same} of {len(transcript.entries)} decisions are the policy's"
    rest = f"; {outcome.open} depend on what is not shown" if outcome.open else ""
    return passed(NAME, reason=count + rest)


class _Replay:
    """The state of the group as far as the entries tell it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._committed = self._ahead = gate.metadata()
        self._generation = 0
        self._certain = True
        """Whether every change so far is known."""

    async def run(self, entries: Sequence[Entry]) -> Outcome:
        """Ends with the first decision that is another."""
        same = unknown = 0
        for entry in entries:
            if entry.generation < self._generation:
                return Outcome(same, unknown, (entry, "made in a generation before the last one's"))
            if entry.generation > self._generation:
                self._committed, self._generation = self._ahead, entry.generation
            why = await self._judge(entry)
            if why is None:
                same += 1
            elif why:
                return Outcome(same, unknown, (entry, why))
            else:
                unknown += 1
        return Outcome(same, unknown)

    async def _judge(self, entry: Entry) -> str | None:
        """None for the same decision, a reason for another, an empty text for an open one."""
        if entry.point not in list(Point):
            return "there is no such point"
        point = Point(entry.point)
        if point in _WITH_TEXT or set(entry.reason_codes) & _OWN:
            # A fragment's text is not shown: from here on the policy is another.
            self._certain = self._certain and not entry.allowed
            return ""
        codes: set[str] = set()
        for state in dict.fromkeys((id(self._ahead), id(self._committed))):
            over = self._ahead if state == id(self._ahead) else self._committed
            found = await self._decide(_request(point, entry.input), over)
            if isinstance(found, Metadata) and entry.allowed:
                self._ahead = found
                return None
            if not isinstance(found, Metadata):
                codes |= found
                if not entry.allowed:
                    return None
        return self._differs(entry, codes)

    async def _decide(self, request: PointRequest, over: Metadata) -> Metadata | set[str]:
        """The state after the decision, or the codes of its refusal."""
        try:
            _, after = await self._gate.decide(self._gate.prepare(request), over)
        except PolicyDenied as error:
            return set(error.reason_codes)
        return after

    def _differs(self, entry: Entry, codes: set[str]) -> str:
        hidden = _HIDDEN if entry.allowed else _HIDDEN | _OWN
        deciding = codes if entry.allowed else set(entry.reason_codes)
        explained = not self._certain or (bool(deciding) and deciding <= hidden)
        if entry.allowed:
            self._certain = False
        if explained:
            return ""
        if entry.allowed:
            return f"recorded as allowed, and this policy refuses it: {', '.join(sorted(codes))}"
        return f"recorded as refused ({', '.join(entry.reason_codes)}), and this policy allows it"


def _request(point: Point, shown: Mapping[str, object]) -> PointRequest:
    """The question again, with what stands for something put back and variables left out."""
    document = dict(shown)
    capabilities = document.get("capabilities")
    if isinstance(capabilities, str) and capabilities in _CAPABILITIES:
        document["capabilities"] = _CAPABILITIES[capabilities]
    if "envList" in document:
        document["envList"] = []
    mounts = document.get("mounts")
    network = (
        tuple(m for m in mounts if isinstance(m, dict) and m.get("destination") in NETWORK_FILES)
        if isinstance(mounts, list) and point is Point.CREATE_CONTAINER
        else ()
    )
    return PointRequest(point, document, network)
