"""`parma policy`: digest, simulate, lint, as a user calls them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parma_tenant.cli.policy import policy


def call(*arguments: object) -> Result:
    return CliRunner().invoke(policy, [str(argument) for argument in arguments])


def test_digest_is_over_the_exact_bytes(tmp_path: Path) -> None:
    text = tmp_path / "p.rego"
    text.write_bytes(b"package policy\r\n\r\n")
    expected = hashlib.sha256(b"package policy\r\n\r\n").hexdigest()
    assert call("digest", text).output == f"{expected}\n"
    assert json.loads(call("digest", text, "--json").output) == {"host_data": expected}


def test_simulate_prints_one_object_for_each_step(vectors: Path) -> None:
    done = call(
        "simulate",
        "--policy",
        vectors / "web.rego",
        "--steps",
        vectors / "redaction.json",
        "--json",
    )
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert not any(line["allowed"] for line in lines)
    assert lines[0]["decision_input"]["envList"][1] == "DB_PASSWORD=<<redacted>>"
    assert lines[0]["reason_codes"] == sorted(lines[0]["reason_codes"])
    assert set(lines[0]["metadata"]) == {
        "devices", "rw_devices", "overlayTargets", "matches", "started", "p9mounts", "scratch_mounts", "issuers",
        "fragment_parameters",
    }  # fmt: skip
    assert "hunter2" not in done.stdout


def test_simulate_says_that_a_policy_is_refused(vectors: Path) -> None:
    done = call(
        "simulate",
        "--policy",
        vectors / "syntax_error.rego",
        "--steps",
        vectors / "create.json",
        "--json",
    )
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "step": 0, "point": "set_policy", "allowed": False, "reason_codes": ["policy.invalid"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no JSON"),
        ("[]", "list `steps`"),
        ('{"steps": [{}]}', "no point"),
        ('{"steps": [{"point": "nothing", "input": {}}]}', "there is no point"),
        ('{"steps": [{"point": "mount_device"}]}', "no input"),
        ('{"kind": "stance", "host_data": "zz", "steps": []}', "host_data"),
        (
            '{"steps": [{"point": "load_fragment", "input": {}, "fragment": "/etc/passwd"}]}',
            "cannot be read",
        ),
    ],
)
def test_simulate_bad_input(content: str, says: str, tmp_path: Path, vectors: Path) -> None:
    steps = tmp_path / "s.json"
    steps.write_text(content)
    done = call("simulate", "--policy", vectors / "web.rego", "--steps", steps)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_files_are_bad_input(tmp_path: Path) -> None:
    for arguments in (("digest", tmp_path / "no"), ("lint", tmp_path / "no")):
        done = call(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")


def test_lint(vectors: Path, bundle_dir: Path) -> None:
    found = call("lint", vectors / "web.rego", "--json")
    assert found.exit_code == 1
    texts = [finding["text"] for finding in json.loads(found.stdout)]
    assert any("shell" in text for text in texts)
    assert call("lint", bundle_dir / "samples" / "web.rego").exit_code == 0
    refused = call("lint", vectors / "syntax_error.rego", "--json")
    assert [finding["level"] for finding in json.loads(refused.stdout)] == ["error"]
