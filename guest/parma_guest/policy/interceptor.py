"""The one place where a request meets the gate. There is no other way from the channel to a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import betterproto

from parma_api.gen.parma.agent.v1 import LoadFragmentRequest
from parma_api.policy.gate import Gate, Stance
from parma_api.status import (
    DeadlineExceededError,
    FailedPreconditionError,
    PermissionDeniedError,
)
from parma_api.ttrpc.call import CALL
from parma_api.ttrpc.server import Proceed
from parma_api.ttrpc.service import MethodInfo
from parma_guest.agent.sandbox import Group
from parma_guest.ops import UndoFailedError
from parma_guest.policy.envelopes import Envelopes
from parma_guest.policy.judged import JUDGED, Judged
from parma_guest.policy.methods import (
    GATED,
    UNGATED,
    UNGATED_CHANGES,
    WITHOUT_POLICY,
    Row,
    Turn,
    check_complete,
)
from parma_guest.policy.prepare import PREPARERS, Preparer


class Interceptor:
    """Judges each call before its handler sees it."""

    def __init__(
        self,
        gate: Gate,
        envelopes: Envelopes,
        group: Group,
        offered: Iterable[str],
        preparers: Mapping[str, Preparer] = PREPARERS,
    ) -> None:
        """`offered`: the service's methods. Raises ValueError when one is neither gated nor named as ungated."""
        check_complete(offered)
        asked = {name for name, row in GATED.items() if row.turn is not Turn.ENVELOPE}
        if preparers.keys() != asked:
            raise ValueError(
                f"no input builder, or one too many: {sorted(preparers.keys() ^ asked)}"
            )
        self._gate = gate
        self._envelopes = envelopes
        self._group = group
        self._preparers = preparers

    async def __call__(
        self, info: MethodInfo, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        """As a server's interceptor. Raises PolicyDenied and whatever the handler raises."""
        try:
            if info.method in UNGATED:
                self._check_ungated(info.method)
                return await proceed(request)
            return await self._judge(info.method, request, proceed)
        except UndoFailedError as error:
            self._gate.mark_inconsistent(error.message)
            raise

    def _check_ungated(self, method: str) -> None:
        stance = self._gate.stance
        if stance is Stance.DENY_ALL and method not in WITHOUT_POLICY:
            raise PermissionDeniedError(f"{method}: no policy has been set: call SetPolicy first")
        if stance is Stance.INCONSISTENT and method in UNGATED_CHANGES:
            raise FailedPreconditionError(
                f"{method}: the group is inconsistent, an undo failed: nothing is changed any more"
            )

    async def _judge(
        self, method: str, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        row = GATED[method]
        deadline = _deadline(row)
        if row.turn is Turn.ENVELOPE:
            assert isinstance(request, LoadFragmentRequest)
            await self._envelopes.load(request.envelope, request.media_type, deadline)
            return await proceed(request)
        try:
            async with asyncio.timeout_at(deadline):
                prepared = await self._preparers[method](self._group, request)
        except TimeoutError:
            raise DeadlineExceededError(f"{method}: not prepared by its deadline") from None
        if row.turn is Turn.QUERY:
            decisions = tuple([await self._gate.query(asked) for asked in prepared.requests])
            JUDGED.set(Judged(decisions, prepared.facts, deadline))
            return await proceed(request)
        async with self._gate.transaction(prepared.queue, prepared.requests, deadline) as decisions:
            JUDGED.set(Judged(decisions, prepared.facts, deadline))
            return await proceed(request)


def _deadline(row: Row) -> float:
    own = asyncio.get_running_loop().time() + row.seconds
    call = CALL.get(None)
    return own if call is None or call.deadline is None else min(own, call.deadline)
