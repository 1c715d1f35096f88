"""The broker over HTTP: tokens for evidence that holds, keys for tokens that satisfy, and everything else refused."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.snp.report import parse
from parma_api.status import (
    ApiError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from parma_tenant.broker.attestation import AttestationService, Rules
from parma_tenant.broker.authority import load_authority
from parma_tenant.broker.database import Sqlite, open_database
from parma_tenant.broker.freshness import SECONDS, Challenges
from parma_tenant.broker.limits import MAX_PEERS, RateLimit, peer_of
from parma_tenant.broker.run import running
from parma_tenant.broker.service import Broker
from parma_tenant.broker.vault import Master, Vault, load_secret
from parma_tenant.claims.encoding import canonical_json, from_b64url, to_b64url
from parma_tenant.claims.keys import rsa_jwk
from parma_tenant.release import jws
from parma_tenant.release.keywrap import Wrapping, unwrap
from parma_tenant.verify.expectation import Expectation
from tests.unit.tenant.broker.conftest import AKV, MAA, Client, client_of, settings
from tests.unit.tenant.broker.kit import (
    CANARY,
    encodings_of,
    import_body,
    policy_for,
    runtime_of,
    submission,
)
from tests.unit.tenant.stub import StubPsp


def payload_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(from_b64url(token.split(".")[1], "payload"))
    return found


def key_in(answer: dict[str, Any], key: rsa.RSAPrivateKey) -> bytes:
    """The released key, unwrapped."""
    shown = payload_of(answer["value"])["response"]["key"]["key"]
    hsm = json.loads(from_b64url(shown["key_hsm"], "key_hsm"))
    data = from_b64url(hsm["ciphertext"], "ciphertext")
    return unwrap(data, key, Wrapping(hsm["header"]["enc"]))


async def test_a_token_says_what_the_report_says(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    body = await submission(psp, runtime_of(group_key, note="x"), nonce=7)
    status, answer = await broker.attest(body)
    assert status == 200
    claims = payload_of(answer["token"])
    inner = json.loads(from_b64url(body["report"], "report"))
    report = parse(from_b64url(inner["SnpReport"], "SnpReport"))
    assert claims["iss"] == broker.about.issuer
    assert claims["x-ms-attestation-type"] == "sevsnpvm"
    assert claims["x-ms-sevsnpvm-hostdata"] == psp.host_data.hex() == report.host_data.hex()
    assert claims["x-ms-sevsnpvm-launchmeasurement"] == report.measurement.hex()
    assert claims["x-ms-sevsnpvm-reportdata"] == report.report_data.hex()
    assert claims["x-ms-sevsnpvm-is-debuggable"] is False
    assert claims["x-ms-sevsnpvm-vmpl"] == 0
    assert claims["x-ms-runtime"]["note"] == "x"
    assert claims["nonce"] == 7
    assert claims["x-parma-stub"] is True
    assert claims["x-parma-fresh"] is False
    assert "x-ms-compliance-status" not in claims
    assert 0 < claims["exp"] - claims["iat"] <= 600


async def test_tokens_are_checked_by_the_published_key(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    from parma_tenant.claims.keys import read_rsa

    token = await broker.token(psp, group_key)
    _, found = await broker.call("GET", "/certs")
    _, openid = await broker.call("GET", "/.well-known/openid-configuration")
    header = jws.read_header(token)
    (jwk,) = (one for one in found["keys"] if one["kid"] == header["kid"])
    assert jws.verify(token, read_rsa(jwk))["iss"] == openid["issuer"]
    assert header["jku"] == openid["jwks_uri"]


async def test_a_challenge_makes_claims_fresh(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    _, answer = await broker.call("POST", "/challenge")
    fresh = payload_of(await broker.token(psp, group_key, nonce=answer["nonce"]))
    stale = payload_of(await broker.token(psp, group_key, nonce=to_b64url(os.urandom(32))))
    assert (fresh["x-parma-fresh"], stale["x-parma-fresh"]) == (True, False)


async def test_the_transcripts_head_comes_along(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    status, answer = await broker.attest(
        await submission(psp, runtime_of(group_key), second_half=b"h" * 32)
    )
    assert status == 200
    assert payload_of(answer["token"])["x-parma-transcript-head"] == (b"h" * 32).hex()


async def test_init_data_is_the_policy(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    from tests.unit.tenant.stub import POLICY

    for data, status in ((POLICY, 200), (POLICY + b" ", 403)):
        init = {"data": to_b64url(data), "dataType": "Binary"}
        body = await submission(psp, runtime_of(group_key), initTimeData=init)
        assert (await broker.attest(body))[0] == status


async def test_a_key_is_released_to_the_right_group_only(
    broker: Client, psp: StubPsp, other_psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    await broker.import_for("model", psp.host_data)
    for enc in Wrapping:
        token = await broker.token(psp, group_key)
        status, answer = await broker.release("model", token, enc=str(enc), nonce="n")
        assert status == 200
        assert key_in(answer, group_key) == CANARY
        assert payload_of(answer["value"])["request"]["nonce"] == "n"
    status, answer = await broker.release("model", await broker.token(other_psp, group_key))
    assert status == 403
    assert "release policy" in answer["error"]["message"]


async def test_a_stub_gets_no_key_unless_the_policy_names_stubs(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    issuer, token = broker.about.issuer, await broker.token(psp, group_key)
    named = {"claim": "x-parma-stub", "equals": True}
    unrelated = {"claim": "x-parma-stub", "exists": False}
    hostdata = {"claim": "x-ms-sevsnpvm-hostdata", "equals": psp.host_data.hex()}
    for conditions, status in (
        ([hostdata], 403),
        ([hostdata, named], 200),
        ([hostdata, {"anyOf": [named, hostdata]}], 403),
        ([hostdata, unrelated], 403),
    ):
        authority = {"authority": issuer, "allOf": conditions}
        policy = json.dumps({"version": "1.0.0", "anyOf": [authority]}).encode()
        assert (await broker.put("stub", import_body(policy)))[0] == 200
        assert (await broker.release("stub", token))[0] == status


async def test_versions(broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey) -> None:
    policy = policy_for(broker.about.issuer, psp.host_data)
    kids = []
    for secret in (b"first" * 8, b"second" * 8):
        jwk = {"kty": "oct", "k": to_b64url(secret)}
        status, answer = await broker.put("k", import_body(policy, jwk))
        assert status == 200
        assert "k" not in answer["key"]
        kids.append(answer["key"]["kid"].removeprefix(broker.about.issuer + "/keys/"))
    token = await broker.token(psp, group_key)
    for name, secret in ((kids[0], b"first" * 8), (kids[1], b"second" * 8), ("k", b"second" * 8)):
        _, answer = await broker.release(name, token)
        assert key_in(answer, group_key) == secret
    assert (await broker.release(f"k/{'0' * 32}", token))[0] == 404
    status, shown = await broker.call("GET", "/keys/k", headers=broker.admin)
    assert status == 200
    assert json.loads(from_b64url(shown["release_policy"]["data"], "policy"))
    assert (await broker.call("DELETE", "/keys/k", headers=broker.admin))[0] == 200
    assert (await broker.release("k", token))[0] == 404
    assert (await broker.call("DELETE", "/keys/k", headers=broker.admin))[0] == 404


async def test_nobody_administers_without_the_credential(broker: Client, psp: StubPsp) -> None:
    body = import_body(policy_for(broker.about.issuer, psp.host_data))
    token = broker.about.admin.read_text().strip()
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {token}"},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}0"},
        {"Authorization": token},
    ):
        for method, path in (
            ("PUT", "/keys/k"),
            ("GET", "/keys/k"),
            ("GET", "/keys/k/v"),
            ("DELETE", "/keys/k"),
        ):
            status, answer = await broker.call(method, path, params=AKV, json=body, headers=headers)
            assert (status, answer["error"]["code"]) == (401, "UNAUTHENTICATED")
    for path in (broker.about.admin, broker.about.admin.parent / "master.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_token_of_another_broker_or_time_is_refused(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    await broker.import_for("k", psp.host_data)
    token = await broker.token(psp, group_key)
    head, payload, signature = token.split(".")
    claims = payload_of(token)
    forged = to_b64url(canonical_json(claims | {"x-parma-stub": False}))
    none = to_b64url(canonical_json({"alg": "none"}))
    async with running(settings(tmp_path / "other", psp, issuer=broker.about.issuer)) as other:
        foreign = await client_of(other)
        async with foreign.session:
            foreign_token = await foreign.token(psp, group_key)
    for wrong, status in (
        (foreign_token, 403),
        (f"{head}.{forged}.{signature}", 403),
        (f"{none}.{payload}.{signature}", 400),
        (f"{head}.{payload}", 400),
        ("", 400),
        (7, 400),
        (None, 400),
    ):
        assert (await broker.release("k", wrong))[0] == status  # type: ignore[arg-type]


async def test_a_keys_own_conditions(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    """Disabled, not yet, no longer; and nothing that is passed over."""
    good = import_body(policy_for(broker.about.issuer, psp.host_data))
    token = await broker.token(psp, group_key)
    year = int(time.time()) + 365 * 86400
    for attributes, status in (
        ({"exp": year, "nbf": 1}, 200),
        ({"enabled": False}, 403),
        ({"nbf": year}, 403),
        ({"exp": 1}, 403),
    ):
        body = good | {"attributes": {"exportable": True} | attributes}
        assert (await broker.put("k", body))[0] == 200
        assert (await broker.release("k", token))[0] == status
    for wrong in (
        {"attributes": {"exportable": True, "uses": 1}},
        {"attributes": {"exportable": True, "exp": "never"}},
        {"attributes": {"exportable": True, "exp": True}},
        {"attributes": {"exportable": True, "enabled": 1}},
        {"attributes": {}},
        {"attributes": None},
        {"expires": 1},
        {"release_policy": good["release_policy"] | {"until": 1}},
    ):
        assert (await broker.put("k", good | wrong))[0] == 400
    assert (await broker.release("k", token, unless="x"))[0] == 400


def test_a_token_ends(psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    """Before its time and after it; the broker's own clock decides."""
    now = [1_800_000_000.0]
    vault = Vault(open_database(tmp_path / "x.sqlite"), Master(b"m" * 32))
    authority = load_authority(vault, ("localhost",))
    challenges = Challenges(b"m" * 32, lambda: now[0])
    service = AttestationService(
        Rules(Expectation(), psp.demand().roots), challenges, lambda: now[0]
    )
    broker = Broker("https://b", authority, service, vault, lambda: now[0])
    body = import_body(policy_for("https://b", b"h" * 32, stub=False))
    broker.put_key("k", canonical_json(body))
    claims = {
        "iss": "https://b",
        "nbf": 1_800_000_000,
        "exp": 1_800_000_600,
        "x-parma-stub": False,
        "x-ms-sevsnpvm-hostdata": (b"h" * 32).hex(),
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-sevsnpvm-is-debuggable": False,
        "x-ms-runtime": json.loads(runtime_of(group_key)),
    }

    def release(**changes: object) -> dict[str, Any]:
        token = jws.sign({"kid": authority.kid}, claims | changes, authority.signer_key)
        return broker.release("k", None, canonical_json({"target": token}), "7.4")

    assert key_in(release(), group_key) == CANARY
    now[0] += 599
    assert key_in(release(), group_key) == CANARY
    for shift in (1, -601):
        now[0] += shift
        with pytest.raises(PermissionDeniedError, match="time is over"):
            release()
    now[0] = 1_800_000_000.0
    for changes in ({"exp": None}, {"nbf": "1"}, {"iss": "https://c"}, {"x-parma-stub": None}):
        with pytest.raises(PermissionDeniedError):
            release(**changes)


