"""The evaluator: OPA with a replica of the state, reached by opa-python-client over a Unix socket.

The state belongs to the agent. OPA's copy is stamped with a number that grows with each patch; an answer with another
number, or none in time, ends the process, and the next question starts a new one from the agent's state.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from parma_api.policy import metadata as state
from parma_api.policy.bundle import write_framework, write_module
from parma_api.policy.check import Checker, invalid, is_package_error, is_parse_error
from parma_api.policy.engine import EngineLostError, EvaluationError, Module, Versions
from parma_api.policy.metadata import Metadata
from parma_api.policy.sidecar import Sidecar

_T = TypeVar("_T")
TUNING: Final = {"GOGC": "400", "GOMEMLIMIT": "96MiB"}
"""OPA's own collector: fewer collections take the p99 of a decision from five times the p50 to two."""
MAX_TEXT: Final = 4 << 20
"""Bytes of a policy or fragment."""


def import_client() -> type[Any]:
    """The client's class; half a second of CPU, so it is imported when it is first needed."""
    if "opa_client" not in sys.modules:
        # The package imports its synchronous half, and with it requests, even for the asynchronous one.
        stub = types.ModuleType("opa_client.opa")
        stub.OpaClient = None  # type: ignore[attr-defined]
        sys.modules["opa_client.opa"] = stub
    import aiohttp
    from opa_client.opa_async import AsyncOpaClient

    class UnixOpa(AsyncOpaClient):  # type: ignore[misc]
        """The library's client over a Unix socket, which it has no option for."""

        def __init__(self, path: Path, timeout: float) -> None:
            super().__init__(host="opa", port=80, timeout=timeout, retries=0)
            self._path = str(path)

        async def _init_session(self) -> None:
            self._connector = aiohttp.UnixConnector(self._path, limit=2)
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                trust_env=False,
                headers={"Accept-Encoding": "identity"},  # OPA would compress answers above 1 KiB
                timeout=aiohttp.ClientTimeout(total=self.timeout),
            )

    return UnixOpa


