"""Every kind of processor that the stub plays, under the verifier; ID blocks; derived keys; failures; launch values."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.snp import id_block, psp_wire, report
from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.snp.psp_wire import DerivedKeyRequest, MixedField, Status
from parma_api.snp.tcb import Tcb
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_shim.psp import serve
from parma_shim.psp.chain import Authority, load_or_create, revocation_list
from parma_shim.psp.id_auth import LaunchRefusedError
from parma_shim.psp.launch import DEFAULT_TCB, TURIN_TCB, Failure, LaunchValues, read_launch
from parma_shim.psp.psp import Processor
from parma_tenant.verify.expectation import expectation_of
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import with_trusted

LAUNCH = LaunchValues(measurement=b"m" * 48, host_data=b"h" * 32)
NOW = datetime.datetime.now(datetime.UTC)
WANTED = {"measurement": "6d" * 48, "host_data": "68" * 32, "report_data": "64" * 64}


def ask(processor: Processor, request: psp_wire.Request) -> psp_wire.Answer:
    data = processor.answer(psp_wire.encode_request(request))
    status, length, exitinfo2 = psp_wire.decode_answer_header(data[: psp_wire.ANSWER_HEADER_SIZE])
    body = data[psp_wire.ANSWER_HEADER_SIZE :]
    assert len(body) == length
    return psp_wire.Answer(status, exitinfo2, body)


def judged(folder: Path, launch: LaunchValues, **wanted: object) -> set[str]:
    """The checks that fail for a report and its table, by the verifier."""
    authority = load_or_create(folder, launch.line, launch.signer)
    processor = Processor(authority, launch)
    data = ask(processor, psp_wire.ReportRequest(b"d" * 64)).body
    table = ask(processor, psp_wire.CertificatesRequest()).body
    crl = revocation_list(authority).public_bytes(Encoding.DER)
    evidence = Evidence(data, (table,), (crl,))
    found = verify(
        evidence, NOW, expectation_of({**WANTED, **wanted}), with_trusted([authority.ark])
    )
    assert (found.verdict == "accept") is (not found.failures)
    return {check.name for check in found.failures}


VARIANTS = {
    "milan-v2": replace(LAUNCH, version=2),
    "milan-v3": LAUNCH,
    "genoa-v3": replace(LAUNCH, line=ProductLine.GENOA),
    "milan-v5": replace(LAUNCH, version=5, launch_mitigations=3, current_mitigations=7),
    "turin-v5": replace(LAUNCH, line=ProductLine.TURIN, tcb=TURIN_TCB, version=5),
    "turin-v3": replace(LAUNCH, line=ProductLine.TURIN, tcb=TURIN_TCB),
    "turin-v2": replace(LAUNCH, line=ProductLine.TURIN, tcb=TURIN_TCB, version=2),
    "milan-vlek": replace(LAUNCH, signer=SigningKey.VLEK),
}


@pytest.mark.parametrize("launch", VARIANTS.values(), ids=VARIANTS)
def test_each_variant_verifies(folder: Path, launch: LaunchValues) -> None:
    assert judged(folder, launch, require_crl=True) == set()


def test_a_vlek_is_told_apart(folder: Path) -> None:
    assert judged(folder, VARIANTS["milan-vlek"], allow_vlek=False) == {"chain.signer"}


def test_a_root_of_another_line_is_none_of_this_launch(folder: Path) -> None:
    with pytest.raises(FailedPreconditionError):
        Processor(load_or_create(folder, "Genoa"), LAUNCH)


def test_a_moved_tcb_is_seen(folder: Path) -> None:
    newer = replace(DEFAULT_TCB, microcode=220)
    moved = replace(LAUNCH, current_tcb=newer)
    assert judged(folder, moved) == {"tcb.provisional"}
    assert judged(folder, moved, allow_provisional=True) == set()
    assert judged(folder, replace(LAUNCH, tcb=newer), tcb_min={"microcode": 220}) == set()


def test_mitigations_are_checked(folder: Path) -> None:
    wanted = {"launch": 1, "current": 7}
    assert judged(folder, VARIANTS["milan-v5"], mitigations=wanted) == set()
    assert judged(folder, LAUNCH, mitigations=wanted) == {"tcb.mitigations"}


# ID blocks


def signed_by(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return id_block.signature(*decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384()))))


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return id_block.public_key(numbers.x, numbers.y)


ID_KEY, AUTHOR_KEY = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
BLOCK = id_block.IdBlock(b"m" * 48, 0x30000, b"f" * 16, b"i" * 16, guest_svn=5)


def identified(block: id_block.IdBlock = BLOCK, *, author: bool = False) -> LaunchValues:
    data = block.to_bytes()
    vouched = (signed_by(AUTHOR_KEY, public(ID_KEY)), public(AUTHOR_KEY)) if author else None
    auth = id_block.id_auth(signed_by(ID_KEY, data), public(ID_KEY), vouched)
    return replace(LAUNCH, id_block=data, id_auth=auth)


@pytest.mark.parametrize("author", [False, True])
def test_an_id_block_enters_the_report(folder: Path, authority: Authority, author: bool) -> None:
    launch = identified(author=author)
    found = report.parse(Processor(authority, launch).report(bytes(64), 0))
    assert (found.guest_svn, found.family_id, found.image_id) == (5, b"f" * 16, b"i" * 16)
    assert found.id_key_digest == id_block.key_digest(public(ID_KEY))
    author_digest = id_block.key_digest(public(AUTHOR_KEY)) if author else bytes(48)
    assert (found.author_key_digest, found.key_info) == (author_digest, int(author))
    wanted: dict[str, object] = {"id_key_digests": [found.id_key_digest.hex()], "guest_svn_min": 5}
    assert judged(folder, launch, **wanted) == set()
    fails = judged(folder, launch, require_author_key=True)
    assert fails == (set() if author else {"value.author_key"})


def flipped(launch: LaunchValues, at: int) -> LaunchValues:
    auth = bytearray(launch.id_auth)
    auth[at] ^= 1
    return replace(launch, id_auth=bytes(auth))


@pytest.mark.parametrize(
    "launch",
    [
        identified(replace(BLOCK, launch_digest=b"n" * 48)),
        identified(replace(BLOCK, policy=0xB0000)),
        replace(identified(), policy=0xB0000),
        replace(identified(), measurement=b"n" * 48),
        flipped(identified(), 0x000),
        flipped(identified(), 0x004),
        flipped(identified(), 0x040),
        flipped(identified(), 0x240),
        flipped(identified(), 0x244),
        flipped(identified(author=True), 0x680),
        flipped(identified(author=True), 0x884),
        replace(identified(), id_auth=b""),
        replace(identified(), id_block=replace(BLOCK, guest_svn=6).to_bytes()),
    ],
)
def test_a_launch_that_is_not_the_id_blocks_is_refused(
    authority: Authority, launch: LaunchValues
) -> None:
    with pytest.raises(LaunchRefusedError):
        Processor(authority, launch)


# Derived keys


def key(processor: Processor, **changes: object) -> bytes:
    request = replace(DerivedKeyRequest(0, 0), **changes)  # type: ignore[arg-type]
    answer = ask(processor, request)
    assert (answer.status, len(answer.body)) == (0, psp_wire.KEY_SIZE)
    return answer.body


def test_derived_keys_follow_from_what_is_selected(authority: Authority) -> None:
    one, again = Processor(authority, LAUNCH), Processor(authority, LAUNCH)
    other = Processor(authority, replace(LAUNCH, measurement=b"n" * 48))
    assert key(one) == key(again) == key(other)
    assert key(one, fields=MixedField.MEASUREMENT) == key(again, fields=MixedField.MEASUREMENT)
    assert key(one, fields=MixedField.MEASUREMENT) != key(other, fields=MixedField.MEASUREMENT)
    tcbs = (DEFAULT_TCB.to_bytes(), replace(DEFAULT_TCB, microcode=1).to_bytes())
    found = [key(one, fields=fields) for fields in (0, 1, 2, 4, 8, 16)]
    found += [key(one, fields=MixedField.TCB, tcb=tcb) for tcb in tcbs]
    found += [key(one, vmpl=1), key(one, root=1), key(again, root=1)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"root": 2}, Status.INVALID_KEY),
        ({"vmpl": 4}, Status.INVALID_PARAMETER),
        ({"fields": 0x80}, Status.INVALID_PARAMETER),
        ({"fields": 1 << 40}, Status.INVALID_PARAMETER),
        ({"fields": 0x40}, Status.INVALID_PARAMETER),
        ({"guest_svn": 1}, Status.INVALID_PARAMETER),
        ({"fields": 32, "tcb": b"\xff" + bytes(7)}, Status.INVALID_PARAMETER),
        ({"fields": 32, "tcb": bytes(3) + b"\1" + bytes(4)}, Status.INVALID_PARAMETER),
    ],
)
def test_keys_that_there_are_not(
    authority: Authority, changes: dict[str, int], status: Status
) -> None:
    request = replace(DerivedKeyRequest(0, 0), **changes)  # type: ignore[arg-type]
    answer = ask(Processor(authority, LAUNCH), request)
    assert (answer.status, answer.body) == (status, b"")


def test_requests_fail_on_demand(authority: Authority) -> None:
    failures = (Failure(2, exitinfo2=psp_wire.HOST_BUSY), Failure(3, status=0x16))
    processor = Processor(authority, replace(LAUNCH, failures=failures))
    answers = [ask(processor, psp_wire.ReportRequest(bytes(64))) for _ in range(4)]
    codes = [(answer.status, answer.exitinfo2, bool(answer.body)) for answer in answers]
    assert codes == [(0, 0, True), (0, 2 << 32, False), (0x16, 0, False), (0, 0, True)]


# Launch values


def test_launch_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        LAUNCH.host_data = bytes(32)  # type: ignore[misc]


BASE = {"measurement": "6d" * 48, "host_data": "68" * 32}


def test_values_are_read() -> None:
    assert read_launch(BASE) == LAUNCH
    more = {
        "product": "Turin",
        "version": 5,
        "signer": "vcek",
        "chip_seed": "other",
        "policy": 0xB0000,
        "tcb": {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 5},
        "failures": [{"request": 1, "status": 22}],
    }
    found = read_launch(BASE | more)
    assert found.tcb == Tcb(ProductLine.TURIN.tcb_layout, 2, 3, 4, 5, fmc=1)
    assert (found.line, found.chip_seed, found.policy) == (ProductLine.TURIN, b"other", 0xB0000)
    assert found.failures == (Failure(1, status=22),)


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": "6d"},
        {"measurement": "zz" * 48},
        {"host_data": 5},
        {"unknown": 1},
        {"product": "Venice"},
        {"product": "Rome"},
        {"version": 1},
        {"version": True},
        {"signer": "none"},
        {"signer": "ark"},
        {"tcb": {"bootloader": 1}},
        {"tcb": {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 5}},
        {"tcb": {"bootloader": 256, "tee": 3, "snp": 4, "microcode": 5}},
        {"tcb": 7},
        {"failures": {}},
        {"failures": [{}]},
        {"failures": [{"request": 1, "when": 2}]},
        {"launch_mitigations": 1},
        {"product": "Turin", "current_tcb": {"bootloader": 1, "tee": 1, "snp": 1, "microcode": 1}},
    ],
)
def test_bad_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        read_launch(BASE | change)


def test_the_operators_file_adds_and_cannot_contradict(tmp_path: Path) -> None:
    told = json.dumps(BASE | {"folder": str(tmp_path)})
    assert serve.read_values(told) == (LAUNCH, tmp_path)
    file = tmp_path / "launch.json"
    file.write_text(json.dumps({"version": 2, "host_data": "00" * 32}))
    launch, _ = serve.read_values(told)
    assert (launch.version, launch.host_data) == (2, b"h" * 32)
    for text in ("", "[]", '{"folder": "/"}', "{"):
        file.write_text(text)
        with pytest.raises(InvalidArgumentError):
            serve.read_values(told)


def test_the_process_says_why_it_does_not_launch(
    folder: Path, authority: Authority, tmp_path: Path, run_psp: Callable[[str], tuple[int, str]]
) -> None:
    del authority
    values = BASE | {"folder": str(folder), "id_block": BLOCK.to_bytes().hex()}
    assert run_psp(json.dumps(values | {"id_auth": "00"})) == (
        1,
        "stub PSP: ID authentication has 4096 bytes, this has 1\n",
    )
    assert run_psp("no JSON") == (1, "stub PSP: standard input is no JSON\n")
    missing = tmp_path / "file"
    missing.write_text("")
    code, text = run_psp(json.dumps(BASE | {"folder": str(missing)}))
    assert (code, text.count("\n")) == (1, 1)
