"""Every vector file through the agent's gate and a real OPA."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parma_api.policy.envelope import EnvelopeError, open_envelope
from parma_api.policy.opa import OpaLoader
from parma_api.policy.seccomp_digest import canonical_text, seccomp_digest
from parma_tenant.simulate import StepResult, parse_script, simulate

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "policy"
DOCUMENTS: dict[str, dict[str, Any]] = {
    f.stem: json.loads(f.read_text()) for f in sorted(FOLDER.glob("*.json"))
}
SEQUENCES = [n for n, d in DOCUMENTS.items() if d.get("kind") in (None, "stance")]


@pytest.mark.parametrize("name", SEQUENCES)
async def test_sequence(name: str, make_loader: Callable[..., OpaLoader]) -> None:
    document = DOCUMENTS[name]
    policy = (FOLDER / document["policy"]).read_bytes() if "policy" in document else None
    results = list(await simulate(make_loader, policy, parse_script(document, FOLDER)))
    load = document.get("load", {"ok": True})
    if not load["ok"]:
        assert [r.allowed for r in results] == [False]
        assert set(load["reasons_contain"]) <= set(results[0].reason_codes)
        return
    steps = document["steps"]
    assert len(results) == len(steps)
    complaints = [
        c for step, result in zip(steps, results, strict=True) for c in compare(step, result)
    ]
    assert complaints == []


def compare(step: dict[str, Any], result: StepResult) -> list[str]:
    got, expected = result.to_json(), step["expect"]
    return [
        f"{result.step} {step['name']}: {member}: expected {wanted}, got {got.get(member)} {got.get('reason_codes')}"
        for member, wanted in expected.items()
        if not agrees(member, wanted, got)
    ]


def agrees(member: str, wanted: Any, got: dict[str, Any]) -> bool:
    if member == "reasons_contain":
        return set(wanted) <= set(got["reason_codes"]) and len(got["reason_codes"]) > 0
    if member == "reasons_absent":
        return not set(wanted) & set(got["reason_codes"])
    if member == "metadata":
        return all(got["metadata"].get(name, {}) == content for name, content in wanted.items())
    if member == "decision_input":
        return all(got["decision_input"].get(name) == content for name, content in wanted.items())
    if member == "env_list" and member in got:
        return set(got[member]) == set(wanted)
    if member == "caps" and member in got:
        return {k: set(v) for k, v in got[member].items()} == {k: set(v) for k, v in wanted.items()}
    return bool(got.get(member) == wanted)


def test_every_file_is_of_a_known_kind() -> None:
    kinds = {d.get("kind") for d in DOCUMENTS.values()}
    assert kinds == {None, "stance", "seccomp_digest", "fragment_envelope"}
    assert len(SEQUENCES) == len(DOCUMENTS) - 2


@pytest.mark.parametrize("case", DOCUMENTS["seccomp_digest"]["cases"], ids=lambda c: c["name"])
def test_seccomp_digest(case: dict[str, Any]) -> None:
    assert canonical_text(case["profile"]) == case["expect"]["canonical_text"]
    assert seccomp_digest(case["profile"]) == case["expect"]["sha256"]


@pytest.mark.parametrize("case", DOCUMENTS["fragment_envelope"]["cases"], ids=lambda c: c["name"])
def test_fragment_envelope(case: dict[str, Any]) -> None:
    encoded, expect = base64.b64decode(case["cose_base64"]), case["expect"]
    if expect["accepted"]:
        envelope = open_envelope(encoded)
        assert (envelope.issuer, envelope.feed) == (expect["issuer"], expect["feed"])
        assert envelope.header_svn == expect["header_svn"]
        assert envelope.payload.decode() == DOCUMENTS["fragment_envelope"]["payload_text"]
    else:
        with pytest.raises(EnvelopeError) as refused:
            open_envelope(encoded)
        assert refused.value.code in expect["reasons_contain"]
