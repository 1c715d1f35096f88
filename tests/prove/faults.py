"""Three faults, each planted where such a fault would really be; the exploration must find all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import betterproto

from parma_api.policy.decision import Decision, PointRequest, PolicyDenied
from parma_api.policy.engine import Engine
from parma_api.policy.gate import Gate
from parma_api.policy.metadata import Action, Command, Kind, Metadata
from parma_api.policy.points import Point
from parma_api.policy.verdict import Verdict
from parma_api.ttrpc.server import Proceed
from parma_guest.policy.interceptor import Interceptor
from parma_guest.policy.judged import JUDGED, Judged
from parma_guest.policy.prepare import PREPARERS
from tests.prove.guest import ModelStorage, Parts


class CommitsOnDenial(Gate):
    """Books a layer as mounted although it was refused."""

    async def decide(
        self,
        request: PointRequest,
        over: Metadata,
        engine: Engine | None = None,
        values: Mapping[str, object] | None = None,
    ) -> tuple[Verdict, Metadata]:
        try:
            return await super().decide(request, over, engine, values)
        except PolicyDenied:
            if request.point is Point.MOUNT_DEVICE:
                target, root = str(request.input["target"]), request.input["deviceHash"]
                command = Command("devices", Action.UPDATE, Kind.MAP, target, root)
                self.book(over.apply([command]))
            raise


class ForgetsTheInverse(ModelStorage):
    """An action that fails stays in the ledger."""

    async def _booked(
        self,
        work: Callable[[Callable[[], None]], None],
        unbook: Callable[[], object],
        timeout: float,
    ) -> None:
        del unbook
        await super()._booked(work, lambda: None, timeout)


class BypassesTheGate(Interceptor):
    """Mounts layers without waiting for the answer."""

    async def _judge(
        self, method: str, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        if method != "MountLayer":
            return await super()._judge(method, request, proceed)
        group: Any = self._group
        prepared = await PREPARERS[method](group, request)
        asked = prepared.requests[0]
        JUDGED.set(Judged((Decision(asked.point, asked.input),), prepared.facts, 0.0))
        return await proceed(request)


FAULTS = {
    "commit on denial": Parts(gate=CommitsOnDenial),
    "forgotten inverse": Parts(storage=ForgetsTheInverse),
    "gate bypass": Parts(interceptor=BypassesTheGate),
}
