"""The gate: every request that changes something is decided, staged, carried out, and only then booked."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from parma_api.policy.decision import (
    Decision,
    DecisionRecord,
    Observer,
    PointRequest,
    PolicyDenied,
    PolicyInvalid,
)
from parma_api.policy.engine import (
    Engine,
    EngineLoader,
    EngineLostError,
    EvaluationError,
    Module,
)
from parma_api.policy.inputs import InputError, check_input
from parma_api.policy.metadata import Command, Metadata, MetadataError
from parma_api.policy.paths import plain_input
from parma_api.policy.points import Point
from parma_api.policy.queues import SERIAL, Queues
from parma_api.policy.refusal import redact
from parma_api.policy.verdict import Verdict, read_answer
from parma_api.policy.versions import check_versions
from parma_api.status import DeadlineExceededError, InternalError

DEVICES: Final = "devices"
"""The queue of devices and overlays; every other queue is named by its container id."""
FRAGMENTS: Final = "fragments"
_QUERY_SECONDS: Final = 60.0


class Stance(enum.Enum):
    """Where the gate stands."""

    DENY_ALL = "deny all: no policy yet"
    POLICY = "the policy decides"
    INCONSISTENT = "state and books may differ: nothing is changed any more"


@dataclass(frozen=True, slots=True)
class _Staged:
    """Decisions of one transaction, and what to book over which state once the action has worked."""

    decisions: tuple[Decision, ...]
    base: Metadata
    commands: tuple[Command, ...]


class Gate:
    """Decides, stages, commits. One for each container group."""

    def __init__(self, loader: EngineLoader, *, observers: Sequence[Observer] = ()) -> None:
        self._loader = loader
        self.observers: list[Observer] = list(observers)
        self._engine: Engine | None = None
        self._modules: tuple[Module, ...] = ()
        self._metadata = Metadata.initial()
        self._generation = 0
        self._inconsistent: str | None = None
        self._serial = False
        self._setting = asyncio.Lock()
        self._queues = Queues()
        self._stdio: dict[str, bool] = {}
        self._background: set[asyncio.Task[None]] = set()

    @property
    def stance(self) -> Stance:
        """Where the gate stands now."""
        if self._inconsistent is not None:
            return Stance.INCONSISTENT
        return Stance.DENY_ALL if self._engine is None else Stance.POLICY

    @property
    def generation(self) -> int:
        """How many commits there have been."""
        return self._generation

    @property
    def modules(self) -> tuple[Module, ...]:
        """The policy, then the fragments that stay loaded."""
        return self._modules

    @property
    def loader(self) -> EngineLoader:
        """What checks texts and starts evaluators for them."""
        return self._loader

    def metadata(self) -> Metadata:
        """The committed state."""
        return self._metadata

    def mark_inconsistent(self, reason: str) -> None:
        """An undo failed: refuse every later change. The first reason stays."""
        self._inconsistent = self._inconsistent or reason

    async def set_policy(self, text: bytes, host_data: bytes) -> None:
        """Take the attested policy, once. `host_data`: the 32 bytes of the report.

        Raises PolicyInvalid (policy.host_data_mismatch, policy.already_set, policy.invalid, api.version_*,
        framework.version_*); after a failed attempt another may follow.
        """
        async with self._setting:
            if self._engine is not None:
                raise PolicyInvalid(
                    "a policy is set already; it cannot be replaced", ("policy.already_set",)
                )
            digest = hashlib.sha256(text).digest()
            if not hmac.compare_digest(digest, host_data):
                raise PolicyInvalid(
                    f"the policy's SHA-256 {digest.hex()} is not the report's HOST_DATA {host_data.hex()}",
                    ("policy.host_data_mismatch",),
                )
            module = Module("policy", text)
            engine = await self._loaded((module,))
            self._engine, self._modules = engine, (module,)
            self._serial = b"metadata" in text

    async def _loaded(self, modules: tuple[Module, ...]) -> Engine:
        try:
            engine = await self._loader.load(modules)
        except EngineLostError as error:
            raise PolicyInvalid(
                f"the policy cannot be loaded: {error}", ("policy.invalid",)
            ) from error
        try:
            check_versions(await engine.versions())
        except (EvaluationError, EngineLostError) as error:
            await engine.close()
            raise PolicyInvalid(
                f"the policy cannot be evaluated: {error}", ("policy.invalid",)
            ) from error
        except BaseException:
            await engine.close()
            raise
        return engine

    @asynccontextmanager
    async def transaction(
        self, queue: str, requests: Sequence[PointRequest], deadline: float
    ) -> AsyncIterator[tuple[Decision, ...]]:
        """Decide all in order, run the body, book; `deadline` is the running loop's time, in seconds.

        The body performs the action with the values of the decisions. When it ends normally what was staged is
        booked; when it raises, nothing is. Raises PolicyDenied before the body with nothing changed, and
        DeadlineExceededError when the time is over.
        """
        prepared = [self._prepared(request) for request in requests]
        try:
            async with AsyncExitStack() as stack:
                await self._enter_queues(stack, queue, prepared, deadline)
                await stack.enter_async_context(asyncio.timeout_at(deadline))
                staged = await self._decide_all(prepared)
                yield staged.decisions
                self._commit(staged)
        except TimeoutError:
            names = ", ".join(request.point for request in requests)
            raise DeadlineExceededError(
                f"{names}: not finished by its deadline; nothing was booked"
            ) from None

    async def _enter_queues(
        self, stack: AsyncExitStack, queue: str, requests: Sequence[PointRequest], deadline: float
    ) -> None:
        if all(request.point is Point.SIGNAL_CONTAINER_PROCESS for request in requests):
            await stack.enter_async_context(self._queues.urgent_turn(queue, deadline))
            return
        if self._serial:
            await stack.enter_async_context(self._queues.turn(SERIAL, deadline))
        await stack.enter_async_context(self._queues.turn(queue, deadline))

    async def query(self, request: PointRequest) -> Decision:
        """Decide a request that changes nothing outside; waits for no action. Raises PolicyDenied.

        Only a hand-written policy that books something with it waits for its turn, and is asked again if the state has
        moved meanwhile.
        """
        prepared = self._prepared(request, changes=False)
        staged = await self._decide_all([prepared])
        if not staged.commands:
            return staged.decisions[0]
        deadline = asyncio.get_running_loop().time() + _QUERY_SECONDS
        async with self._queues.turn(SERIAL, deadline):
            while staged.base is not self._metadata:
                staged = await self._decide_all([prepared])
            self._commit(staged)
        return staged.decisions[0]

    def _prepared(self, request: PointRequest, *, changes: bool = True) -> PointRequest:
        """The request in plain form, or PolicyDenied for what holds without asking the policy."""
        plain = replace(request, input=plain_input(request.input))
        if self._engine is None:
            self.refuse(plain, "policy.not_loaded", "no policy has been set")
        if changes and self._inconsistent is not None:
            self.refuse(plain, "state.inconsistent", self._inconsistent)
        try:
            check_input(plain.point, plain.input)
        except InputError as error:
            self.refuse(plain, "request.invalid", str(error))
        return plain

    def refuse(self, request: PointRequest, code: str, why: str) -> NoReturn:
        """Refuse for a reason of the gate's own. Raises PolicyDenied, which observers hear of."""
        error = PolicyDenied(request.point, (code,), request.input, policy_error=why)
        self._observe(request, error)
        raise error

    async def _decide_all(self, requests: Sequence[PointRequest]) -> _Staged:
        base = ahead = self._metadata
        decisions: list[Decision] = []
        commands: list[Command] = []
        for request in requests:
            verdict, ahead = await self.decide(request, ahead)
            decisions.append(self._with_stdio(verdict.decision))
            commands += verdict.commands
        return _Staged(tuple(decisions), base, tuple(commands))

    async def decide(
        self,
        request: PointRequest,
        over: Metadata,
        engine: Engine | None = None,
        values: Mapping[str, object] | None = None,
    ) -> tuple[Verdict, Metadata]:
        """One decision over a state, and the state that it asks for. Raises PolicyDenied; observers hear of either."""
        try:
            answer = await self._answer(request, over, engine, values)
            verdict = read_answer(request, answer)
            ahead = over.apply(verdict.commands)
        except PolicyDenied as error:
            self._observe(request, error)
            raise
        except (EvaluationError, EngineLostError) as error:
            self.refuse(request, "policy.evaluation", str(error))
        except (MetadataError, ValueError) as error:
            self.refuse(request, "policy.metadata_failed", str(error))
        self._observe(request, None)
        return verdict, ahead

    async def _answer(
        self,
        request: PointRequest,
        over: Metadata,
        engine: Engine | None,
        values: Mapping[str, object] | None,
    ) -> Mapping[str, object]:
        document: dict[str, object] = {**request.input, "rule": request.point.value}
        if request.network_mounts:
            document["networkMounts"] = list(request.network_mounts)
        while True:
            chosen = engine or self._engine
            assert chosen is not None
            try:
                return await chosen.evaluate(over, document, values)
            except EngineLostError:
                if engine is not None or chosen is self._engine:
                    raise  # else a fragment's evaluator has taken its place meanwhile

    def _with_stdio(self, decision: Decision) -> Decision:
        if decision.point is not Point.EXEC_IN_CONTAINER:
            return decision
        container = str(decision.input["containerID"])
        return replace(decision, allow_stdio_access=self._stdio.get(container, False))

    def _commit(self, staged: _Staged) -> None:
        """Book it. Without an await: a cancellation comes before it or after it, never between."""
        try:
            metadata = self._metadata.rebase(staged.base, staged.commands)
        except (MetadataError, ValueError) as error:
            self.mark_inconsistent(f"what was done cannot be booked: {error}")
            raise InternalError(f"what was done cannot be booked: {error}") from error
        for decision in staged.decisions:
            if decision.point is Point.CREATE_CONTAINER:
                self._stdio[str(decision.input["containerID"])] = bool(decision.allow_stdio_access)
        self.book(metadata)

    def book(self, metadata: Metadata) -> None:
        """Make `metadata` the committed state; the evaluator's replica follows in the background."""
        if metadata is self._metadata:
            return
        self._metadata = metadata
        self._generation += 1
        if self._engine is not None:
            self._spawn(self._engine.sync(metadata))

    def adopt(self, engine: Engine, modules: Iterable[Module]) -> None:
        """Switch over to another evaluator; the old one ends when its last answer is out."""
        old, self._engine, self._modules = self._engine, engine, tuple(modules)
        self._serial = self._serial or any(b"metadata" in module.text for module in self._modules)
        if old is not None:
            self._spawn(old.close())

    @asynccontextmanager
    async def turn(self, queue: str, deadline: float) -> AsyncIterator[None]:
        """Hold a queue for a change that is decided in several steps (fragments). Raises DeadlineExceededError."""
        try:
            async with AsyncExitStack() as stack:
                await self._enter_queues(
                    stack, queue, [PointRequest(Point.LOAD_FRAGMENT, {})], deadline
                )
                await stack.enter_async_context(asyncio.timeout_at(deadline))
                yield
        except TimeoutError:
            raise DeadlineExceededError(
                f"{queue}: not finished by its deadline; nothing was booked"
            ) from None

    def prepare(self, request: PointRequest) -> PointRequest:
        """The request in plain form. Raises PolicyDenied (policy.not_loaded, state.inconsistent, request.invalid)."""
        return self._prepared(request)

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _observe(self, request: PointRequest, error: PolicyDenied | None) -> None:
        if not self.observers:
            return
        shown = redact(request.input)
        assert isinstance(shown, dict)
        codes = error.reason_codes if error is not None else ()
        record = DecisionRecord(request.point, shown, error is None, codes, self._generation, error)
        for observer in self.observers:
            observer(record)

    async def close(self) -> None:
        """End the evaluator; every later request is refused."""
        engine, self._engine = self._engine, None
        while self._background:
            await asyncio.gather(*self._background)
        if engine is not None:
            await engine.close()