async def test_evidence_that_does_not_hold(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    runtime = runtime_of(group_key)
    good = await submission(psp, runtime)
    inner = json.loads(from_b64url(good["report"], "report"))
    report = bytearray(from_b64url(inner["SnpReport"], "report"))

    def with_inner(**more: object) -> dict[str, Any]:
        return good | {"report": to_b64url(canonical_json(inner | more))}

    flipped = bytes(report[:0x60] + bytes([report[0x60] ^ 1]) + report[0x61:])
    debug = bytes(report[:0x0A] + bytes([report[0x0A] | 8]) + report[0x0B:])
    other_runtime = {"data": to_b64url(runtime_of(group_key, x=1)), "dataType": "JSON"}
    for body, reason in (
        (with_inner(SnpReport=to_b64url(flipped)), "signature"),
        (with_inner(SnpReport=to_b64url(debug)), "policy.debug"),
        (with_inner(SnpReport=to_b64url(bytes(report[:-1]))), "report.length"),
        (with_inner(SnpReport=to_b64url(bytes(report) + b"\0")), "report.length"),
        (with_inner(VcekCertChain=to_b64url(b"x")), "chain.complete"),
        (good | {"runtimeData": other_runtime}, "value.report_data"),
    ):
        status, answer = await broker.attest(body)
        assert status == 403
        assert reason in answer["error"]["message"]


async def test_amds_roots_alone_refuse_the_stub(
    psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    from parma_tenant.verify.roots import AMD_ROOTS

    strict = dataclasses.replace(settings(tmp_path, psp), rules=Rules(Expectation(), AMD_ROOTS))
    async with running(strict) as about:
        client = await client_of(about)
        async with client.session:
            status, answer = await client.attest(await submission(psp, runtime_of(group_key)))
    assert status == 403
    assert "chain.root" in answer["error"]["message"]


async def test_the_operators_measurements_make_a_compliant_uvm(
    psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    for measurement, status in ((psp.demand().expectation.measurement, 200), ((bytes(48),), 403)):
        rules = Rules(Expectation(measurement=measurement), psp.demand().roots)
        async with running(dataclasses.replace(settings(tmp_path, psp), rules=rules)) as about:
            client = await client_of(about)
            async with client.session:
                found, answer = await client.attest(await submission(psp, runtime_of(group_key)))
        assert found == status
        if status == 200:
            claims = payload_of(answer["token"])
            assert claims["x-ms-compliance-status"] == "azure-compliant-uvm"


async def test_which_rsa_key_is_meant_is_never_a_guess(
    broker: Client, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    await broker.import_for("k", psp.host_data)
    jwk = rsa_jwk(group_key.public_key())
    weak = jwk | {"n": to_b64url(b"\xff" * 128)}
    for keys, status in (
        ([], 403),
        ([jwk, jwk | {"kid": "2"}], 403),
        ([weak], 400),
        ("x", 403),
        ([5, jwk], 200),
    ):
        runtime = canonical_json({"keys": keys})
        _, answer = await broker.attest(await submission(psp, runtime))
        assert (await broker.release("k", answer["token"]))[0] == status


GARBAGE: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{" * 50_000,
    b'{"report":5}',
    b'{"report":"!"}',
    b'{"report":"e30"}',
    b'{"report":"e30","report":"e30"}',
    b'{"target":{}}',
    b'{"target":"' + b"A." * 9000 + b'"}',
    b'{"key":{"kty":"oct","k":"Y2FuYXJ5LXNlY3JldA"}',
    b'{"key":{"kty":"oct","k":"Y2FuYXJ5LXNlY3JldC0wMTIz"},"attributes":{"exportable":true}}',
    b'{"key":[],"attributes":[]}',
    b"x" * 300_000,
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_refused_without_a_traceback(
    broker: Client, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for method, path, params in (
            ("POST", "/attest/SevSnpVm", MAA),
            ("POST", "/keys/k/release", AKV),
            ("PUT", "/keys/k", AKV),
        ):
            status, answer = await broker.call(
                method, path, params=params, data=body, headers=broker.admin
            )
            assert 400 <= status < 500, answer
            text = json.dumps(answer)
            assert len(text) < 700
            assert "Traceback" not in text
            assert "Y2FuYXJ5" not in text
    assert "Traceback" not in caplog.text
    assert "Y2FuYXJ5" not in caplog.text
    assert "canary" not in caplog.text


async def test_paths_that_are_none(broker: Client) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/keys/../master.key", 404),
        ("POST", "/attest/Tdx", 404),
        ("DELETE", "/certs", 405),
        ("PUT", "/keys/" + "a" * 200, 400),
        ("PUT", "/keys/a%2Fb", 400),
        ("PUT", "/keys/a'--", 400),
    ):
        found, answer = await broker.call(
            method, path, params=MAA, headers=broker.admin,
            json=import_body(policy_for(broker.about.issuer, b"x")),
        )  # fmt: skip
        assert found == status
        assert answer["error"]["message"]
    for params in ({}, {"api-version": "x"}, {"api-version": "7.4;drop"}):
        assert (await broker.call("POST", "/keys/k/release", params=params, json={}))[0] == 400


async def test_bytes_that_are_no_http(broker: Client, caplog: pytest.LogCaptureFixture) -> None:
    import asyncio
    import ssl

    context = ssl.create_default_context(cadata=broker.about.root.read_text())
    with caplog.at_level(logging.DEBUG):
        for data in (
            b"\0" * 100,
            b"GET / HTTP/9\r\n\r\n",
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", broker.about.port, ssl=context
            )
            writer.write(data)
            answer = await reader.read(65536)
            assert answer.startswith(b"HTTP/1")
            assert b"Traceback" not in answer
            writer.close()
            await writer.wait_closed()
    assert (await broker.call("GET", "/status"))[0] == 200


async def test_a_body_that_does_not_come(broker: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import ssl

    from parma_tenant.broker import server

    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    context = ssl.create_default_context(cadata=broker.about.root.read_text())
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.about.port, ssl=context)
    head = "POST /attest/SevSnpVm?api-version=7.4 HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\n{"
    writer.write(head.encode())
    assert (await reader.read(65536)).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_no_secret_is_logged_or_lies_open(
    broker: Client,
    psp: StubPsp,
    other_psp: StubPsp,
    group_key: rsa.RSAPrivateKey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        await broker.import_for("k", psp.host_data)
        await broker.put("k", import_body(b"{}"))
        status, answer = await broker.release("k", await broker.token(psp, group_key))
        assert key_in(answer, group_key) == CANARY
        await broker.release("k", await broker.token(other_psp, group_key))
    assert status == 200
    admin = broker.about.admin.read_text().strip()
    assert admin not in caplog.text
    files = list(broker.about.admin.parent.iterdir())
    assert any(path.name == "broker.sqlite" for path in files)
    for encoded in encodings_of(CANARY):
        assert encoded not in caplog.text.encode()
        assert encoded not in json.dumps(answer).encode()
        for path in files:
            assert encoded not in path.read_bytes()
    assert sorted(path.name for path in files if path.name.startswith("tls.")) == []


async def test_a_peer_that_asks_too_often(psp: StubPsp, tmp_path: Path) -> None:
    async with running(settings(tmp_path, psp, rate=0.001, burst=3)) as about:
        client = await client_of(about)
        async with client.session:
            found = [(await client.call("GET", "/status"))[0] for _ in range(5)]
    assert found == [200, 200, 200, 429, 429]


def test_the_limit_refills_and_is_bounded() -> None:
    now = [0.0]
    limit = RateLimit(2.0, 2, lambda: now[0])
    for _ in range(2):
        limit.take("a")
    with pytest.raises(ResourceExhaustedError):
        limit.take("a")
    limit.take("b")
    now[0] = 0.5
    limit.take("a")
    for n in range(MAX_PEERS + 10):
        limit.take(f"peer {n}")
    assert len(limit._buckets) == MAX_PEERS


def test_who_counts_as_one_peer() -> None:
    assert peer_of("192.0.2.1") == peer_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:1%eth0") != peer_of("2001:db8:0:1::1")
    assert peer_of("") == ""


def test_challenges_end_and_are_the_brokers_own() -> None:
    now = [1000.0]
    ours, theirs = (Challenges(secret, lambda: now[0]) for secret in (b"1" * 32, b"2" * 32))
    nonce = ours.new()
    assert len(nonce) == 32
    assert ours.is_fresh(nonce)
    assert not theirs.is_fresh(nonce)
    assert not ours.is_fresh(nonce[:-1])
    for at in range(32):
        wrong = bytearray(nonce)
        wrong[at] ^= 1
        assert not ours.is_fresh(bytes(wrong))
    now[0] += SECONDS + 1
    assert not ours.is_fresh(nonce)


async def test_a_changed_database_releases_nothing(
    psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """Who writes the database cannot put a key under an easier policy, nor another name."""
    state = tmp_path / "state"
    async with running(settings(state, psp)) as about:
        client = await client_of(about)
        async with client.session:
            await client.import_for("good", b"x" * 32)
            token = await client.token(psp, group_key)
            assert (await client.release("good", token))[0] == 403
            database = Sqlite(state / "broker.sqlite")
            ((about_text, sealed),) = database.read("SELECT about, sealed FROM parma_keys")
            easy = json.loads(about_text)
            easy["policy"] = policy_for(client.about.issuer, psp.host_data).decode()
            for name, text in (
                ("easy", canonical_json(easy | {"name": "easy"}).decode()),
                ("moved", about_text),
            ):
                database.write(
                    "INSERT INTO parma_keys (name, version, about, sealed) VALUES (?, ?, ?, ?)",
                    (name, "0" * 32, text, sealed),
                )
            database.close()
            for name in ("easy", "moved"):
                status, answer = await client.release(name, token)
                assert status == 500
                assert "value" not in answer


def test_files_that_others_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (secret,) = set(pool.map(load_secret, [path] * 8))
    assert load_secret(path) == secret
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]
    path.chmod(0o644)
    with pytest.raises(FailedPreconditionError, match="read by others"):
        load_secret(path)
    path.chmod(0o600)
    path.write_text("canary")
    with pytest.raises(FailedPreconditionError) as caught:
        load_secret(path)
    assert "canary" not in caught.value.message
    with pytest.raises(FailedPreconditionError):
        load_secret(tmp_path / "no/folder")


async def test_another_master_key_is_noticed_at_the_start(psp: StubPsp, tmp_path: Path) -> None:
    async with running(settings(tmp_path, psp)):
        pass
    (tmp_path / "master.key").write_text("ab" * 32)
    with pytest.raises(DataLossError, match="master key"):
        async with running(settings(tmp_path, psp)):
            pytest.fail("started")


async def test_settings_that_cannot_be_meant(psp: StubPsp, tmp_path: Path) -> None:
    good = settings(tmp_path / "state", psp)
    (tmp_path / "file").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/broker.sqlite").write_text(
        "this is no database, and it is long enough to be read" * 9
    )
    for wrong in (
        dataclasses.replace(good, host="0.0.0.0", use_tls=False),
        dataclasses.replace(good, database="mysql://x"),
        dataclasses.replace(good, issuer="broker.example"),
        dataclasses.replace(good, state=tmp_path / "file/x"),
        dataclasses.replace(good, state=tmp_path / "bad"),
        dataclasses.replace(good, host="192.0.2.1"),
    ):
        with pytest.raises(ApiError) as caught:
            async with running(wrong):
                pytest.fail("started")
        assert "\n" not in caught.value.message


async def test_without_tls_on_loopback(psp: StubPsp, tmp_path: Path) -> None:
    async with (
        running(settings(tmp_path, psp, use_tls=False)) as about,
        aiohttp.ClientSession() as session,
        session.get(f"{about.issuer}/status") as answer,
    ):
        assert about.issuer.startswith("http://127.0.0.1:")
        assert await answer.json() == {"message": "Status OK"}


def test_sqlite_keeps_what_was_put(tmp_path: Path) -> None:
    database = open_database(tmp_path / "x.sqlite")
    vault = Vault(database, Master(b"m" * 32))
    assert not vault.has_signer()
    assert vault.signer(b"one") == b"one"
    assert vault.signer(b"two") == b"one"
    database.close()
    assert stat.S_IMODE((tmp_path / "x.sqlite").stat().st_mode) == 0o600
    with pytest.raises(InvalidArgumentError):
        open_database("redis://x")
