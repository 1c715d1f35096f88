"""The OPA process: start, readiness, sealing flags, death."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from parma_api.policy.child import ENVIRONMENT, Child
from parma_api.policy.engine import EngineLostError

MAX_BODY: Final = 4 << 20
"""Bytes of one request that OPA decodes."""
_MAX_SOCKET_PATH: Final = 100
_POLL: Final = 0.005


def find_opa() -> Path:
    """The OPA binary: $PARMA_OPA, else the system's, else the build cache's. Raises FileNotFoundError saying where."""
    if named := os.environ.get("PARMA_OPA"):
        candidates = [Path(named)]
    else:
        cache = Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")
        candidates = [
            Path("/usr/share/parma/opa"),
            cache / "opa" / "opa",
            cache / "build" / "opa-bin",
        ]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    places = ", ".join(map(str, candidates))
    raise FileNotFoundError(f"no OPA binary at {places}: run `make env`, or set PARMA_OPA")


def server_arguments(binary: Path, bundles: Sequence[Path], socket: Path) -> list[str]:
    """The sealed server's command line: a root-only socket, authorisation, no telemetry, no decision log."""
    return [
        str(binary), "run", "--server",
        "--addr", f"unix://{socket}", "--unix-socket-perm", "600",
        "--authorization", "basic",
        "--skip-version-check",
        "--optimize-store-for-read-speed",  # candidates are read with each question, written once
        "--log-level", "error", "--log-format", "json",
        "--set", f"server.decoding.max_length={MAX_BODY}",
        "--bundle", *map(str, bundles),
    ]  # fmt: skip


class Sidecar:
    """One OPA for one set of bundles, restartable at the same socket (a new OPA unlinks a stale one)."""

    def __init__(
        self,
        binary: Path,
        bundles: Sequence[Path],
        directory: Path,
        *,
        start_timeout: float,
        environment: dict[str, str] | None = None,
        on_spawn: Callable[[int], None] | None = None,
    ) -> None:
        """`directory` (mode 0700) gets the socket; `on_spawn` hears each pid, to put it into a cgroup."""
        self.socket = directory / "s"
        if len(str(self.socket)) > _MAX_SOCKET_PATH:
            raise EngineLostError(f"{self.socket}: too long for a socket's path")
        self._arguments = server_arguments(binary, bundles, self.socket)
        self._environment = {**ENVIRONMENT, **(environment or {})}
        self._start_timeout = start_timeout
        self._on_spawn = on_spawn
        self._child: Child | None = None
        self.starts = 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and not self._child.poll()

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self.running else None

    async def start(self) -> None:
        """Start and wait until it answers. Raises EngineLostError; then nothing is left running."""
        self.kill()
        self.starts += 1
        try:
            self._child = Child(self._arguments, environment=self._environment)
        except OSError as error:
            raise EngineLostError(f"OPA cannot be started: {error.strerror}") from error
        if self._on_spawn is not None:
            self._on_spawn(self._child.pid)
        try:
            async with asyncio.timeout(self._start_timeout):
                await self._ready()
        except TimeoutError:
            self.kill()
            raise EngineLostError("OPA did not answer in time after its start") from None
        except BaseException:
            self.kill()
            raise

    async def _ready(self) -> None:
        while not await _healthy(self.socket):
            if not self.running:
                raise EngineLostError("OPA ended while it started")
            await asyncio.sleep(_POLL)  # the socket file exists before OPA accepts

    def kill(self) -> None:
        """End the process now; idempotent."""
        if self._child is not None:
            self._child.reap()
            self._child = None


async def _healthy(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: opa\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        writer.close()
