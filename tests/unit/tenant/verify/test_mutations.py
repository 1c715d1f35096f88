"""Certificates, chains and signed reports made wrong in one place each: refused, by the check that is meant."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.snp.certificate_table import Slot, build_table
from parma_api.snp.report import FirmwareVersion, build
from parma_tenant.verify.checks import Verification
from parma_tenant.verify.expectation import Expectation, Mitigations
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import AMD_ROOTS, Roots, with_trusted
from tests.unit.tenant.verify import amd

DAY = datetime.timedelta(days=1)
DER = Encoding.DER
TURIN_CHIP = bytes(range(1, 9))
MILAN = amd.chain()
VLEK = amd.chain(vlek=True)
TURIN = amd.chain("Turin", amd.TURIN_TCB, TURIN_CHIP)
REPORT = amd.report()
VLEK_REPORT = amd.report(key_info=1 << 2)
TURIN_REPORT = amd.report(amd.TURIN_TCB, TURIN_CHIP)


def trusting(chain: amd.Chain) -> Roots:
    return with_trusted([chain.root.make()])


def judge(
    report: bytes,
    chain: amd.Chain,
    expectation: Expectation = Expectation(),  # noqa: B008 - frozen
    crls: tuple[bytes, ...] = (),
) -> Verification:
    return verify(Evidence(report, chain.ders(), crls), amd.NOW, expectation, trusting(chain))


def why(verification: Verification) -> set[str]:
    failures = {check.name for check in verification.failures}
    assert (verification.verdict == "refuse") is bool(failures)
    return failures


def leaf_but(suffix: str, value: bytes | None, chain: amd.Chain = MILAN) -> amd.Chain:
    """The chain with one extension of the leaf replaced, or left out."""
    extensions = {**chain.leaf.extensions}
    if value is None:
        del extensions[suffix]
    else:
        extensions[suffix] = value
    return replace(chain, leaf=chain.leaf.but(extensions=extensions))


@pytest.mark.parametrize(
    ("report", "chain"),
    [(REPORT, MILAN), (VLEK_REPORT, VLEK), (TURIN_REPORT, TURIN)],
    ids=["VCEK", "VLEK", "Turin"],
)
def test_the_chains_are_good_as_they_are(report: amd.Report, chain: amd.Chain) -> None:
    verification = judge(amd.sign(report), chain)
    assert why(verification) == set()
    assert verification.claims["stub"] is True
    assert "stub" in verification.check("chain.root").reason


def test_amd_s_names_under_another_key_are_not_trusted() -> None:
    evidence = Evidence(amd.sign(REPORT), MILAN.ders())
    verification = verify(evidence, amd.NOW, roots=AMD_ROOTS)
    assert why(verification) == {"chain.root"}
    assert "pinned" in verification.check("chain.root").reason


def test_a_trusted_root_must_be_one() -> None:
    from parma_tenant.verify.intake import IntakeError

    with pytest.raises(IntakeError, match="self-signed"):
        with_trusted([MILAN.issuer.make()])


GENOA_ISSUER = amd.Chain(
    MILAN.root, MILAN.issuer.but(subject="SEV-Genoa"), MILAN.leaf.but(issuer="SEV-Genoa")
)
WEAK = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=20)
CHAINS: list[tuple[str, amd.Chain, set[str]]] = [
    (
        "leaf signed by the root's key",
        replace(MILAN, leaf=MILAN.leaf.but(signer="root")),
        {"chain.signature"},
    ),
    (
        "issuer signed by itself",
        replace(MILAN, issuer=MILAN.issuer.but(signer="issuer")),
        {"chain.signature"},
    ),
    (
        "root signed by another key",
        replace(MILAN, root=MILAN.root.but(signer="issuer")),
        {"chain.root"},
    ),
    (
        "PKCS #1 padding",
        replace(MILAN, leaf=MILAN.leaf.but(scheme=padding.PKCS1v15())),
        {"chain.signature"},
    ),
    (
        "SHA-256",
        replace(
            MILAN,
            leaf=MILAN.leaf.but(
                digest=hashes.SHA256(), scheme=padding.PSS(padding.MGF1(hashes.SHA256()), 48)
            ),
        ),
        {"chain.signature"},
    ),
    ("short salt", replace(MILAN, leaf=MILAN.leaf.but(scheme=WEAK)), {"chain.signature"}),
    ("leaf of another issuer", replace(MILAN, leaf=MILAN.leaf.but(issuer="SEV-Genoa")), {"chain.names"}),
    ("issuer of another root", replace(MILAN, issuer=MILAN.issuer.but(issuer="ARK-Genoa")), {"chain.names"}),
    ("issuer no CA", replace(MILAN, issuer=MILAN.issuer.but(ca=False, path_length=None)), {"chain.names"}),
    (
        "issuer without constraints",
        replace(MILAN, issuer=MILAN.issuer.but(ca=None)),
        {"chain.names"},
    ),
    ("issuer with a longer path", replace(MILAN, issuer=MILAN.issuer.but(path_length=1)), {"chain.names"}),
    ("root no CA", replace(MILAN, root=MILAN.root.but(ca=False)), {"chain.names"}),
    (
        "issuer may not sign",
        replace(MILAN, issuer=MILAN.issuer.but(usage=frozenset({"crl_sign"}))),
        {"chain.names"},
    ),
    (
        "root may not sign",
        replace(MILAN, root=MILAN.root.but(usage=frozenset({"crl_sign"}))),
        {"chain.names"},
    ),
    ("leaf a CA", replace(MILAN, leaf=MILAN.leaf.but(ca=True)), {"chain.names"}),
    (
        "leaf for other use",
        replace(MILAN, leaf=MILAN.leaf.but(usage=frozenset({"key_agreement"}))),
        {"chain.names"},
    ),
    ("leaf named VCEK", replace(MILAN, leaf=MILAN.leaf.but(subject="VCEK")), {"chain.signer", "chain.names"}),
    ("leaf named VLEK", replace(MILAN, leaf=MILAN.leaf.but(subject="SEV-VLEK")), {"chain.signer"}),
    (
        "critical extension",
        replace(MILAN, leaf=MILAN.leaf.but(critical=True)),
        {"chain.names"},
    ),
    ("leaf over", replace(MILAN, leaf=MILAN.leaf.but(end=amd.NOW - DAY)), {"chain.validity"}),
    ("issuer over", replace(MILAN, issuer=MILAN.issuer.but(end=amd.NOW - DAY)), {"chain.validity"}),
    ("root over", replace(MILAN, root=MILAN.root.but(end=amd.NOW - DAY)), {"chain.validity"}),
    ("issuer not yet", replace(MILAN, issuer=MILAN.issuer.but(start=amd.NOW + DAY)), {"chain.validity"}),
    (
        "leaf on P-256",
        replace(MILAN, leaf=MILAN.leaf.but(curve=ec.SECP256R1)),
        {"chain.key", "signature"},
    ),
    ("leaf with RSA", replace(MILAN, leaf=MILAN.leaf.but(curve=None)), {"chain.key", "signature"}),
    (
        "VCEK from the ASVK",
        replace(
            MILAN,
            issuer=MILAN.issuer.but(subject="SEV-VLEK-Milan"),
            leaf=MILAN.leaf.but(issuer="SEV-VLEK-Milan"),
        ),
        {"chain.signer"},
    ),
    ("issuer of Genoa", GENOA_ISSUER, {"binding.product"}),
    ("leaf of Genoa", leaf_but("2", amd.text("Genoa")), {"binding.product"}),
    ("leaf of no product", leaf_but("2", amd.text("Rome")), {"binding.product"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CHAINS, ids=lambda case: case[0])
def test_chains(case: tuple[str, amd.Chain, set[str]]) -> None:
    _, chain, expected = case
    assert why(judge(amd.sign(REPORT), chain)) == expected


TCB = {"binding.tcb", "tcb.leaf", "tcb.provisional"}
"""What cannot be judged without the leaf's levels."""
BROKEN = TCB | {"binding.chip_id", "binding.product"}
LEAVES: list[tuple[str, amd.Chain, set[str]]] = [
    ("chip of another", leaf_but("4", bytes(64)), {"binding.chip_id"}),
    ("chip as octet string", leaf_but("4", b"\x04\x40" + amd.CHIP), set()),
    ("chip too short", leaf_but("4", amd.CHIP[:63]), BROKEN),
    ("chip too long", leaf_but("4", amd.CHIP + b"\0"), BROKEN),
    ("chip missing", leaf_but("4", None), {"binding.chip_id"}),
    ("chip and provider", leaf_but("5", amd.text("Cloud")), BROKEN),
    ("higher microcode", leaf_but("3.8", amd.integer(220)), {"binding.tcb", "tcb.leaf"}),
    ("lower microcode", leaf_but("3.8", amd.integer(218)), {"binding.tcb"}),
    ("microcode missing", leaf_but("3.8", None), BROKEN),
    ("microcode of 256 and more", leaf_but("3.8", b"\x02\x02\x01\xdb"), BROKEN),
    ("microcode negative", leaf_but("3.8", b"\x02\x01\xdb"), BROKEN),
    ("microcode not minimal", leaf_but("3.1", b"\x02\x02\x00\x04"), BROKEN),
    ("microcode with more behind", leaf_but("3.8", b"\x02\x02\x00\xdb\x00"), BROKEN),
    ("microcode no integer", leaf_but("3.8", b"\x04\x01\x04"), BROKEN),
    ("spare level not zero", leaf_but("3.6", amd.integer(1)), TCB),
    ("fmc on Milan", leaf_but("3.9", amd.integer(1)), BROKEN),
    ("structVersion of Turin", leaf_but("1", amd.integer(1)), BROKEN),
    ("structVersion unknown", leaf_but("1", amd.integer(2)), BROKEN),
    ("product no text", leaf_but("2", b"\x0c\x05Milan"), BROKEN),
]


