"""Runtime data, evidence and their judgement: one text for one meaning, and nothing accepted that was changed."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from parma_api.snp.report import parse
from parma_api.status import (
    ApiError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from parma_tenant.claims.attester import Attester
from parma_tenant.claims.device import TsmSource, choose_source, context_certificates
from parma_tenant.claims.encoding import canonical_json, from_b64url, read_object, to_b64url
from parma_tenant.claims.evidence import (
    MAX_SIZE,
    Bundle,
    Demand,
    EvidenceError,
    RefusedError,
    decode_bundle,
    judge_bundle,
)
from parma_tenant.claims.runtime import ClaimsError, RuntimeClaims, parse_claims, report_data_of
from parma_tenant.claims.source import FixedCertificates, SocketSource, whole_report
from parma_tenant.verify.expectation import Expectation
from tests.unit.tenant.stub import StubPsp

NOW = datetime.datetime.now(datetime.UTC)
NONCE = bytes(range(32))
TLS = ec.derive_private_key(7, ec.SECP256R1()).public_key()
SEALING = x25519.X25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key()


@pytest.fixture(scope="module")
def wrapping() -> rsa.RSAPublicKey:
    return rsa.generate_private_key(65537, 2048).public_key()


def test_golden_runtime_data() -> None:
    text = RuntimeClaims(NONCE, tls=TLS, sealing=SEALING).encode()
    assert text == (
        b'{"keys":[{"crv":"P-256","kid":"tls","kty":"EC","use":"sig",'
        b'"x":"jlM7b6C_e0YluzBmfAH7YH75-LioD-9bMAYocDGHsqM",'
        b'"y":"c-sdveAzGDZtBp-DpvWQAFPHNjPLBBshxV4ahsH0ALQ"},'
        b'{"crv":"X25519","kid":"sealing","kty":"OKP","use":"enc",'
        b'"x":"E75P6uryBMf9M1j8nAByGIHRdCeBKCJ-xnTzf3_pe20"}],'
        b'"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}'
    )
    assert report_data_of(text) == hashlib.sha256(text).digest() + bytes(32)


def test_the_published_runtime_data_gives_the_published_report_data(repository: Path) -> None:
    folder = repository / "tests/vectors/snp/milan-v2"
    report = parse((folder / "report.bin").read_bytes())
    assert report_data_of((folder / "runtime-data.json").read_bytes()) == report.report_data


def test_claims_come_back(wrapping: rsa.RSAPublicKey) -> None:
    claims = RuntimeClaims(NONCE, TLS, SEALING, wrapping)
    assert parse_claims(claims.encode()) == claims
    assert parse_claims(RuntimeClaims(NONCE, wrapping=wrapping).encode()).tls is None


def changed(**members: object) -> bytes:
    document = json.loads(RuntimeClaims(NONCE, TLS, SEALING).encode())
    return canonical_json(document | members)


KEYS = json.loads(RuntimeClaims(NONCE, TLS, SEALING).encode())["keys"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"{" * 100_000,
        b'{"keys":' + b"[" * 5000,
        changed(nonce="AAEC"),
        changed(nonce=5),
        changed(more=1),
        changed(keys=[]),
        changed(keys={}),
        changed(keys=[KEYS[0], KEYS[0]]),
        changed(keys=[KEYS[1], KEYS[0]]),
        changed(keys=[KEYS[0] | {"kid": "other"}]),
        changed(keys=[KEYS[0] | {"kid": ["tls"]}]),
        changed(keys=[KEYS[0] | {"d": "AA"}]),
        changed(keys=[KEYS[0] | {"crv": "P-384"}]),
        changed(keys=[KEYS[0] | {"x": KEYS[0]["y"]}]),
        changed(keys=[KEYS[1] | {"x": "AAAA"}]),
        changed(keys=[{"kid": "wrapping", "kty": "RSA", "e": "AQAB", "n": "AQAB"}]),
        changed(keys=[{"kid": "wrapping", "kty": "RSA", "e": "Aw", "n": to_b64url(b"\xff" * 256)}]),
        RuntimeClaims(NONCE, TLS).encode() + b" ",
        RuntimeClaims(NONCE, TLS).encode().replace(b'"kid"', b'"kid":"tls","kid"'),
        RuntimeClaims(NONCE, TLS).encode().replace(b'":', b'": '),
        changed(nonce="A" * 20_000),
    ],
)
def test_what_is_no_runtime_data(text: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_claims(text)
    assert len(caught.value.message) < 200


@given(st.binary(max_size=200))
def test_b64url_is_one_to_one(data: bytes) -> None:
    text = to_b64url(data)
    assert from_b64url(text, "it") == from_b64url(text + "=" * (-len(text) % 4), "it") == data


@pytest.mark.parametrize("text", ["A", "AB", "AA==A", "A A", "AA=", "é", "AA\n", None, 5, "+/+/"])
def test_what_is_no_b64url(text: object) -> None:
    with pytest.raises(InvalidArgumentError):
        from_b64url(text, "it")


def test_the_parser_never_quotes_what_it_reads() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_object(b'{"k": canary-secret', "it", 100)
    assert "canary" not in caught.value.message
    assert caught.value.__cause__ is None


def test_claims_need_a_nonce_and_a_key() -> None:
    with pytest.raises(ClaimsError):
        RuntimeClaims(b"short", TLS)
    with pytest.raises(ClaimsError):
        RuntimeClaims(NONCE)
    with pytest.raises(ClaimsError):
        report_data_of(b"", b"short")


@pytest.fixture
async def bundle(psp: StubPsp) -> Bundle:
    return (await Attester(psp.source).session(NONCE)).bundle


async def test_evidence_is_accepted(psp: StubPsp, bundle: Bundle) -> None:
    again = decode_bundle(bundle.encode())
    assert again == bundle
    attested = judge_bundle(again, NONCE, psp.demand(), NOW)
    assert attested.claims.nonce == NONCE
    assert attested.verification.claims["stub"] is True


async def test_each_session_has_its_own_keys(psp: StubPsp) -> None:
    attester = Attester(psp.source)
    first, second = await attester.session(NONCE), await attester.session(NONCE)
    assert first.claims.tls != second.claims.tls
    assert first.claims.sealing != second.claims.sealing


async def test_another_nonce_is_a_replay(psp: StubPsp, bundle: Bundle) -> None:
    with pytest.raises(RefusedError, match="replay"):
        judge_bundle(bundle, os.urandom(32), psp.demand(), NOW)


async def test_the_nonce_changed_in_the_text_is_found(psp: StubPsp, bundle: Bundle) -> None:
    fresh = os.urandom(32)
    text = dataclasses.replace(parse_claims(bundle.runtime), nonce=fresh).encode()
    with pytest.raises(RefusedError, match=r"value\.report_data"):
        judge_bundle(dataclasses.replace(bundle, runtime=text), fresh, psp.demand(), NOW)


async def test_another_policy_image_or_root_is_refused(
    psp: StubPsp, other_psp: StubPsp, bundle: Bundle
) -> None:
    for demand, check in (
        (psp.demand(host_data=other_psp.host_data), "value.host_data"),
        (psp.demand(measurement=bytes(48)), "value.measurement"),
        (Demand(psp.demand().expectation), "chain.root"),
    ):
        with pytest.raises(RefusedError) as caught:
            judge_bundle(bundle, NONCE, demand, NOW)
        assert f"{check}: " in caught.value.message
        assert caught.value.verification is not None


def test_a_demand_that_any_group_meets_is_none(psp: StubPsp) -> None:
    good = psp.demand().expectation
    for weak in (
        Expectation(),
        dataclasses.replace(good, measurement=None),
        dataclasses.replace(good, host_data=None),
        dataclasses.replace(good, report_data=(bytes(64),)),
    ):
        with pytest.raises(InvalidArgumentError):
            Demand(weak)


async def test_a_bundle_cut_anywhere_or_longer_is_refused(bundle: Bundle) -> None:
    data = bundle.encode()
    assert len(data) < MAX_SIZE
    for wrong in (*(data[:n] for n in range(0, len(data), 7)), data + b"\0", b"X" + data[1:]):
        with pytest.raises(EvidenceError):
            decode_bundle(wrong)
    with pytest.raises(EvidenceError):
        Bundle(b"", b"c" * 40_000, b"").encode()


@given(st.binary(max_size=300))
def test_any_bytes_are_evidence_or_refused(data: bytes) -> None:
    with contextlib.suppress(EvidenceError):
        decode_bundle(b"PARMA-EV\0\0\0\1" + data).encode()


async def test_a_changed_byte_anywhere_is_refused(psp: StubPsp, bundle: Bundle) -> None:
    for part in ("report", "certificates", "runtime"):
        good = getattr(bundle, part)
        for at in range(0, len(good), max(1, len(good) // 12)):
            wrong = bytearray(good)
            wrong[at] ^= 1
            with pytest.raises(RefusedError):
                judge_bundle(
                    dataclasses.replace(bundle, **{part: bytes(wrong)}), NONCE, psp.demand(), NOW
                )


async def test_a_source_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="gives no report"):
        await SocketSource(str(tmp_path / "nothing")).report(bytes(64))


@pytest.mark.parametrize("data", [b"", bytes(1183), bytes(1185), bytes(1184)])
def test_a_report_over_other_data_is_not_passed_on(data: bytes) -> None:
    with pytest.raises(DataLossError):
        whole_report(data, b"\1" * 64)


async def test_certificates_of_the_context_directory(psp: StubPsp, tmp_path: Path) -> None:
    folder = tmp_path / "security-context-01"
    folder.mkdir()
    (folder / "host-amd-cert-base64").write_bytes(base64.b64encode(psp.certificates))
    found = context_certificates({}, tmp_path)
    assert found == psp.certificates
    assert context_certificates({"UVM_SECURITY_CONTEXT_DIR": "/none"}, tmp_path) == b""
    assert await FixedCertificates(psp.source, found).certificates() == found
    (folder / "host-amd-cert-base64").write_bytes(b"!")
    with pytest.raises(DataLossError):
        context_certificates({}, tmp_path)


async def test_the_choice_of_a_source(psp: StubPsp, tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="privileged"):
        choose_source({}, tmp_path)
    chosen = choose_source({"PARMA_REPORT_SOCKET": psp.path}, tmp_path)
    assert len(await chosen.report(bytes(64))) == 1184
    device = tmp_path / "dev/sev-guest"
    device.parent.mkdir()
    device.write_bytes(b"")
    with pytest.raises(UnavailableError, match="sev-guest gives no report"):
        await choose_source({}, tmp_path).report(bytes(64))


async def test_tsm_without_a_provider(tmp_path: Path) -> None:
    missing = TsmSource(str(tmp_path / "tsm"))
    assert not missing.available()
    with pytest.raises(ApiError):
        await missing.report(bytes(64))
