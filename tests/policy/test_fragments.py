"""Signed envelopes end to end: fragment, trust list, receipt, reference information."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_api.policy.decision import PointRequest, PolicyDenied
from parma_api.policy.did_x509 import (
    ChainError,
    IssuerError,
    check_issuer,
    find_path,
    load_certificates,
)
from parma_api.policy.envelope import EnvelopeError, open_envelope
from parma_api.policy.fragment import Claims, load_module
from parma_api.policy.gate import DEVICES, Gate
from parma_api.policy.intake import REFERENCE_INFORMATION, TRUST_LIST, Intake
from parma_api.policy.points import Point
from tests.fixtures.signed import (
    FINGERPRINT,
    ISSUER,
    ROOT,
    SIGNER,
    SIGNER_KEY,
    certificate,
    envelope,
    sign,
)

SetPolicy = Callable[[bytes | str], Awaitable[None]]
Soon = Callable[..., float]


LEDGER_KEY = ec.generate_private_key(ec.SECP256R1())


def receipt(for_envelope: bytes, ledger: str = "ledger.example", key: Any = LEDGER_KEY) -> bytes:
    data = hashlib.sha256(for_envelope).digest()
    leaf = [b"\1" * 32, "evidence", data]
    node = hashlib.sha256(b"\1" * 32 + hashlib.sha256(b"evidence").digest() + data).digest()
    root = hashlib.sha256(b"\2" * 32 + node).digest()
    proof = cbor2.dumps({1: leaf, 2: [[True, b"\2" * 32]]})
    protected, signature = sign(key, {1: -7, 4: b"k1", 395: 2, 15: {1: ledger}}, root)
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {396: {-1: [proof]}}, None, signature]))


def trust_list() -> bytes:
    numbers = LEDGER_KEY.public_key().public_numbers()
    key = {1: 2, 2: b"k1", -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
    return cbor2.dumps({"ledger.example": {1: [key]}})


LAYER = "ab" * 32
FRAGMENT = f"""package sidecar
svn := 3
framework_version := "0.5.0"
containers := [{{"layers": ["{LAYER}"], "command": ["/s"], "working_dir": parameter("dir")}}]
""".encode()
LIBRARY = (
    b'package helpers\nsvn := 3\nframework_version := "0.5.0"\nwanted := "'
    + LAYER.encode()
    + b'"\n'
)


def policy(*, receipts: str = "[]", includes: str = '["containers"]', extra: str = "") -> str:
    return f"""package policy
