"""A key-release sidecar in this process, in a group whose reports come from a stub, and the broker that it asks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from parma_api.status import ApiError
from parma_tenant.services.upstream import Timing
from parma_tenant.sidecar.skr.main import serving
from parma_tenant.sidecar.skr.options import Options
from tests.unit.tenant.broker.conftest import Client, broker, group_key
from tests.unit.tenant.stub import StubPsp

__all__ = ["broker", "group_key"]
QUICK = Timing(one=60.0, all=100.0, pause=0.01, longest_pause=0.05)


@dataclass
class Container:
    """Another container of the pod."""

    session: aiohttp.ClientSession
    port: int

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, **options) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, **body: object) -> tuple[int, Any]:
        return await self.call("POST", path, json=body)


@contextlib.asynccontextmanager
async def sidecar(
    psp: StubPsp, roots: bytes, root: Path, timing: Timing = QUICK, **more: Any
) -> AsyncIterator[Container]:
    options = Options(port=0, roots=roots, **more)
    environment = {"PARMA_REPORT_SOCKET": psp.path}
    async with (
        serving(options, environment, root, timing) as port,
        aiohttp.ClientSession() as session,
    ):
        yield Container(session, port)


@pytest.fixture
async def skr(broker: Client, psp: StubPsp, tmp_path: Path) -> AsyncIterator[Container]:
    async with sidecar(psp, broker.about.root.read_bytes(), tmp_path / "root") as found:
        yield found


def endpoints(broker: Client, kid: str) -> dict[str, str]:
    host = broker.about.issuer.removeprefix("https://")
    return {"maa_endpoint": host, "akv_endpoint": f"https://{host}/", "kid": kid}


class Source:
    """A report device whose TCB, certificates and health the test sets."""

    def __init__(self, *launches: StubPsp) -> None:
        self.launches, self.now, self.asked = launches, 0, 0
        self.table: bytes = launches[0].certificates
        self.after: int | None = None
        self.error: ApiError | None = None

    async def report(self, report_data: bytes) -> bytes:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.after is not None and self.asked > self.after:
            self.now = 1
        return await self.launches[self.now].source.report(report_data)

    async def certificates(self) -> bytes:
        return self.table

    async def supplier(self, _report: object) -> bytes:
        return await self.certificates()
