"""The agent under exploration: its real interceptor, gate, OPA, storage service and ledger, over the model of a kernel.

`restore` puts it into any state that was met before, `ask` plays one request. What creates containers is modelled: it
holds the overlay as the real one does, and starts a process in the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import betterproto

from parma_api.ids import ContainerId, RootHash, SandboxId
from parma_api.policy.engine import Module
from parma_api.policy.gate import Gate
from parma_api.policy.metadata import Metadata
from parma_api.policy.opa import OpaEngine, OpaLoader
from parma_api.policy.sidecar import find_opa
from parma_api.status import AlreadyExistsError, ApiError, NotFoundError
from parma_api.ttrpc.service import MethodInfo
from parma_api.volumes import root_path
from parma_guest.agent.front import handler_name, offered
from parma_guest.agent.service import AgentService
from parma_guest.linux.blockdev import Disk, ScsiAddress
from parma_guest.policy.envelopes import Envelopes
from parma_guest.policy.inputs import ContainerFacts, ProcessFacts
from parma_guest.policy.interceptor import Interceptor
from parma_guest.policy.judged import facts_of, judged
from parma_guest.storage import service as storage_module
from parma_guest.storage.claims import Claim
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.ledger import Layer, Overlay, Scratch
from parma_guest.storage.service import Storage
from tests.fixtures.agent import short_directory
from tests.fixtures.group import POD
from tests.prove.kernel import Kernel, World
from tests.prove.story import DISKS, Mishap, Request, policy

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger's content."""

    layers: dict[str, Layer] = field(default_factory=dict)
    scratch: dict[str, Scratch] = field(default_factory=dict)
    overlays: dict[str, Overlay] = field(default_factory=dict)
    running: dict[str, frozenset[ContainerId]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a request can change."""

    metadata: Metadata
    books: Books = field(default_factory=Books)
    world: World = field(default_factory=World)
    stdio: dict[str, bool] = field(default_factory=dict)
    inconsistent: str | None = None


class KeepingLoader(OpaLoader):
    """Starts one OPA for each set of modules, and keeps it: a fragment is loaded thousands of times here."""

    def __init__(self, run: Path) -> None:
        super().__init__(find_opa(), ROOT / "policy_bundles", run)
        self._kept: dict[tuple[Module, ...], _KeptEngine] = {}

    async def load(self, modules: Sequence[Module]) -> OpaEngine:
        key = tuple(modules)
        if key not in self._kept:
            engine = await super().load(modules)
            kept = _KeptEngine(engine.sidecar, engine._directory, timeout=engine._timeout)
            self._kept[key] = kept
        return self._kept[key]

    async def end(self) -> None:
        """Close them all."""
        for engine in self._kept.values():
            await OpaEngine.close(engine)


class _KeptEngine(OpaEngine):
    async def close(self) -> None:
        """Not yet."""


class ModelStorage(Storage):
    """The real service; disks are told, and what it deletes in the background is nothing here."""

    async def read_claim(self, address: ScsiAddress) -> LayerClaim:
        return LayerClaim(address, Disk("/dev/sda", "8:0"), Claim(RootHash(DISKS[address.lun]), 8))

    def _remove_later(self, path: str) -> None:
        del path


@contextlib.contextmanager
def over_model(kernel: Kernel) -> Iterator[None]:
    """The storage service's three ways to the kernel lead to the model meanwhile."""
    module = cast("Any", storage_module)
    kept = module.ops, module.scratch_disk, module.run_blocking

    async def run_blocking(work: Callable[[Callable[[], None]], None], _timeout: float) -> None:
        work(lambda: None)

    module.ops = SimpleNamespace(apply=kernel.apply, UndoFailedError=kept[0].UndoFailedError)
    module.scratch_disk, module.run_blocking = kernel.scratch_disk, run_blocking
    try:
        yield
    finally:
        module.ops, module.scratch_disk, module.run_blocking = kept


class Processes:
    """What the preparers ask of the agent's process table."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def commands(self, container: str) -> dict[str, tuple[str, ...]]:
        """By exec id; "" is the first process."""
        found = self._kernel.world.processes
        return {exec_id: command for who, exec_id, command in found if who == container}


class Containers:
    """Containers on the model."""

    def __init__(self, kernel: Kernel, storage: Storage) -> None:
        self._kernel = kernel
        self._storage = storage

    def known(self, container: str) -> bool:
        """Whether it has been created and not shut down."""
        return any(who == container for who, _, _ in self._kernel.world.processes)

    async def create_container(self, _request: betterproto.Message) -> betterproto.Message:
        facts = facts_of(ContainerFacts)
        container = ContainerId(str(judged().decision.input["containerID"]))
        if self.known(container):
            raise AlreadyExistsError(f"container {container} exists")
        self._storage.hold_overlay(root_path(container), container)
        try:
            self._kernel.start(container, "", tuple(facts.document.process.args))
        except BaseException:
            self._storage.release_overlay(root_path(container), container)
            raise
        return betterproto.Message()

    async def exec_process(self, _request: betterproto.Message) -> betterproto.Message:
        facts = facts_of(ProcessFacts)
        if any(row[:2] == (facts.container, "e") for row in self._kernel.world.processes):
            raise AlreadyExistsError("the process exists")
        if not self.known(facts.container):
            raise NotFoundError("no such container")
        self._kernel.start(facts.container, "e", tuple(facts.process.args))
        return betterproto.Message()

    async def signal_process(self, _request: betterproto.Message) -> betterproto.Message:
        container = str(judged().decision.input["containerID"])
        if not self.known(container):
            raise NotFoundError("no such container")
        self._kernel.step("kill")
        self._kernel.end(container)
        return betterproto.Message()

    async def shutdown_container(self, _request: betterproto.Message) -> betterproto.Message:
        container = ContainerId(str(judged().decision.input["containerID"]))
        self._kernel.step("delete")
        self._kernel.end(container)
        self._storage.release_overlay(root_path(container), container)
        return betterproto.Message()


class Guest:
    """One agent with its OPA. `open_guest` makes it."""

    def __init__(self, gate: Gate, parts: Parts, empty_root: Path) -> None:
        self.kernel = Kernel()
        self.storage = parts.storage()
        self.gate = gate
        self._containers = Containers(self.kernel, self.storage)
        group = SimpleNamespace(
            storage=self.storage,
            sources=SimpleNamespace(unshare=lambda _sandbox: None),
            processes=Processes(self.kernel),
            layout=SimpleNamespace(real=lambda _path: str(empty_root)),
            sandbox=SandboxId(POD),
            check_sandbox=_check_sandbox,
            require_sandbox=lambda: SandboxId(POD),
            adopt=lambda _sandbox: None,
        )
        nobody: Any = None
        self._service = AgentService(cast("Any", group), nobody, nobody, nobody, nobody, nobody)
        self._interceptor = parts.interceptor(gate, Envelopes(gate), cast("Any", group), offered())

    def initial(self) -> State:
        """Before the first request."""
        return State(Metadata.initial())

    def restore(self, state: State) -> None:
        """Everything as it was in `state`."""
        gate = self.gate
        gate._metadata = state.metadata
        gate._inconsistent = state.inconsistent
        gate._stdio = dict(state.stdio)
        ledger, books = self.storage._ledger, state.books
        ledger._layers, ledger._scratch = dict(books.layers), dict(books.scratch)
        ledger._overlays = dict(books.overlays)
        ledger._running = {target: set(who) for target, who in books.running.items()}
        used = len(books.layers) + 2 * len(books.scratch)
        names = [*(row.device for row in books.layers.values())]
        names += [row.crypt for row in books.scratch.values()]
        taken = [int(name.rsplit("-", 1)[1]) for name in names]
        self.storage._numbers = itertools.count(max(taken, default=used) + 1)
        self.kernel.world = state.world

    def state(self) -> State:
        """As it is now."""
        ledger, gate = self.storage._ledger, self.gate
        running = {target: frozenset(who) for target, who in ledger._running.items() if who}
        books = Books(dict(ledger._layers), dict(ledger._scratch), dict(ledger._overlays), running)
        return State(
            gate.metadata(),
            books,
            self.kernel.world,
            dict(gate._stdio),
            gate._inconsistent,
        )

    async def ask(self, request: Request, mishap: Mishap, fail_at: int) -> ApiError | None:
        """Play one request; the refusal or failure, or None."""
        self.kernel.arm(
            fail_at if mishap in (Mishap.FAILS, Mishap.UNDO_FAILS) else None,
            undo_fails=mishap is Mishap.UNDO_FAILS,
        )
        target: Any = self._service
        if hasattr(self._containers, handler_name(request.method)):
            target = self._containers
        handler = getattr(target, handler_name(request.method))

        async def proceed(asked: betterproto.Message) -> betterproto.Message:
            answer: betterproto.Message = await handler(asked)
            if mishap is Mishap.KILLED:
                engine = self.gate._engine
                assert isinstance(engine, OpaEngine)
                engine.sidecar.kill()
            return answer

        info = cast("MethodInfo", SimpleNamespace(method=request.method))
        try:
            with over_model(self.kernel):
                await self._interceptor(info, request.build(), proceed)
        except ApiError as error:
            return error
        return None


@dataclass(frozen=True, slots=True)
class Parts:
    """The classes that take part: the real ones, or with a fault planted in them."""

    gate: type[Gate] = Gate
    storage: type[ModelStorage] = ModelStorage
    interceptor: type[Interceptor] = Interceptor


def _check_sandbox(sandbox: str) -> None:
    if sandbox != POD:
        raise AlreadyExistsError("this machine is another pod's")


@contextlib.asynccontextmanager
async def open_guest(parts: Parts | None = None) -> AsyncIterator[Guest]:
    """With the policy set and an OPA of its own, which ends with the block."""
    parts = parts or Parts()
    text = policy()
    with short_directory() as folder:
        run, root = folder / "o", folder / "root"
        run.mkdir(mode=0o700)
        root.mkdir()
        loader = KeepingLoader(run)
        gate = parts.gate(loader)
        try:
            await gate.set_policy(text, hashlib.sha256(text).digest())
            yield Guest(gate, parts, root)
        finally:
            await gate.close()
            await loader.end()
