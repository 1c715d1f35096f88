"""A broker with a certificate service: it finds what groups do not send, demands lists, and never trusts more."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import InvalidArgumentError
from parma_tenant.broker.attestation import Rules
from parma_tenant.broker.run import running
from parma_tenant.claims.encoding import canonical_json, from_b64url, to_b64url
from parma_tenant.verify.expectation import Expectation
from tests.unit.tenant.broker.conftest import Client, client_of, settings
from tests.unit.tenant.broker.kit import runtime_of, submission
from tests.unit.tenant.services.conftest import Service, old_psp, service
from tests.unit.tenant.stub import StubPsp

__all__ = ["old_psp", "service"]
ASK_SERIAL = 65537


@contextlib.asynccontextmanager
async def broker_with(service: Service, psp: StubPsp, folder: Path) -> AsyncIterator[Client]:
    async with running(settings(folder, psp, certificate_service=service.url)) as about:
        client = await client_of(about)
        async with client.session:
            yield client


def with_chain(body: dict[str, Any], chain: bytes) -> dict[str, Any]:
    inner = json.loads(from_b64url(body["report"], "report"))
    inner["VcekCertChain"] = to_b64url(chain)
    return body | {"report": to_b64url(canonical_json(inner))}


async def test_certificates_that_the_group_does_not_have(
    service: Service, psp: StubPsp, old_psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """None, those of before a firmware update, and garbage."""
    body = await submission(psp, runtime_of(group_key))
    document = json.loads(old_psp.certificates)
    stale = str(document["vcekCert"] + document["certificateChain"]).encode()
    async with broker_with(service, psp, tmp_path) as client:
        assert (await client.attest(with_chain(body, b"")))[0] == 200
        assert (await client.attest(with_chain(body, stale)))[0] == 200
        status, answer = await client.attest(with_chain(body, b"garbage"))
        assert (status, "chain.complete" in answer["error"]["message"]) == (403, True)
        assert (await client.attest(body))[0] == 200
    assert service.count("/cert_chain") == 2, "one for the leaf, one for the list: both are kept"


async def test_without_the_service_stale_certificates_are_refused(
    psp: StubPsp, old_psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    document = json.loads(old_psp.certificates)
    stale = str(document["vcekCert"] + document["certificateChain"]).encode()
    body = await submission(psp, runtime_of(group_key))
    async with running(settings(tmp_path, psp)) as about:
        client = await client_of(about)
        async with client.session:
            for chain, reason in ((stale, "binding.tcb"), (b"", "chain.complete")):
                status, answer = await client.attest(with_chain(body, chain))
                assert (status, reason in answer["error"]["message"]) == (403, True), answer


async def test_a_revoked_issuer(
    service: Service, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    service.revoked = (ASK_SERIAL,)
    async with broker_with(service, psp, tmp_path) as client:
        status, answer = await client.attest(await submission(psp, runtime_of(group_key)))
    assert (status, "chain.crl" in answer["error"]["message"]) == (403, True)


async def test_no_list_no_token(
    service: Service, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """The service away: also evidence that is whole waits. Once the list is there, the service may go."""
    body = await submission(psp, runtime_of(group_key))
    service.broken = lambda _path: web.Response(status=503)
    async with broker_with(service, psp, tmp_path / "a") as client:
        status, answer = await client.attest(body)
        assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
    service.broken = None
    async with broker_with(service, psp, tmp_path / "b") as client:
        assert (await client.attest(body))[0] == 200
        service.broken = lambda _path: web.Response(status=503)
        assert (await client.attest(body))[0] == 200


async def test_a_report_that_names_no_processor_is_refused(
    service: Service, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """Version 2, without certificates: there is no line to find certificates or a list for."""
    body = await submission(psp, runtime_of(group_key))
    inner = json.loads(from_b64url(body["report"], "report"))
    report = bytearray(from_b64url(inner["SnpReport"], "report"))
    report[0:4], report[0x188:0x18B] = (2).to_bytes(4, "little"), bytes(3)
    inner |= {"SnpReport": to_b64url(bytes(report)), "VcekCertChain": ""}
    async with broker_with(service, psp, tmp_path) as client:
        status, _ = await client.attest(body | {"report": to_b64url(canonical_json(inner))})
        assert status == 403
    assert service.asked == []


async def test_a_url_that_is_none(psp: StubPsp, tmp_path: Path) -> None:
    rules = Rules(Expectation(), psp.demand().roots)
    wrong = dataclasses.replace(
        settings(tmp_path, psp), rules=rules, certificate_service="ftp://kds"
    )
    with pytest.raises(InvalidArgumentError, match="certificate-service"):
        async with running(wrong):
            pytest.fail("started")


async def test_a_refusal_for_now_says_when_to_come_back(psp: StubPsp, tmp_path: Path) -> None:
    async with running(settings(tmp_path, psp, rate=0.001, burst=1)) as about:
        client = await client_of(about)
        async with client.session:
            url = f"{about.issuer}/status"
            await client.session.get(url)
            async with client.session.get(url) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
