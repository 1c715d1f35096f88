"""The decision object: redaction, size, reading it back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from parma_api.policy.decision import PolicyDenied
from parma_api.policy.defaults import default_sets
from parma_api.policy.refusal import MAX_TEXT, parse_decision, redact
from parma_api.status import Code


def decision(error: PolicyDenied) -> dict[str, Any]:
    found = parse_decision(error.message)
    assert found is not None
    return found


def test_form() -> None:
    error = PolicyDenied(
        "exec_in_container",
        ("process.user", "process.command"),
        {"argList": ["/x"]},
        {"errors": ["e"]},
    )
    assert error.code is Code.PERMISSION_DENIED
    start, _, rest = error.message.partition("policyDecision< ")
    encoded, _, end = rest.partition(" >policyDecision")
    assert start == "exec_in_container denied by policy: process.command, process.user "
    assert end == ""
    assert json.loads(base64.b64decode(encoded)) == {
        "decision": "deny",
        "input": {"argList": ["/x"], "rule": "exec_in_container"},
        "reason": {"errors": ["e"]},
        "reason_codes": ["process.command", "process.user"],
    }


@pytest.mark.parametrize("reason", [None, {}, [], "text", 1])
def test_stock_sentence_for_what_is_no_reason(reason: object) -> None:
    assert isinstance(decision(PolicyDenied("p", ("a.b",), {}, reason))["reason"], str)


def test_policy_error_takes_the_reasons_place() -> None:
    found = decision(PolicyDenied("p", ("a.b",), {}, policy_error="conflict"))
    assert found["policyError"] == "conflict"
    assert "reason" not in found


def test_redaction_at_every_level() -> None:
    document = {
        "envList": ["A=secret", "B", "C=d=e"],
        "capabilities": default_sets(privileged=True),
        "deep": [{"envList": ["X=secret"], "capabilities": default_sets(privileged=False)}],
        "error_objects": [{"env_rules": [{"pattern": "A=secret"}], "variables": ["Y=secret"]}],
    }
    shown = redact(document)
    assert isinstance(shown, dict)
    assert "secret" not in json.dumps(shown)
    assert shown["envList"] == ["A=<<redacted>>", "B=<<redacted>>", "C=<<redacted>>"]
    assert shown["capabilities"] == "[privileged]"
    assert shown["deep"][0]["capabilities"] == "[unprivileged]"


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        ({"objects": 4000}, ["reason.error_objects"]),
        ({"input": 4000}, ["input"]),
        ({"objects": 4000, "input": 4000}, ["reason.error_objects", "input"]),
        (
            {"objects": 4000, "input": 4000, "errors": 4000},
            ["reason.error_objects", "input", "reason"],
        ),
    ],
)
def test_cut_in_order_and_named(size: dict[str, int], cut: list[str]) -> None:
    reason = {
        "errors": ["e" * size.get("errors", 1)],
        "error_objects": ["o" * size.get("objects", 1)],
    }
    error = PolicyDenied("p", ("a.b",), {"argList": ["i" * size.get("input", 1)]}, reason)
    found = decision(error)
    if cut == ["input"]:
        cut = ["reason.error_objects", "input"]
    assert found["truncated"] == cut
    assert found["reason_codes"] == ["a.b"]
    assert len(error.message) <= MAX_TEXT


def test_long_policy_error_is_cut() -> None:
    assert len(PolicyDenied("p", ("a.b",), {}, policy_error="x" * 9000).message) <= MAX_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "policyDecision< ",
        "policyDecision< !! >policyDecision",
        "policyDecision< W10= >policyDecision",
    ],
)
def test_what_is_no_decision(text: str) -> None:
    assert parse_decision(text) is None
