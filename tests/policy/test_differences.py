"""The deliberate differences (a) to (k) of the contract, one named test each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from parma_api.policy.decision import PolicyDenied, PolicyInvalid
from parma_api.policy.gate import Gate, Stance
from parma_api.policy.opa import OpaLoader
from parma_api.policy.points import TABLE, Point
from parma_api.status import ApiError
from parma_tenant.simulate import StepResult, parse_script, simulate

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "policy"
Play = Callable[[str], Awaitable[dict[str, StepResult]]]


@pytest.fixture
def play(make_loader: Callable[..., OpaLoader]) -> Play:
    """Results of a vector file by the names of its steps (the last of equal names)."""

    async def run(name: str) -> dict[str, StepResult]:
        document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        text = (FOLDER / document["policy"]).read_bytes()
        results = await simulate(make_loader, text, parse_script(document, FOLDER))
        return {
            step["name"]: result for step, result in zip(document["steps"], results, strict=True)
        }

    return run


async def test_a_patterns_match_the_whole_text(play: Play) -> None:
    results = await play("patterns_full_match")
    for name in (
        "first alternative with a tail",
        "second alternative with a head",
        "own leading anchor, tail",
    ):
        assert "process.env" in results[name].reason_codes


async def test_b_commands_count_only_when_allowed_and_carried_out(play: Play) -> None:
    books = await play("own_books")
    assert books["it is not booked"].allowed
    assert books["the first must not stay behind"].allowed
    undone = await play("not_carried_out")
    assert undone["exec finds nothing started"].reason_codes[0] == "container.not_started"


async def test_c_candidates_are_a_set(play: Play) -> None:
    results = await play("duplicate_exec")
    counts = [
        result.metadata["matches"] for result in results.values() if result.metadata["matches"]
    ]
    assert all(count == 1 for shown in counts for count in shown.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("future_api", "api.version_ahead"),
        ("future_framework", "framework.version_ahead"),
        ("bad_api_version", "api.version_invalid"),
    ],
)
async def test_d_versions_beyond_ours_are_refused_at_load(name: str, code: str, gate: Gate) -> None:
    text = (FOLDER / f"{name}.rego").read_bytes()
    with pytest.raises(PolicyInvalid) as refused:
        await gate.set_policy(text, hashlib.sha256(text).digest())
    assert refused.value.reason_codes == (code,)


@pytest.mark.parametrize("version", ["v0.12.0", "0.12", "0.12.0-rc.1", "00.12.0", "", " 0.12.0"])
async def test_d_what_is_no_version_is_refused_at_load(version: str, gate: Gate) -> None:
    text = f'package policy\napi_version := "{version}"\n'.encode()
    with pytest.raises(PolicyInvalid) as refused:
        await gate.set_policy(text, hashlib.sha256(text).digest())
    assert refused.value.reason_codes == ("api.version_invalid",)


async def test_e_without_layers_nothing_is_assembled(play: Play) -> None:
    results = await play("empty_layers")
    assert results["nothing mounted, nothing asked for"].reason_codes == ("overlay.no_layers",)


async def test_f_paths_are_plain_before_any_rule_sees_them(play: Play) -> None:
    results = await play("mounts_normalised")
    assert "process.mounts" in results["leaves the volume, stays in the pod"].reason_codes


async def test_g_every_refusal_has_codes(play: Play) -> None:
    for name in ("flags_off", "overlay", "plan9", "lifecycle", "wrapper"):
        for result in (await play(name)).values():
            assert result.allowed or result.reason_codes


async def test_h_only_the_attested_text_and_only_once(gate: Gate) -> None:
    good, other = (FOLDER / "web.rego").read_bytes(), (FOLDER / "web_relaxed.rego").read_bytes()
    digest = hashlib.sha256(good).digest()
    assert gate.stance is Stance.DENY_ALL
    for host_data in (b"", b"\0" * 32, digest[:31]):
        with pytest.raises(PolicyInvalid, match="HOST_DATA"):
            await gate.set_policy(good, host_data)
    with pytest.raises(PolicyInvalid) as mismatch:
        await gate.set_policy(other, digest)
    assert mismatch.value.reason_codes == ("policy.host_data_mismatch",)
    await gate.set_policy(good, digest)
    with pytest.raises(PolicyInvalid) as again:
        await gate.set_policy(good, digest)
    assert again.value.reason_codes == ("policy.already_set",)


def test_i_every_point_is_in_table_framework_and_samples(bundle_dir: Path) -> None:
    framework = "\n".join(
        file.read_text()
        for file in (bundle_dir / "framework").rglob("*.rego")
        if "_test" not in file.name
    )
    samples = [
        (bundle_dir / "samples" / name).read_text() for name in ("allow_all.rego", "web.rego")
    ]
    assert set(TABLE) == set(Point)
    for point in Point:
        assert f"\n{point} := " in framework, f"{point} has no rule in the framework"
        for sample in samples:
            assert f"\n{point} := " in sample, f"{point} is not in a sample"


async def test_j_both_versions_of_the_language_load(play: Play) -> None:
    for name in ("old_syntax", "new_syntax"):
        results = await play(name)
        assert any(result.allowed for result in results.values())


async def test_k_a_number_that_no_file_lists_keeps_an_empty_name(play: Play) -> None:
    """The policy's half: rules by id or any take an empty name, a rule by name does not."""
    results = await play("web_user")
    assert results["the user name is free under an id rule"].allowed
    identity = await play("identity")
    assert "process.user" in identity["name rule, id instead of name"].reason_codes


def test_errors_are_of_the_one_tree() -> None:
    assert issubclass(PolicyDenied, ApiError)
    assert issubclass(PolicyInvalid, ApiError)
