"""The decision object in a refusal's text, redacted and cut to size (policy.md, section 13.2)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from parma_api.policy.defaults import default_sets

MAX_TEXT: Final = 3072
"""Characters of the whole text, markers included."""
_OPEN: Final = "policyDecision< "
_CLOSE: Final = " >policyDecision"
STOCK_REASON: Final = "the policy gives no reason"
_REDACTED: Final = "=<<redacted>>"


def redact(value: object) -> object:
    """`value` without values of variables; default capability lists become their name. At every level."""
    if isinstance(value, Mapping):
        return {key: _redact_member(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _redact_member(key: str, value: object) -> object:
    if key in ("envList", "variables") and isinstance(value, list | tuple):
        return [str(item).split("=", 1)[0] + _REDACTED for item in value]
    if key == "env_rules":
        return "<<redacted>>"
    if key == "capabilities":
        return _capabilities_name(value)
    return redact(value)


def _capabilities_name(value: object) -> object:
    if value == default_sets(privileged=True):
        return "[privileged]"
    if value == default_sets(privileged=False):
        return "[unprivileged]"
    return redact(value)


def decision_text(
    point: str,
    reason_codes: tuple[str, ...],
    document: Mapping[str, object],
    reason: object,
    policy_error: str | None,
) -> str:
    """The error text of a refusal: at most MAX_TEXT characters, unless the codes alone are longer."""
    decision: dict[str, object] = {"decision": "deny", "input": redact({**document, "rule": point})}
    if policy_error is not None:
        decision["policyError"] = policy_error
    else:
        decision["reason"] = redact(reason) if isinstance(reason, dict) and reason else STOCK_REASON
    decision["reason_codes"] = list(reason_codes)
    prefix = f"{point} denied by policy: {', '.join(reason_codes)} "
    truncated: list[str] = []
    for cut in ("reason.error_objects", "input", "reason"):
        text = prefix + _encode(decision)
        if len(text) <= MAX_TEXT:
            return text
        if _cut(decision, cut):
            truncated.append(cut)
            decision["truncated"] = truncated
    if policy_error is not None and len(prefix + _encode(decision)) > MAX_TEXT:
        decision["policyError"] = policy_error[:256]
    return prefix + _encode(decision)


def _cut(decision: dict[str, object], what: str) -> bool:
    if what != "reason.error_objects":
        return decision.pop(what, None) is not None
    reason = decision.get("reason")
    if not isinstance(reason, dict) or not reason.get("error_objects"):
        return False
    decision["reason"] = {key: item for key, item in reason.items() if key != "error_objects"}
    return True


def _encode(decision: Mapping[str, object]) -> str:
    text = json.dumps(decision, separators=(",", ":"), sort_keys=True)
    return f"{_OPEN}{base64.b64encode(text.encode()).decode('ascii')}{_CLOSE}"


def parse_decision(text: str) -> dict[str, object] | None:
    """The decision object inside a refusal's text, or None if there is none that can be read."""
    start = text.find(_OPEN)
    end = text.find(_CLOSE, start)
    if start < 0 or end < 0:
        return None
    try:
        decoded = json.loads(base64.b64decode(text[start + len(_OPEN) : end], validate=True))
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None