api_version := "0.12.0"
framework_version := "0.5.0"
fragments := [{{"issuer": "{ISSUER}", "feed": "side", "minimum_svn": 2, "includes": {includes},
  "parameters": {{"dir": "/\\"x\\\\ \\u2028"}}, "required_receipts": {receipts}}}]
transparency_trust_lists := [
  {{"issuer": "{ISSUER}", "subject": "lists/main", "minimum_svn": 1, "allowed_ledgers": ["*"]}}]
mount_device := data.framework.mount_device
load_fragment := data.framework.load_fragment
load_transparency_trust_list := data.framework.load_transparency_trust_list
reason := data.framework.reason
{extra}
"""


def mount() -> PointRequest:
    document = {
        "target": "/run/mounts/scsi/m1",
        "deviceHash": LAYER,
        "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
    }
    return PointRequest(Point.MOUNT_DEVICE, document)


@pytest.fixture
def intake(gate: Gate) -> Intake:
    return Intake(gate)


async def refused(work: Awaitable[None]) -> tuple[str, ...]:
    with pytest.raises(PolicyDenied) as denied:
        await work
    return denied.value.reason_codes


async def test_fragment_brings_its_layers_and_its_values(
    gate: Gate, intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy())
    await intake.load(envelope(FRAGMENT, "side"), "", soon())
    async with gate.transaction(DEVICES, [mount()], soon()):
        pass
    parts: Any = gate.metadata().mapping("issuers")[ISSUER]
    assert parts["feeds"]["side"][0]["containers"][0]["working_dir"] == '/"x\\ \u2028'
    assert [m.name for m in gate.modules] == ["policy"]


async def test_refused_fragments_change_nothing(
    gate: Gate, intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy())
    before = gate.metadata()
    good = envelope(FRAGMENT, "side")
    assert await refused(intake.load(good[:-1] + b"\0", "", soon())) == ("fragment.envelope",)
    assert await refused(intake.load(good + b"\0", "", soon())) == ("fragment.envelope",)
    assert await refused(intake.load(good, "text/plain", soon())) == ("fragment.envelope",)
    assert await refused(intake.load(envelope(FRAGMENT, "other"), "", soon())) == ("fragment.feed",)
    assert await refused(intake.load(envelope(FRAGMENT, "side", 1), "", soon())) == (
        "fragment.svn_low",
    )
    broken = FRAGMENT + b"x := time.now_ns()\n"
    assert await refused(intake.load(envelope(broken, "side"), "", soon())) == ("fragment.invalid",)
    own = FRAGMENT + b"parameter(_) := 1\n"
    codes = await refused(intake.load(envelope(own, "side"), "", soon()))
    assert codes in (("fragment.invalid",), ("policy.evaluation",))
    assert gate.metadata() is before


async def test_nothing_is_compiled_before_the_issuer_is_accepted(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy())
    claims = Claims("did:x509:0:sha256:x::subject:CN:Else", "side", 3)
    assert await refused(load_module(gate, claims, b"package broken\n{{{", soon())) == (
        "fragment.issuer",
    )


async def test_namespace_stays_and_cannot_be_taken_twice(
    gate: Gate, intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    extra = 'get_properties := {"allowed": true} if data.helpers.wanted\n'
    await set_policy(policy(includes='["namespace"]', extra=extra))
    asked = PointRequest(Point.GET_PROPERTIES, {})
    assert await refused(gate.query(asked)) == ("policy.rule_missing",)  # type: ignore[arg-type]
    await intake.load(envelope(LIBRARY, "side"), "", soon())
    assert (await gate.query(asked)).point is Point.GET_PROPERTIES
    again = intake.load(envelope(LIBRARY, "side"), "", soon())
    assert await refused(again) == ("fragment.namespace_in_use",)


async def test_receipts_count_once_their_ledgers_key_is_trusted(
    intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy(receipts='["TTL:lists/main", "ledger.example", "*"]'))
    bare = envelope(FRAGMENT, "side")
    protected, _, payload, signature = cbor2.loads(bare).value
    proved = cbor2.dumps(cbor2.CBORTag(18, [protected, {394: [receipt(bare)]}, payload, signature]))
    forged = cbor2.dumps(
        cbor2.CBORTag(18, [protected, {394: [receipt(bare, key=SIGNER_KEY)]}, payload, signature])
    )
    assert await refused(intake.load(proved, "", soon())) == ("fragment.receipt_missing",)
    await intake.load(envelope(trust_list(), "lists/main"), TRUST_LIST, soon())
    assert await refused(intake.load(forged, "", soon())) == ("fragment.receipt_missing",)
    await intake.load(proved, "", soon())


async def test_trust_lists_need_a_version_and_a_rule(
    intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy())
    codes = await refused(
        intake.load(envelope(trust_list(), "lists/main", None), TRUST_LIST, soon())
    )
    assert codes == ("fragment.svn_type",)
    codes = await refused(intake.load(envelope(trust_list(), "lists/else"), TRUST_LIST, soon()))
    assert codes == ("ttl.no_match",)


async def test_reference_information_is_kept_for_containers(
    intake: Intake, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(policy())
    signed = envelope(b"reference", "r")
    await intake.load(signed, REFERENCE_INFORMATION[0], soon())
    assert intake.reference_information == {REFERENCE_INFORMATION[0]: signed}


@pytest.mark.filterwarnings(
    "ignore"
)  # cryptography warns of odd certificates, which is what these are
@given(st.integers(0, 5000), st.binary(max_size=6), st.integers(0, 6))
@settings(max_examples=400, deadline=None)
def test_altered_envelopes_are_refused_and_nothing_else(
    place: int, inserted: bytes, removed: int
) -> None:
    good = envelope(FRAGMENT, "side")
    place %= len(good)
    altered = good[:place] + inserted + good[place + removed :]
    if altered == good:
        return
    with pytest.raises(EnvelopeError):
        open_envelope(altered)


def chain(*links: tuple[str, str, bool, int]) -> list[bytes]:
    """Certificates of (name, issuer, authority, days), each with a key of its own, signed by its issuer's."""
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name, _, _, _ in links}
    return [
        certificate(name, keys[name], issuer, keys[issuer], authority=authority, days=days)
        for name, issuer, authority, days in links
    ]


LEAF, MIDDLE, TOP = (
    ("leaf", "middle", False, 100),
    ("middle", "top", True, 200),
    ("top", "top", True, 300),
)


@pytest.mark.parametrize(
    ("links", "length"),
    [
        ([LEAF, MIDDLE, TOP], 3),
        ([LEAF, ("other", "top", True, 200), MIDDLE, TOP], 3),
        ([LEAF, MIDDLE, ("top", "top", False, 300)], 3),
        ([LEAF, MIDDLE], 2),
        ([LEAF, ("middle", "top", False, 200), TOP], 0),
        ([LEAF, ("middle", "top", True, 50), TOP], 0),
        ([LEAF, MIDDLE, ("top", "top", True, 50)], 0),
        ([LEAF, TOP], 0),
    ],
)
def test_chains(links: list[tuple[str, str, bool, int]], length: int) -> None:
    named = {link[0] for link in links}
    missing = [(link[1], link[1], True, 300) for link in links if link[1] not in named]
    made = load_certificates(chain(*links, *missing)[: len(links)])
    if length:
        assert len(find_path(made)) == length
    else:
        with pytest.raises(ChainError):
            find_path(made)


def test_an_expired_signer_passes() -> None:
    made = load_certificates(chain(("leaf", "top", False, 1), TOP))
    assert len(find_path(made)) == 2


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ("::subject:CN:Signer", True),
        ("::subject:CN:Sign%65r", True),
        ("::subject:2.5.4.3:Signer", True),
        ("::subject:CN:Signer::subject:CN:Signer", True),
        ("", False),
        ("::", False),
        ("::subject:CN", False),
        ("::subject:CN:Signer:CN:Signer", False),
        ("::subject:O:Signer", False),
        ("::subject:XX:Signer", False),
        ("::subject:CN:Signer%2", False),
        ("::subject:CN:Signer::eku:1.2.3", False),
        ("::san:dns:signer.example", False),
        ("::fulcio-issuer:token.example", False),
        ("::nothing:x", False),
    ],
)
def test_conditions_of_an_issuer(conditions: str, holds: bool) -> None:
    path = load_certificates([SIGNER, ROOT])
    issuer = f"did:x509:0:sha256:{FINGERPRINT}{conditions}"
    if holds:
        check_issuer(issuer, path)
    else:
        with pytest.raises(IssuerError):
            check_issuer(issuer, path)


@pytest.mark.parametrize(
    "issuer", ["", "did:web:x::subject:CN:Signer", "did:x509:1:sha256:x::subject:CN:Signer"]
)
def test_other_issuers(issuer: str) -> None:
    with pytest.raises(IssuerError):
        check_issuer(issuer, load_certificates([SIGNER, ROOT]))
