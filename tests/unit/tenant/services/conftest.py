"""A certificate service that can be away, slow, rate-limiting or false, over the stub's own answers."""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from parma_api.snp.report import Report, parse
from parma_shim.psp.kds import KeyService, Reply
from parma_tenant.services.upstream import Timing, Upstream, upstream
from tests.unit.tenant.stub import StubPsp, stub_psp

PATIENT = Timing(one=60.0, all=100.0, pause=0.01, longest_pause=0.05)
"""The stub's service reads RSA keys of 4096 bits, which takes seconds on a busy machine."""
HASTY = Timing(one=0.3, all=5.0, pause=0.01, longest_pause=0.05)
OLD_TCB = {"bootloader": 3, "tee": 0, "snp": 20, "microcode": 200}


@functools.cache
def answer_of(folder: Path, revoked: tuple[int, ...], path: str) -> Reply:
    """Once: it reads keys of 4096 bits each time."""
    return KeyService(folder, None, revoked).get(path)


@dataclass
class Service:
    """Answers from `folder`; `broken` does something else instead. `asked`: the paths, in order."""

    folder: Path
    url: str = ""
    broken: Callable[[str], web.StreamResponse | float] | None = None
    revoked: tuple[int, ...] = ()
    asked: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.broken is not None:
            answer = self.broken(request.path)
            if isinstance(answer, web.StreamResponse):
                return answer
            await asyncio.sleep(answer)
        reply = await asyncio.to_thread(answer_of, self.folder, self.revoked, request.path_qs)
        return web.Response(status=int(reply.code), body=reply.body)

    def count(self, ending: str) -> int:
        return sum(path.endswith(ending) for path in self.asked)


@pytest.fixture
async def service(authority: Path, psp: StubPsp) -> AsyncIterator[Service]:
    del psp  # which made the authority
    found = Service(authority)
    app = web.Application()
    app.router.add_get("/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[Upstream]:
    async with upstream(None, "tests", PATIENT) as found:
        yield found


@pytest.fixture(scope="session")
def old_psp(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> StubPsp:
    """The same chip before the firmware update; its certificates only: the process has ended."""
    with stub_psp(tmp_path_factory.mktemp("old"), authority, tcb=OLD_TCB) as launched:
        return launched


async def report_of(psp: StubPsp, data: bytes = bytes(64)) -> Report:
    return parse(await psp.source.report(data))


def days_later(days: float) -> float:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).timestamp()
