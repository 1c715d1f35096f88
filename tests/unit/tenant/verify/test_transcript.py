"""Transcripts: the agent's own code writes them, the verifier's reads them."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import pytest

from parma_api.policy.decision import DecisionRecord
from parma_guest.agent.transcript import Transcript
from parma_tenant.verify.checks import Result, Verification
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import with_trusted
from parma_tenant.verify.transcript import with_transcript
from tests.unit.tenant.verify import amd

CHAIN = amd.chain()


def recorded(count: int = 5, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """The file that belongs to `count` decisions."""
    transcript = Transcript(max_bytes)
    for number in range(count):
        codes = ("layer.denied",) if number % 2 else ()
        shown = {"target": f"/run/é{number}", "deviceHash": "ab" * 32}
        transcript.record(DecisionRecord("mount_device", shown, not codes, codes, number))
    kept = transcript.kept()
    return {
        "format": 1,
        "skipped": kept.skipped,
        "base": kept.base.hex(),
        "entries": [entry.decode() for entry in kept.entries],
        "head": kept.head.hex(),
    }


def judged(document: object, report_data: bytes) -> Verification:
    report = amd.sign(dataclasses.replace(amd.report(), report_data=report_data))
    roots = with_trusted([CHAIN.root.make()])
    verification = verify(Evidence(report, CHAIN.ders()), amd.NOW, roots=roots)
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return with_transcript(verification, report, data)


def head(document: dict[str, Any]) -> bytes:
    return bytes.fromhex(document["head"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_whole_and_bound(count: int) -> None:
    document = recorded(count)
    for data in (
        bytes(32) + head(document),
        head(document) + bytes(32),
        b"\x05" * 32 + head(document),
    ):
        verification = judged(document, data)
        assert verification.verdict == "accept"
        assert verification.check("transcript.chain").result is Result.PASS
        assert f"{count} decisions" in verification.check("transcript.chain").reason


def test_skipped_decisions_are_named() -> None:
    document = recorded(50, max_bytes=600)
    assert document["skipped"] > 0
    verification = judged(document, bytes(32) + head(document))
    assert verification.verdict == "accept"
    assert f"{document['skipped']} earlier" in verification.check("transcript.chain").reason


@pytest.mark.parametrize("data", [bytes(64), b"\x05" * 64])
def test_not_bound(data: bytes) -> None:
    verification = judged(recorded(), data)
    assert [check.name for check in verification.failures] == ["transcript.bound"]
    assert verification.verdict == "refuse"


def test_a_head_in_the_first_half_leaves_no_room_for_more() -> None:
    document = recorded()
    verification = judged(document, head(document) + b"\x01" * 32)
    assert [check.name for check in verification.failures] == ["transcript.bound"]


def changed(**changes: object) -> dict[str, Any]:
    return recorded() | changes


def entries(*texts: str) -> dict[str, Any]:
    return changed(entries=list(texts))


FIRST = recorded()["entries"]
BROKEN: list[tuple[str, object]] = [
    ("one left out", entries(*FIRST[:-1])),
    ("the first left out", entries(*FIRST[1:])),
    ("two changed over", entries(FIRST[1], FIRST[0], *FIRST[2:])),
    ("a denial made an approval", entries(FIRST[0], FIRST[1].replace("false", "true"), *FIRST[2:])),
    ("white space", entries(FIRST[0].replace(":", ": "), *FIRST[1:])),
    ("one added", entries(*FIRST, FIRST[0].replace('"sequence":0', '"sequence":5'))),
    ("another head", changed(head="00" * 32)),
    ("another start", changed(base="00" * 32)),
    ("skipped without a base", changed(skipped=3)),
    ("negative", changed(skipped=-1)),
    ("no format", changed(format=2)),
    ("more members", changed(more=1)),
    ("entries of another kind", changed(entries=[1])),
    ("an entry that is no object", entries("[]")),
    ("an entry without input", entries('{"sequence":0}')),
    ("a lone surrogate", entries('{"a":"\ud800"}')),
    ("upper case", changed(head=recorded()["head"].upper())),
    ("no JSON", b"{"),
    ("a list", []),
    ("nothing", b""),
    ("deep", b"[" * 100_000),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[0])
def test_broken(case: tuple[str, object]) -> None:
    verification = judged(case[1], bytes(32) + head(recorded()))
    assert verification.verdict == "refuse"
    assert verification.check("transcript.chain").result is Result.FAIL


def test_a_report_of_another_length_has_no_place_for_a_head() -> None:
    verification = verify(Evidence(b"", CHAIN.ders()), datetime.datetime.now(datetime.UTC))
    assert with_transcript(verification, b"", b"{}").verdict == "refuse"