@pytest.mark.parametrize("case", LEAVES, ids=lambda case: case[0])
def test_leaves(case: tuple[str, amd.Chain, set[str]]) -> None:
    _, chain, expected = case
    assert why(judge(amd.sign(REPORT), chain)) == expected


def test_a_doubled_extension_is_refused() -> None:
    """cryptography makes none, so the bytes are changed: the second level's OID becomes the first's."""
    leaf = MILAN.leaf.make().public_bytes(DER)
    first = bytes.fromhex("060a2b060104019c78010301")
    second = first[:-1] + b"\x02"
    assert leaf.count(second) == 1
    doubled = leaf.replace(second, first)
    evidence = Evidence(amd.sign(REPORT), (doubled, *MILAN.ders()[1:]))
    verification = verify(evidence, amd.NOW, roots=trusting(MILAN))
    assert why(verification) == BROKEN | {"chain.signature", "chain.names"}
    assert "twice" in verification.check("binding.chip_id").reason


def test_a_flipped_bit_anywhere_in_a_certificate_is_refused() -> None:
    report, roots = amd.sign(REPORT), trusting(MILAN)
    for number, der in enumerate(MILAN.ders()):
        for offset in range(0, len(der), 11):
            changed = list(MILAN.ders())
            changed[number] = der[:offset] + bytes((der[offset] ^ 4,)) + der[offset + 1 :]
            verification = verify(Evidence(report, tuple(changed)), amd.NOW, roots=roots)
            assert verification.verdict == "refuse", (number, offset)


