"""Every report of the vectors gets the verdict that their README states."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from parma_tenant.verify.checks import NAMES, Verification
from parma_tenant.verify.expectation import Expectation, expectation_of
from parma_tenant.verify.judge import Evidence, verify
from tests.unit.tenant.verify.conftest import SETS, VECTORS

CHAINS = {
    "milan-v2": ("chain.pem",),
    "milan-v3": ("vcek.pem", "ask.pem", "ark.pem"),
    "genoa-v3": ("vcek.pem", "ask.pem", "ark.pem"),
    "turin-v5": ("vcek.pem", "ask.pem", "ark.pem"),
}
A, R = "accept", "refuse"


def evidence(name: str, *files: str) -> Evidence:
    """The report of a set with the named certificates, or with its own."""
    paths = [VECTORS / file for file in files] or [VECTORS / name / f for f in CHAINS[name]]
    return Evidence(
        (VECTORS / name / "report.bin").read_bytes(), tuple(path.read_bytes() for path in paths)
    )


def why(verification: Verification) -> set[str]:
    return {check.name for check in verification.failures}


def sha256(file: str) -> str:
    return hashlib.sha256((VECTORS / file).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", SETS)
def test_accepted_without_further_demands(
    name: str, times: dict[str, datetime.datetime], facts: dict[str, Any]
) -> None:
    verification = verify(evidence(name), times[name])
    assert verification.failures == ()
    assert verification.verdict == A
    assert [check.name for check in verification.checks] == list(NAMES)
    assert all(check.reason for check in verification.checks if check.result != "pass")
    claims, known = verification.claims, facts[name]["report"]
    assert claims["product_line"] == facts[name]["product_line"]
    assert claims["stub"] is False
    for field in known.keys() & claims.keys() - {"current_version", "committed_version"}:
        assert claims[field] == known[field], field


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("milan-v2", ("milan-v2/thim.json",)),
        ("milan-v2", ("milan-v2/cert-table.bin",)),
        ("milan-v3", ("milan-v3/cert-table.bin",)),
        ("milan-v3", ("milan-v3/ark.pem", "milan-v3/vcek.pem", "milan-v3/ask.pem")),
        ("milan-v3", ("milan-v3/vcek-2025-12.pem", "milan-v3/ask.pem", "milan-v3/ark.pem")),
        ("milan-v3", ("milan-v3/vcek.pem", "milan-v3/cert-table.bin")),
        ("genoa-v3", ("genoa-v3/cert-table.bin",)),
        ("turin-v5", ("turin-v5/cert-table.bin",)),
    ],
)
def test_the_same_chain_in_other_forms(
    name: str, files: tuple[str, ...], times: dict[str, datetime.datetime]
) -> None:
    assert verify(evidence(name, *files), times[name]).failures == ()


DEMANDS: list[tuple[str, dict[str, object], str, tuple[str, str, str, str]]] = [
    ("SMT off", {"platform": {"smt": False}}, "platform.smt", (R, R, R, R)),
    ("TSME", {"platform": {"tsme": True}}, "platform.tsme", (R, R, A, R)),
    ("ECC", {"platform": {"ecc": True}}, "platform.ecc", (R, A, A, A)),
    ("aliases", {"platform": {"alias_check": True}}, "platform.alias_check", (R, A, A, A)),
    ("SMT policy", {"forbid_smt": True}, "policy.smt", (R, R, R, R)),
    ("one socket", {"require_single_socket": True}, "policy.single_socket", (R, R, R, R)),
    ("ABI 31", {"abi_min": "0.31"}, "policy.abi", (A, A, A, A)),
    ("ABI 32", {"abi_min": "0.32"}, "policy.abi", (R, R, R, R)),
    ("version 3", {"version_min": 3}, "report.version", (R, A, A, A)),
    ("author key", {"require_author_key": True}, "value.author_key", (R, R, R, R)),
    ("bits", {"mitigations": {"launch": 0x3F, "current": 63}}, "tcb.mitigations", (R, R, R, A)),
    ("bit 6", {"mitigations": {"launch": "0x40"}}, "tcb.mitigations", (R, R, R, R)),
    ("bit 6 now", {"mitigations": {"current": "0x40"}}, "tcb.mitigations", (R, R, R, R)),
    ("policy 1", {"host_data": sha256("milan-v2/policy.rego")}, "value.host_data", (A, R, R, R)),
    (
        "policy 2",
        {"host_data": sha256("security-context/policy.rego")},
        "value.host_data",
        (R, A, A, R),
    ),
    (
        "either policy",
        {"host_data": [sha256("milan-v2/policy.rego"), sha256("security-context/policy.rego")]},
        "value.host_data",
        (A, A, A, R),
    ),
    (
        "runtime data",
        {"report_data": sha256("milan-v2/runtime-data.json") + "00" * 32},
        "value.report_data",
        (A, R, R, R),
    ),
    (
        "endorsed measurement",
        {
            "measurement": "51068107cdc7ee3d89c7821b05bca6147eb77b2005ae7590"
            "50fc049b65a1b0beabc65a9d857acecf23225f5ec76849f5"
        },
        "value.measurement",
        (A, R, R, R),
    ),
    ("firmware", {"firmware_min": "1.55.0"}, "tcb.firmware", (R, A, A, A)),
    ("microcode", {"tcb_min": {"microcode": 0xDB}}, "tcb.minimum", (R, A, R, R)),
    (
        "microcode at launch",
        {"launch_tcb_min": {"microcode": 0xDB}},
        "tcb.launch_minimum",
        (R, A, R, R),
    ),
    ("fmc", {"tcb_min": {"fmc": 1}}, "tcb.minimum", (R, R, R, A)),
    ("no CRL", {"require_crl": True}, "chain.crl", (R, R, R, R)),
    ("VMPL 1", {"vmpl": 1}, "value.vmpl", (R, R, R, R)),
    ("svn 2", {"guest_svn_min": 2}, "value.guest_svn", (A, A, A, A)),
    ("svn 3", {"guest_svn_min": 3}, "value.guest_svn", (R, R, R, R)),
    ("family", {"family_id": "01" + "00" * 15}, "value.family_id", (A, A, A, A)),
    ("image", {"image_id": "01" + "00" * 15}, "value.image_id", (R, R, R, R)),
    ("chip", {"chip_id": "59790fb1c39f35c1"}, "binding.chip_id", (R, R, R, A)),
    ("author", {"author_key_digests": ["00" * 48]}, "value.author_key", (R, R, R, R)),
    ("no VLEK", {"allow_vlek": False}, "chain.signer", (A, A, A, A)),
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("demand", DEMANDS, ids=lambda demand: demand[0])
def test_demands(
    name: str,
    demand: tuple[str, dict[str, object], str, tuple[str, ...]],
    times: dict[str, datetime.datetime],
) -> None:
    _, document, concerned, verdicts = demand
    verdict = verdicts[SETS.index(name)]
    verification = verify(evidence(name), times[name], expectation_of(document))
    assert verification.verdict == verdict
    assert why(verification) == (set() if verdict == A else {concerned})
    assert verification.check(concerned).result == ("pass" if verdict == A else "fail")


def test_id_keys(times: dict[str, datetime.datetime], facts: dict[str, Any]) -> None:
    keys = {name: facts[name]["report"]["id_key_digest"] for name in SETS}
    for name, other in itertools.product(SETS, SETS):
        wanted = expectation_of({"id_key_digests": [keys[other]]})
        accepted = verify(evidence(name), times[name], wanted).verdict == A
        assert accepted is (keys[name] == keys[other])
    assert keys["milan-v3"] == keys["genoa-v3"] != keys["milan-v2"]


@pytest.mark.parametrize(
    ("name", "leaf", "when"),
    [
        ("milan-v2", "", "2022-11-29T01:55:55Z"),
        ("milan-v2", "", "2029-11-29T01:55:57Z"),
        ("milan-v3", "", "2026-02-05T01:04:32Z"),
        ("milan-v3", "vcek-2025-12.pem", "2033-01-01T00:00:00Z"),
        ("genoa-v3", "", "2026-02-05T02:05:06Z"),
        ("turin-v5", "", "2033-02-06T00:00:00Z"),
    ],
)
def test_times_at_which_a_chain_does_not_hold(name: str, leaf: str, when: str) -> None:
    files = [f"{name}/{file}" for file in (leaf, "ask.pem", "ark.pem")] if leaf else []
    verification = verify(evidence(name, *files), datetime.datetime.fromisoformat(when))
    assert why(verification) == {"chain.validity"}


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("milan-v2", "2022-11-29T01:55:56Z"),
        ("milan-v2", "2029-11-29T01:55:56Z"),
        ("milan-v3", "2033-01-01T00:00:00Z"),
        ("milan-v2", "2029-11-29T03:55:56+02:00"),
    ],
)
def test_the_first_and_the_last_second_hold(name: str, when: str) -> None:
    assert verify(evidence(name), datetime.datetime.fromisoformat(when)).verdict == A


def test_a_time_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="zone"):
        verify(evidence("milan-v2"), datetime.datetime(2023, 6, 1))  # noqa: DTZ001


@pytest.mark.parametrize("part", ["vcek.pem", "ask.pem", "ark.pem"])
@pytest.mark.parametrize(("mine", "theirs"), list(itertools.permutations(SETS[1:], 2)))
def test_crossed_certificates_are_refused(
    mine: str, theirs: str, part: str, times: dict[str, datetime.datetime]
) -> None:
    files = [f"{theirs if file == part else mine}/{file}" for file in CHAINS["milan-v3"]]
    failures = why(verify(evidence(mine, *files), times[mine]))
    expected = {"vcek.pem": "signature", "ask.pem": "chain.signature", "ark.pem": "chain.signature"}
    assert expected[part] in failures


def test_the_two_milan_chains_share_their_authorities(times: dict[str, datetime.datetime]) -> None:
    table = evidence("milan-v2", "milan-v2/cert-table.bin")
    crossed = Evidence(
        (VECTORS / "milan-v3/report.bin").read_bytes(),
        tuple(
            (VECTORS / "milan-v3" / file).read_bytes()
            for file in ("vcek.pem", "ask.pem", "ark.pem")
        ),
    )
    assert verify(crossed, times["milan-v3"]).verdict == A
    with_other_leaf = Evidence(crossed.report, table.certificates)
    assert "signature" in why(verify(with_other_leaf, times["milan-v3"]))


def test_the_chain_of_the_security_context_has_no_report_here(
    times: dict[str, datetime.datetime],
) -> None:
    thim = base64.b64decode((VECTORS / "security-context/host-amd-cert-base64").read_bytes())
    assert json.loads(thim)["tcbm"] == "7308000000000003"
    own = evidence("milan-v2")
    failures = why(verify(Evidence(own.report, (thim,)), times["milan-v2"]))
    assert failures == {"signature", "binding.chip_id"}


def accepted_with_a_flip(name: str, at: datetime.datetime, offsets: range) -> list[int]:
    """Offsets at which a changed byte goes unseen."""
    own, bit = evidence(name), 1 << SETS.index(name)
    found = []
    for offset in offsets:
        changed = bytearray(own.report)
        changed[offset] ^= bit
        if verify(Evidence(bytes(changed), own.certificates), at).verdict == A:
            found.append(offset)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_each_byte_flipped_in_turn_is_refused(
    name: str, times: dict[str, datetime.datetime]
) -> None:
    assert accepted_with_a_flip(name, times[name], range(1184)) == []


@pytest.mark.parametrize("name", SETS)
def test_a_flipped_byte_is_refused(name: str, times: dict[str, datetime.datetime]) -> None:
    assert accepted_with_a_flip(name, times[name], range(SETS.index(name), 1184, 19)) == []


@pytest.mark.parametrize("name", SETS)
def test_missing_and_further_bytes_are_refused(
    name: str, times: dict[str, datetime.datetime]
) -> None:
    own = evidence(name)
    for data in (b"", own.report[:-1], own.report[1:], own.report + b"\0", own.report * 2):
        verification = verify(Evidence(data, own.certificates), times[name])
        assert why(verification) == {"report.length"}
        assert verification.verdict == R
    for length in range(0, len(own.report), 7):
        assert verify(Evidence(own.report[:length], own.certificates), times[name]).verdict == R


def test_the_other_signature_of_the_same_report_is_accepted(
    times: dict[str, datetime.datetime],
) -> None:
    """(r, n-s) is as valid as (r, s): a report's bytes are no identity."""
    from parma_tenant.verify.binding import P384_ORDER

    own = evidence("genoa-v3")
    s = int.from_bytes(own.report[0x2E8:0x330], "little")
    other = own.report[:0x2E8] + (P384_ORDER - s).to_bytes(72, "little") + own.report[0x330:]
    assert other != own.report
    assert verify(Evidence(other, own.certificates), times["genoa-v3"]).verdict == A


@pytest.mark.parametrize("value", [0, "order"])
@pytest.mark.parametrize("at", [0x2A0, 0x2E8])
def test_r_and_s_out_of_range(
    at: int, value: int | str, times: dict[str, datetime.datetime]
) -> None:
    from parma_tenant.verify.binding import P384_ORDER

    own = evidence("genoa-v3")
    number = P384_ORDER if value == "order" else 0
    changed = own.report[:at] + number.to_bytes(72, "little") + own.report[at + 72 :]
    verification = verify(Evidence(changed, own.certificates), times["genoa-v3"])
    assert why(verification) == {"signature"}
    assert "between 1" in verification.check("signature").reason


def test_nothing_was_expected_of_the_default() -> None:
    assert Expectation() == expectation_of({})


def test_vectors_are_the_ones_that_were_given(facts: dict[str, Any], vectors: Path) -> None:
    for name in SETS:
        data = (vectors / name / "report.bin").read_bytes()
        assert hashlib.sha256(data).hexdigest() == facts[name]["report_sha256"]
