"""What the key-release sidecar never gives: to other groups, from false brokers, to nonsense."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import (
    PermissionDeniedError,
    UnavailableError,
)
from parma_tenant.broker.run import running
from parma_tenant.claims.encoding import to_b64url
from parma_tenant.release.material import KeyKind
from parma_tenant.sidecar.skr.client import ask, release_key
from tests.unit.tenant.broker.conftest import Client, settings
from tests.unit.tenant.broker.kit import CANARY, encodings_of, import_body, policy_for
from tests.unit.tenant.sidecar.conftest import Container, endpoints, sidecar
from tests.unit.tenant.stub import StubPsp

RUNTIME = base64.b64encode(b'{"keys":[]}').decode()


async def test_another_policy_gets_no_key(
    broker: Client, psp: StubPsp, other_psp: StubPsp, tmp_path: Path
) -> None:
    await broker.import_for("model", psp.host_data)
    async with sidecar(other_psp, broker.about.root.read_bytes(), tmp_path) as skr:
        status, answer = await skr.post("/key/release", **endpoints(broker, "model"))
        assert status == 403
        assert "release policy" in answer["error"]
        with pytest.raises(PermissionDeniedError, match="release policy"):
            await asyncio.to_thread(
                release_key, *endpoints(broker, "model").values(), port=skr.port
            )


async def test_a_key_that_is_not_there(skr: Container, broker: Client) -> None:
    status, answer = await skr.post("/key/release", **endpoints(broker, "nothing"))
    assert (status, "404" in answer["error"]) == (403, True)


async def test_rsa_and_ec_keys_come_whole(
    skr: Container, broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from parma_tenant.release.material import KeyMaterial, from_jwk

    form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for kind, key in (
        (KeyKind.RSA, group_key),
        (KeyKind.EC, ec.generate_private_key(ec.SECP384R1())),
    ):
        jwk = KeyMaterial(kind, key.private_bytes(*form)).to_jwk("k", ["decrypt"])
        policy = policy_for(broker.about.issuer, psp.host_data)
        assert (await broker.put("k", import_body(policy, jwk)))[0] == 200
        status, answer = await skr.post("/key/release", **endpoints(broker, "k"))
        assert status == 200
        assert from_jwk(json.loads(answer["key"])) == from_jwk(jwk)


async def test_a_version(skr: Container, broker: Client, psp: StubPsp) -> None:
    policy = policy_for(broker.about.issuer, psp.host_data)
    kids = []
    for secret in (b"1" * 32, b"2" * 32):
        jwk = {"kty": "oct", "k": to_b64url(secret)}
        _, answer = await broker.put("k", import_body(policy, jwk))
        kids.append(str(answer["key"]["kid"]).rpartition("/keys/")[2])
    for kid, secret in ((kids[0], b"1" * 32), (kids[1], b"2" * 32), ("k", b"2" * 32)):
        _, answer = await skr.post("/key/release", **endpoints(broker, kid))
        assert json.loads(answer["key"])["k"] == to_b64url(secret)


async def test_a_broker_under_another_root_is_not_asked(
    broker: Client, psp: StubPsp, tmp_path: Path
) -> None:
    await broker.import_for("model", psp.host_data)
    async with (
        running(settings(tmp_path / "other", psp)) as other,
        sidecar(psp, other.root.read_bytes(), tmp_path) as skr,
    ):
        status, answer = await skr.post("/key/release", **endpoints(broker, "model"))
    assert (status, "trusted root" in answer["error"]) == (503, True)


async def test_services_that_are_away(skr: Container, broker: Client) -> None:
    wanted = {"maa_endpoint": "127.0.0.1:1", "akv_endpoint": "127.0.0.1:1", "kid": "k"}
    status, answer = await skr.post("/key/release", **wanted)
    assert (status, "no connection" in answer["error"]) == (503, True)
    with pytest.raises(UnavailableError):
        await asyncio.to_thread(release_key, *wanted.values(), port=skr.port)
    with pytest.raises(UnavailableError, match="does not answer"):
        await asyncio.to_thread(ask, "/status", None, port=1)


BAD: list[tuple[str, Any]] = [
    ("/attest/raw", {}),
    ("/attest/raw", {"runtime_data": 5}),
    ("/attest/raw", {"runtime_data": "!"}),
    ("/attest/raw", {"runtime_data": ""}),
    ("/attest/raw", {"runtime_data": RUNTIME, "more": 1}),
    ("/attest/raw", {"runtime_data": base64.b64encode(bytes(70_000)).decode()}),
    ("/attest/combined", {"runtime_data": "YQ"}),
    ("/attest/maa", {"runtime_data": RUNTIME}),
    ("/attest/maa", {"runtime_data": RUNTIME, "maa_endpoint": "http://x"}),
    ("/attest/maa", {"runtime_data": RUNTIME, "maa_endpoint": "x@y"}),
    ("/attest/maa", {"runtime_data": RUNTIME, "maa_endpoint": "x/y"}),
    ("/attest/maa", {"runtime_data": RUNTIME, "maa_endpoint": "x:99999"}),
    ("/attest/maa", {"runtime_data": base64.b64encode(b"no JSON").decode(), "maa_endpoint": "x"}),
    ("/key/release", {"maa_endpoint": "x", "akv_endpoint": "x"}),
    ("/key/release", {"maa_endpoint": "x", "akv_endpoint": "x", "kid": "../admin"}),
    ("/key/release", {"maa_endpoint": "x", "akv_endpoint": "x", "kid": "k/1"}),
    ("/key/release", {"maa_endpoint": "x", "akv_endpoint": "x\r\nHost: y", "kid": "k"}),
    (
        "/key/release",
        {"maa_endpoint": "x", "akv_endpoint": "x", "kid": "k", "access_token": "a\r\nX: y"},
    ),
    ("/key/release", b"{"),
    ("/key/release", b"[]"),
    ("/key/release", b"\xff"),
    ("/key/release", b'{"kid":"a","kid":"b"}'),
    ("/key/release", b"[" * 60_000),
    ("/key/release", b"x" * 200_000),
]


@pytest.mark.parametrize(("path", "body"), BAD, ids=range(len(BAD)))
async def test_bad_requests(
    skr: Container, path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"data": body} if isinstance(body, bytes) else {"json": body}
    status, answer = await skr.call("POST", path, **options)
    assert status == 400
    assert set(answer) == {"error"}
    assert len(answer["error"]) < 300
    assert "Traceback" not in caplog.text


async def test_paths_and_bytes_that_are_none(skr: Container) -> None:
    assert (await skr.call("GET", "/nothing"))[0] == 404
    assert (await skr.call("GET", "/key/release"))[0] == 405
    reader, writer = await asyncio.open_connection("127.0.0.1", skr.port)
    writer.write(b"\0" * 64)
    assert b"Traceback" not in await reader.read()
    writer.close()
    assert (await skr.call("GET", "/status"))[0] == 200


async def test_no_secret_is_logged(
    skr: Container, broker: Client, psp: StubPsp, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await broker.import_for("model", psp.host_data)
        wanted = endpoints(broker, "model") | {"access_token": "canary-access-token"}
        status, answer = await skr.post("/key/release", **wanted)
        await skr.post("/key/release", **wanted | {"kid": "other"})
    assert status == 200
    assert "released model" in caplog.text
    for encoded in encodings_of(CANARY):
        assert encoded not in caplog.text.encode()
    assert "canary-access-token" not in caplog.text
    assert json.loads(answer["key"])["k"] not in caplog.text