SPARE, LOWER = bytes.fromhex("04000100000018db"), bytes.fromhex("04000000000017db")
REPORTS: list[tuple[str, amd.Report, set[str]]] = [
    ("version 4", replace(REPORT, version=4), set()),
    ("version 6", replace(REPORT, version=6), {"report.version"}),
    ("version 1", replace(REPORT, version=1), {"report.version", "report.reserved"}),
    ("CPUID in version 2", replace(REPORT, version=2), {"report.reserved"}),
    ("mitigations before version 5", replace(REPORT, launch_mitigations=1), {"report.reserved"}),
    ("mitigations in version 5", replace(REPORT, version=5, launch_mitigations=1), set()),
    ("another algorithm", replace(REPORT, signature_algorithm=2), {"report.algorithm"}),
    ("masked key", replace(REPORT, key_info=2), {"report.key_info"}),
    ("no key", replace(REPORT, key_info=7 << 2), {"report.key_info"}),
    ("a reserved key", replace(REPORT, key_info=2 << 2), {"report.key_info"}),
    ("reserved key bits", replace(REPORT, key_info=1 << 5), {"report.key_info"}),
    ("policy bit 17", replace(REPORT, policy=0x10000), {"report.policy_bits"}),
    ("policy bit 26", replace(REPORT, policy=0x30000 | 1 << 26), {"report.policy_bits"}),
    ("policy bit 63", replace(REPORT, policy=0x30000 | 1 << 63), {"report.policy_bits"}),
    ("VLEK with a VCEK", VLEK_REPORT, {"chain.signer", "binding.chip_id"}),
    ("debug", replace(REPORT, policy=0xB0000), {"policy.debug"}),
    ("migration", replace(REPORT, policy=0x70000), {"policy.migration"}),
    ("agent without permission", replace(REPORT, report_id_ma=bytes(32)), {"policy.migration"}),
    ("VMPL 2", replace(REPORT, vmpl=2), {"value.vmpl"}),
    ("asked for by the host", replace(REPORT, vmpl=0xFFFFFFFF), {"value.vmpl"}),
    ("platform bit 6", replace(REPORT, platform_info=0x65), set()),
    ("unknown processor", replace(REPORT, cpuid_model=0x30), TCB | {"binding.product"}),
    ("Genoa's processor", replace(REPORT, cpuid_model=0xAF), {"binding.product"}),
    ("Turin's processor", replace(REPORT, cpuid_family=0x1A), TCB | {"binding.product"}),
    ("masked chip", replace(REPORT, chip_id=bytes(64)), {"binding.chip_id"}),
    ("a spare byte of a TCB", replace(REPORT, current_tcb=SPARE), {"tcb.leaf", "tcb.provisional"}),
    ("current above committed", replace(REPORT, current_tcb=bytes.fromhex("04000000000019db")), {"tcb.provisional"}),
    ("current below reported", replace(REPORT, current_tcb=LOWER), {"tcb.leaf", "tcb.provisional"}),
    ("firmware not committed", replace(REPORT, current_firmware=FirmwareVersion(1, 55, 30)), {"tcb.provisional"}),
    ("another stepping", replace(REPORT, cpuid_stepping=2), set()),
    ("launched below", replace(REPORT, launch_tcb=bytes(8)), set()),
]  # fmt: skip


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case[0])
def test_reports(case: tuple[str, amd.Report, set[str]]) -> None:
    _, report, expected = case
    assert why(judge(amd.sign(report), MILAN)) == expected