class OpaEngine:
    """One sealed OPA. Questions and patches take turns: a patch behind a slow question would stop everything."""

    def __init__(self, sidecar: Sidecar, directory: Path, *, timeout: float) -> None:
        self._sidecar = sidecar
        self._directory = directory
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._client: Any = None
        self._replica: Metadata | None = None
        self._values: Mapping[str, object] = {}
        self._stamp = 0
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def sidecar(self) -> Sidecar:
        """The process, for tests and figures."""
        return self._sidecar

    async def evaluate(
        self,
        metadata: Metadata,
        document: Mapping[str, object],
        values: Mapping[str, object] | None = None,
    ) -> Mapping[str, object]:
        """See Engine."""
        return await self._undisturbed(lambda: self._decide(metadata, document, values))

    async def sync(self, metadata: Metadata) -> None:
        """See Engine."""
        if self._replica is None or self._closed:
            return
        try:
            await self._undisturbed(lambda: self._prepare(metadata, None))
        except EngineLostError:
            return  # the next question starts anew and says so if it cannot

    async def versions(self) -> Versions:
        """See Engine."""
        answer = await self._undisturbed(self._ask_versions)
        return Versions(_single(answer.get("api")), _single(answer.get("framework")))

    async def _undisturbed(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run `work` to its end, whatever happens to the caller: what is in flight is always accounted for."""

        async def locked() -> _T:
            async with self._lock:
                return await work()

        task = asyncio.ensure_future(locked())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: a caller that went away does not hear of it

    async def _decide(
        self,
        metadata: Metadata,
        document: Mapping[str, object],
        values: Mapping[str, object] | None,
    ) -> Mapping[str, object]:
        await self._prepare(metadata, values)
        return await self._ask("decide", document)

    async def _ask_versions(self) -> Mapping[str, object]:
        await self._prepare(self._replica or Metadata.initial(), None)
        return await self._ask("versions", {})

    async def _ask(self, rule: str, document: Mapping[str, object]) -> Mapping[str, object]:
        answer = await self._call(lambda client: client.query_rule(dict(document), "gate", rule))
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict) or result.get("generation") != self._stamp:
            await self._drop()
            raise EngineLostError("OPA answered about another state")
        return result

    async def _prepare(self, metadata: Metadata, values: Mapping[str, object] | None) -> None:
        if self._closed:
            raise EngineLostError("this evaluator has been replaced")
        wanted = self._values if values is None else values
        if self._replica is None or not self._sidecar.running:
            await self._start()
            operations: list[dict[str, object]] = [
                {"op": "add", "path": "/metadata", "value": metadata.collections},
                {"op": "add", "path": "/fragment_values", "value": wanted},
            ]
        else:
            operations = state.patch(self._replica, metadata)
            if wanted is not self._values:
                operations.append({"op": "add", "path": "/fragment_values", "value": wanted})
            if not operations:
                return
        stamp = self._stamp + 1
        operations.append({"op": "add", "path": "/gate_state", "value": {"generation": stamp}})
        try:
            await self._call(lambda client: client.patch_data("", operations))
        except EvaluationError as error:
            await self._drop()
            raise EngineLostError("OPA refused the state") from error
        self._replica, self._values, self._stamp = metadata, wanted, stamp

    async def _start(self) -> None:
        await self._drop()
        client_class = await asyncio.to_thread(import_client)
        await self._sidecar.start()
        self._client = client_class(self._sidecar.socket, self._timeout)
        await self._client.__aenter__()

    async def _call(self, request: Callable[[Any], Awaitable[Any]]) -> Any:
        """One HTTP exchange, foreign errors translated. After an answer of 4xx or 5xx OPA stays usable."""
        import aiohttp
        from opa_client.errors import PatchDataError

        try:
            return await request(self._client)
        except aiohttp.ClientResponseError as error:
            # The body of a 500 holds both values of a conflict: never passed on.
            raise EvaluationError(f"OPA answered {error.status}") from None
        except PatchDataError:
            raise EvaluationError("OPA refused a patch") from None
        except TimeoutError:
            await self._drop()
            raise EngineLostError("the decision took too long") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            await self._drop()
            raise EngineLostError(f"OPA is gone: {type(error).__name__}") from None

    async def _drop(self) -> None:
        client, self._client, self._replica = self._client, None, None
        self._sidecar.kill()
        if client is not None:
            await client.close_connection()

    async def close(self) -> None:
        """See Engine."""
        if self._closed:
            return
        async with self._lock:
            self._closed = True
            await self._drop()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)


def _single(values: object) -> object:
    return values[0] if isinstance(values, list) and len(values) == 1 else None


class OpaLoader:
    """Checks texts and starts an OPA for them. One for each agent or simulator."""

    def __init__(
        self,
        binary: Path,
        bundle_dir: Path,
        run_dir: Path,
        *,
        timeout: float = 5.0,
        start_timeout: float = 30.0,
        environment: dict[str, str] | None = None,
        on_spawn: Callable[[int], None] | None = None,
    ) -> None:
        """`bundle_dir` holds the framework (policy_bundles); `run_dir` (mode 0700, the caller's) gets sockets and
        bundles. Times in seconds: one decision, one start or check."""
        self._binary, self._bundle_dir, self._run_dir = binary, bundle_dir, run_dir
        self._timeout, self._start_timeout = timeout, start_timeout
        self._environment, self._on_spawn = {**TUNING, **(environment or {})}, on_spawn
        self._checker = Checker(binary, bundle_dir / "capabilities.json", start_timeout)
        self._languages: dict[Module, int] = {}

    async def load(self, modules: Sequence[Module]) -> OpaEngine:
        """See EngineLoader."""
        directory = Path(tempfile.mkdtemp(dir=self._run_dir, prefix="o"))
        try:
            bundles = await self._bundles(modules, directory)
            sidecar = Sidecar(
                self._binary,
                bundles,
                directory,
                start_timeout=self._start_timeout,
                environment=self._environment,
                on_spawn=self._on_spawn,
            )
            return OpaEngine(sidecar, directory, timeout=self._timeout)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise EngineLostError(f"bundles cannot be written: {error.strerror}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    async def _bundles(self, modules: Sequence[Module], directory: Path) -> list[Path]:
        bundles = [directory / "framework"]
        write_framework(self._bundle_dir, bundles[0])
        for index, module in enumerate(modules):
            target = directory / f"m{index}"
            known = self._languages.get(module)
            if known is not None:
                write_module(module, target, known)
                bundles.append(target)
            elif await self._checked(module, target, bundles, directory):
                bundles.append(target)
        return bundles

    async def _checked(
        self, module: Module, target: Path, others: list[Path], scratch: Path
    ) -> bool:
        """Version 1, then version 0. False: sound, but of another package, so it is left out."""
        _check_text(module)
        failures: list[list[str]] = []
        for version in (1, 0):
            write_module(module, target, version)
            messages = await self._checker.bundles([*others, target], scratch)
            if not messages:
                self._languages[module] = version
                return True
            shutil.rmtree(target)
            failures.append(messages)
        if module.name == "policy" and any(is_package_error(m) for m in failures):
            failures = await self._check_foreign(module, scratch)
            if not failures:
                return False
        first, second = failures
        raise invalid(
            "the text", second if is_parse_error(first) and not is_parse_error(second) else first
        )

    async def _check_foreign(self, module: Module, scratch: Path) -> list[list[str]]:
        text = scratch / "alone.rego"
        text.write_bytes(module.text)
        failures = []
        for version in (1, 0):
            messages = await self._checker.alone(text, version, scratch)
            if not messages:
                return []
            failures.append(messages)
        return failures


def _check_text(module: Module) -> None:
    if len(module.text) > MAX_TEXT:
        raise invalid("the text", [f"it has more than {MAX_TEXT} bytes"])
    if not module.text.strip():
        raise invalid("the text", ["it is empty"])
    try:
        module.text.decode()
    except UnicodeDecodeError as error:
        line = module.text.count(b"\n", 0, error.start) + 1
        raise invalid("the text", [f"line {line}: it is not UTF-8"]) from None
