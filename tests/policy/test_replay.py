"""Transcripts that the agent's code recorded, replayed against the policy by the verifier."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parma_api.cli import run
from parma_api.policy.opa import OpaLoader
from parma_guest.agent.transcript import Transcript
from parma_tenant.simulate import Player, parse_script
from parma_tenant.verify.checks import Check, Result
from parma_tenant.verify.replay import check_replay
from parma_tenant.verify.transcript import (
    START,
    Entry,
    TranscriptFile,
    head_after,
    parse_transcript,
)
from tests.unit.tenant.verify import amd

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "policy"
Make = Callable[..., OpaLoader]
STORIES = (
    "aci_023_walk", "create", "create_env", "devices_ro", "devices_rw", "external", "flags_on",
    "allow_all_new", "capabilities",
)  # fmt: skip


async def record(name: str, make_loader: Make) -> tuple[bytes, TranscriptFile]:
    """The policy of a vector file, and the transcript of playing it."""
    document = json.loads((FOLDER / f"{name}.json").read_text())
    policy = (FOLDER / document["policy"]).read_bytes()
    player, transcript = Player(make_loader()), Transcript()
    player.gate.observers.append(transcript.record)
    try:
        assert (await player.set_policy(policy)).allowed
        async for _ in player.play(parse_script(document, FOLDER)):
            pass
    finally:
        await player.gate.close()
    kept = transcript.kept()
    file = {
        "format": 1,
        "skipped": kept.skipped,
        "base": kept.base.hex(),
        "entries": [entry.decode() for entry in kept.entries],
        "head": kept.head.hex(),
    }
    return policy, parse_transcript(json.dumps(file).encode())


async def replayed(policy: bytes, transcript: TranscriptFile, make_loader: Make) -> Check:
    return await check_replay(make_loader(), policy, transcript, hashlib.sha256(policy).digest())


def with_entries(entries: Sequence[Entry]) -> TranscriptFile:
    return TranscriptFile(START, 0, (), tuple(entries), head_after(START, ()))


@pytest.mark.parametrize("name", STORIES)
async def test_what_was_recorded_is_what_the_policy_decides(name: str, make_loader: Make) -> None:
    policy, transcript = await record(name, make_loader)
    check = await replayed(policy, transcript, make_loader)
    assert check.result is Result.PASS, check.reason
    same, total = (int(word) for word in check.reason.split()[:3] if word.isdigit())
    assert total == len(transcript.entries) > 0
    assert same > 0


@pytest.mark.parametrize("was", [True, False])
async def test_a_decision_turned_round_is_found(was: bool, make_loader: Make) -> None:
    policy, transcript = await record("devices_ro", make_loader)
    number = next(n for n, entry in enumerate(transcript.entries) if entry.allowed is was)
    changed: list[Any] = list(transcript.entries)
    codes = () if changed[number].reason_codes else ("device.hash_unknown",)
    changed[number] = replace(changed[number], allowed=not was, reason_codes=codes)
    check = await replayed(policy, with_entries(changed), make_loader)
    assert check.result is Result.FAIL
    assert f"decision {number} " in check.reason


async def test_a_generation_that_goes_back_is_found(make_loader: Make) -> None:
    policy, transcript = await record("devices_ro", make_loader)
    last = replace(transcript.entries[-1], generation=0)
    check = await replayed(policy, with_entries([*transcript.entries, last]), make_loader)
    assert check.result is Result.FAIL
    assert "generation" in check.reason


async def test_another_policy_is_not_replayed(make_loader: Make) -> None:
    policy, transcript = await record("devices_ro", make_loader)
    other = await check_replay(
        make_loader(), policy + b"\n", transcript, hashlib.sha256(policy).digest()
    )
    assert other.result is Result.FAIL
    assert "HOST_DATA" in other.reason


async def test_without_the_first_decisions_nothing_is_replayed(make_loader: Make) -> None:
    policy, transcript = await record("devices_ro", make_loader)
    check = await replayed(policy, replace(transcript, skipped=3), make_loader)
    assert check.result is Result.SKIP


async def test_an_unknown_point_is_found(make_loader: Make) -> None:
    policy, _ = await record("devices_ro", make_loader)
    entry = Entry(0, "open_door", allowed=True, reason_codes=(), generation=0, input={})
    check = await replayed(policy, with_entries([entry]), make_loader)
    assert check.result is Result.FAIL
    assert "no such point" in check.reason


async def test_a_text_that_is_no_policy(make_loader: Make) -> None:
    _, transcript = await record("devices_ro", make_loader)
    check = await replayed(b"package policy\n???", transcript, make_loader)
    assert check.result is Result.FAIL
    assert "cannot be loaded" in check.reason


async def test_the_command_line(
    make_loader: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Report, transcript and policy as files; a policy alone is a wrong call."""
    policy, transcript = await record("devices_ro", make_loader)
    chain = amd.chain()
    report = replace(
        amd.report(),
        host_data=hashlib.sha256(policy).digest(),
        report_data=bytes(32) + transcript.head,
    )
    files = {"report": amd.sign(report), "policy": policy, "root": chain.ders()[2]}
    files |= {f"certs{n}": der for n, der in enumerate(chain.ders())}
    document = {
        "format": 1,
        "skipped": 0,
        "base": START.hex(),
        "entries": list(transcript.texts),
        "head": transcript.head.hex(),
    }
    files["transcript"] = json.dumps(document).encode()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    words = ["attest", "verify", "--report", str(tmp_path / "report"), "--time", "2026-03-01"]
    words += ["--trust-root", str(tmp_path / "root"), "--policy", str(tmp_path / "policy")]
    for number in range(3):
        words += ["--certs", str(tmp_path / f"certs{number}")]
    assert await asyncio.to_thread(run, words) == 2
    assert "--transcript" in capsys.readouterr().err
    words += ["--transcript", str(tmp_path / "transcript"), "--json"]
    assert await asyncio.to_thread(run, words) == 0
    printed = json.loads(capsys.readouterr().out)
    last = [check["name"] for check in printed["checks"][-3:]]
    assert last == ["transcript.chain", "transcript.bound", "transcript.replay"]
    assert "decisions are the policy's" in printed["checks"][-1]["reason"]