@pytest.mark.parametrize(
    "offset", [0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x2D0, 0x2E7, 0x318, 0x32F, 0x330, 0x49F]
)  # fmt: skip
def test_reserved_bytes_also_where_nothing_is_signed(offset: int) -> None:
    data = bytearray(build(REPORT))
    if offset < 0x2A0:
        data[offset] = 1
    signed = bytearray(amd.sign(bytes(data)))
    signed[offset] = 1
    failures = why(judge(bytes(signed), MILAN))
    in_padding = 0x2A0 <= offset < 0x330
    assert failures == {"report.reserved"} | ({"signature"} if in_padding else set())


@pytest.mark.parametrize(
    ("report", "chain", "expectation"),
    [
        (replace(REPORT, policy=0xB0000), MILAN, Expectation(allow_debug=True)),
        (replace(REPORT, policy=0x70000), MILAN, Expectation(allow_migration=True)),
        (
            replace(REPORT, policy=0x70000, report_id_ma=bytes(32)),
            MILAN,
            Expectation(allow_migration=True),
        ),
        (replace(REPORT, chip_id=bytes(64)), MILAN, Expectation(allow_zero_chip_id=True)),
        (
            replace(VLEK_REPORT, chip_id=bytes(64)),
            VLEK,
            Expectation(allow_zero_chip_id=True),
        ),
        (
            replace(
                REPORT,
                current_tcb=bytes.fromhex("04000000000019dc"),
                current_firmware=FirmwareVersion(1, 56, 0),
            ),
            MILAN,
            Expectation(allow_provisional=True),
        ),
        (replace(REPORT, vmpl=2), MILAN, Expectation(vmpl=2)),
        (
            replace(REPORT, version=5, launch_mitigations=7, current_mitigations=15),
            MILAN,
            Expectation(mitigations=Mitigations(launch=5, current=8)),
        ),
        (
            replace(REPORT, key_info=1, author_key_digest=b"\x07" * 48),
            MILAN,
            Expectation(require_author_key=True, author_key_digests=(b"\x07" * 48,)),
        ),
        (REPORT, MILAN, Expectation(platform={"smt": True, "tsme": False, "rapl": False})),
        (TURIN_REPORT, TURIN, Expectation(tcb_min={"fmc": 1, "snp": 4})),
    ],
)
def test_what_the_expectations_allow(
    report: amd.Report, chain: amd.Chain, expectation: Expectation
) -> None:
    assert why(judge(amd.sign(report), chain, expectation)) == set()


