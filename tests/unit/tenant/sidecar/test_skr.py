"""The key-release sidecar against the broker: what a container of the group gets, and what it never gets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

from parma_api.snp.report import parse
from parma_tenant.claims.encoding import canonical_json, to_b64url
from parma_tenant.sidecar.skr.client import ask, release_key
from tests.unit.tenant.broker.conftest import Client
from tests.unit.tenant.broker.kit import CANARY
from tests.unit.tenant.sidecar.conftest import Container, endpoints
from tests.unit.tenant.stub import StubPsp


async def test_status(skr: Container) -> None:
    assert await skr.call("GET", "/status") == (200, {"message": "Status OK"})
    assert await asyncio.to_thread(ask, "/status", None, port=skr.port) == {"message": "Status OK"}


async def test_a_key_is_released(skr: Container, broker: Client, psp: StubPsp) -> None:
    await broker.import_for("model", psp.host_data)
    status, answer = await skr.post("/key/release", **endpoints(broker, "model"))
    assert status == 200, answer
    jwk = json.loads(answer["key"])
    assert (jwk["kty"], jwk["k"]) == ("oct", to_b64url(CANARY))
    asked = endpoints(broker, "model")
    again = await asyncio.to_thread(release_key, *asked.values(), port=skr.port)
    assert again == jwk


async def test_raw_and_combined(skr: Container, psp: StubPsp) -> None:
    runtime = canonical_json({"keys": []})
    text = base64.b64encode(runtime).decode()
    status, raw = await skr.post("/attest/raw", runtime_data=text)
    assert status == 200
    bound = hashlib.sha256(runtime).digest() + bytes(32)
    assert parse(bytes.fromhex(raw["report"])).report_data == bound
    status, combined = await skr.post("/attest/combined", runtime_data=text)
    assert status == 200
    report = parse(base64.b64decode(combined["evidence"]))
    assert report.report_data == bound
    assert int(combined["endorsed_tcb"], 16) == int.from_bytes(report.reported_tcb, "little")
    chain = base64.b64decode(combined["endorsements"])
    assert chain.count(b"BEGIN CERTIFICATE") == 3
    assert combined["uvm_endorsements"] == ""
