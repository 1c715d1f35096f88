"""Brokers in this process, and what a client of theirs needs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_tenant.broker.attestation import Rules
from parma_tenant.broker.run import Running, Settings, running
from parma_tenant.verify.expectation import Expectation
from tests.unit.tenant.broker.kit import import_body, policy_for, runtime_of, submission
from tests.unit.tenant.stub import StubPsp

MAA, AKV = {"api-version": "2020-10-01"}, {"api-version": "7.4"}


@dataclass
class Client:
    """Speaks to one broker; answers are status and JSON."""

    session: aiohttp.ClientSession
    about: Running

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.about.admin.read_text().strip()}"}

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        url = f"https://127.0.0.1:{self.about.port}{path}"
        async with self.session.request(method, url, **options) as answer:
            return answer.status, await answer.json()

    async def attest(self, body: dict[str, Any]) -> tuple[int, Any]:
        return await self.call("POST", "/attest/SevSnpVm", params=MAA, json=body)

    async def token(self, psp: StubPsp, key: rsa.RSAPrivateKey, **more: object) -> str:
        status, answer = await self.attest(await submission(psp, runtime_of(key, **more)))
        assert status == 200, answer
        return str(answer["token"])

    async def put(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        return await self.call("PUT", f"/keys/{name}", params=AKV, json=body, headers=self.admin)

    async def import_for(self, name: str, host_data: bytes, **more: Any) -> None:
        policy = policy_for(self.about.issuer, host_data, **more)
        status, answer = await self.put(name, import_body(policy))
        assert status == 200, answer

    async def release(self, name: str, token: str, **more: object) -> tuple[int, Any]:
        body = {"target": token, **more}
        return await self.call("POST", f"/keys/{name}/release", params=AKV, json=body)


def settings(folder: Path, psp: StubPsp, **more: Any) -> Settings:
    rules = Rules(Expectation(), psp.demand().roots)
    return Settings(folder, "127.0.0.1", 0, rules, **({"rate": 1e5, "burst": 10**6} | more))


async def client_of(about: Running) -> Client:
    context = ssl.create_default_context(cadata=about.root.read_text())
    connector = aiohttp.TCPConnector(ssl=context)
    return Client(aiohttp.ClientSession(connector=connector), about)


@pytest.fixture(scope="session")
def group_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
async def broker(psp: StubPsp, tmp_path: Path) -> AsyncIterator[Client]:
    async with running(settings(tmp_path / "state", psp)) as about:
        client = await client_of(about)
        async with client.session:
            yield client