@pytest.mark.parametrize(
    ("report", "expectation", "expected"),
    [
        (VLEK_REPORT, Expectation(allow_vlek=False), {"chain.signer"}),
        (replace(VLEK_REPORT, chip_id=bytes(64)), Expectation(), {"binding.chip_id"}),
        (VLEK_REPORT, Expectation(chip_id=(bytes(64),)), {"binding.chip_id"}),
    ],
)
def test_vlek(report: amd.Report, expectation: Expectation, expected: set[str]) -> None:
    assert why(judge(amd.sign(report), VLEK, expectation)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"committed_tcb": bytes.fromhex("04000000000019db")},
        {"committed_firmware": FirmwareVersion(1, 56, 0)},
        {"committed_tcb": bytes.fromhex("04000000000018dc")},
    ],
)
def test_committed_above_current_is_refused_with_provisional_firmware_too(
    changes: dict[str, object],
) -> None:
    report = replace(REPORT, **changes)  # type: ignore[arg-type]
    allowed = Expectation(allow_provisional=True)
    assert why(judge(amd.sign(report), MILAN, allowed)) == {"tcb.provisional"}


def test_an_old_committed_firmware_counts() -> None:
    """The host can go back to it at any time."""
    report = replace(REPORT, committed_firmware=FirmwareVersion(1, 52, 4))
    wanted = Expectation(allow_provisional=True, firmware_min=FirmwareVersion(1, 55, 0))
    assert why(judge(amd.sign(report), MILAN, wanted)) == {"tcb.firmware"}


def test_an_author_key_that_is_not_enabled_does_not_count() -> None:
    report = replace(REPORT, author_key_digest=b"\x07" * 48)
    wanted = Expectation(author_key_digests=(b"\x07" * 48,))
    assert why(judge(amd.sign(report), MILAN, wanted)) == {"value.author_key"}


def test_version_2_takes_the_product_from_the_certificate() -> None:
    blank = {"cpuid_family": 0, "cpuid_model": 0, "cpuid_stepping": 0, "version": 2}
    milan = replace(REPORT, **blank)  # type: ignore[arg-type]
    assert why(judge(amd.sign(milan), MILAN)) == set()
    turin = replace(TURIN_REPORT, **blank)  # type: ignore[arg-type]
    assert why(judge(amd.sign(turin), TURIN)) == set()
    short = replace(milan, chip_id=TURIN_CHIP.ljust(64, b"\0"))
    assert "binding.product" in why(judge(amd.sign(short), MILAN))


CRLS: list[tuple[str, tuple[bytes, ...], bool]] = [
    ("empty", (amd.crl().public_bytes(DER),), True),
    ("PEM", (amd.crl().public_bytes(Encoding.PEM),), True),
    ("another serial", (amd.crl((7,)).public_bytes(DER),), True),
    ("the leaf's serial: not the root's to revoke", (amd.crl((3,)).public_bytes(DER),), True),
    ("the issuer's serial", (amd.crl((2,)).public_bytes(DER),), False),
    ("the root's serial", (amd.crl((1,)).public_bytes(DER),), False),
    ("by the issuer", (amd.crl(signer="issuer").public_bytes(DER),), False),
    ("of another root", (amd.crl(issuer="ARK-Genoa").public_bytes(DER),), False),
    ("over", (amd.crl(end=amd.NOW - DAY).public_bytes(DER),), False),
    ("not yet", (amd.crl(start=amd.NOW + DAY).public_bytes(DER),), False),
    ("a part", (amd.crl(delta=True).public_bytes(DER),), False),
    ("one of two", (amd.crl().public_bytes(DER), amd.crl((2,)).public_bytes(DER)), False),
    ("trailing byte", (amd.crl().public_bytes(DER) + b"\0",), False),
    ("nothing", (b"",), False),
    ("a certificate", (MILAN.root.make().public_bytes(DER),), False),
]


@pytest.mark.parametrize("case", CRLS, ids=lambda case: case[0])
def test_revocation_lists(case: tuple[str, tuple[bytes, ...], bool]) -> None:
    _, crls, good = case
    for required in (False, True):
        wanted = Expectation(require_crl=required)
        verification = judge(amd.sign(REPORT), MILAN, wanted, crls)
        assert why(verification) == (set() if good else {"chain.crl"})
        assert verification.check("chain.crl").result == ("pass" if good else "fail")


def test_a_list_in_the_table_counts_when_the_verifier_has_none() -> None:
    leaf, issuer, root = MILAN.ders()
    slots = {Slot.VCEK: leaf, Slot.ASK: issuer, Slot.ARK: root}
    wanted = Expectation(require_crl=True)
    for serials, expected in (((), set()), ((2,), {"chain.crl"})):
        table = build_table({**slots, Slot.CRL: amd.crl(serials).public_bytes(DER)})
        evidence = Evidence(amd.sign(REPORT), (table,))
        assert why(verify(evidence, amd.NOW, wanted, trusting(MILAN))) == expected


def test_slots_of_the_table_must_agree_with_the_names() -> None:
    leaf, issuer, root = MILAN.ders()
    table = build_table({Slot.VLEK: leaf, Slot.ASK: issuer, Slot.ARK: root})
    evidence = Evidence(amd.sign(REPORT), (table,))
    assert why(verify(evidence, amd.NOW, roots=trusting(MILAN))) == {"chain.signer"}


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_an_incomplete_chain(left_out: int) -> None:
    ders = [der for n, der in enumerate(MILAN.ders()) if n != left_out]
    verification = verify(Evidence(amd.sign(REPORT), tuple(ders)), amd.NOW, roots=trusting(MILAN))
    assert "chain.complete" in why(verification)
    missing = ("VCEK", "ASK", "ARK")[left_out]
    assert f"no {missing}" in verification.check("chain.complete").reason


def test_two_for_one_place_are_refused_and_the_same_twice_is_not() -> None:
    twice = Evidence(amd.sign(REPORT), MILAN.ders() * 2)
    assert why(verify(twice, amd.NOW, roots=trusting(MILAN))) == set()
    other = MILAN.leaf.but(serial=9).make().public_bytes(DER)
    both = Evidence(amd.sign(REPORT), (*MILAN.ders(), other))
    verification = verify(both, amd.NOW, roots=trusting(MILAN))
    assert "2 different VCEK" in verification.check("chain.complete").reason


def test_both_kinds_of_chain_at_once_are_no_contradiction() -> None:
    together = (*MILAN.ders(), *VLEK.ders()[:2])
    for report in (REPORT, VLEK_REPORT):
        evidence = Evidence(amd.sign(report), together)
        assert why(verify(evidence, amd.NOW, roots=trusting(MILAN))) == set()


def test_authorities_of_other_lines_do_no_harm() -> None:
    others = (*TURIN.ders()[1:], *amd.chain("Genoa").ders()[1:])
    evidence = Evidence(amd.sign(REPORT), (*others, *MILAN.ders()))
    assert why(verify(evidence, amd.NOW, roots=trusting(MILAN))) == set()


def test_openssl_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its complaint alone refuses, under the name of what it is about."""
    from parma_tenant.verify import chain

    monkeypatch.setattr(chain, "second_opinion", lambda *_: {"chain.names": "path length"})
    verification = judge(amd.sign(REPORT), MILAN)
    assert why(verification) == {"chain.names"}
    assert verification.check("chain.names").reason == "OpenSSL: path length"
