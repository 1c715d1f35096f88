"""A refusal by the policy, made readable: the whole record in a file, three lines for containerd (policy.md 13.2).

The record comes from the guest, redacted there; it is a claim like everything else, so sizes are capped and texts
cleaned again here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from parma_api.policy.refusal import parse_decision
from parma_api.status import ApiError, Code
from parma_shim.agent.text import clean
from parma_shim.errors import DeniedError

MAX_LINES = 900
"""Characters of the three lines, their ends included."""
MAX_RECORDS = 500
MAX_CODES = 16
_MARK = "policyDecision<"


class Denials:
    """The folder of records. It outlives the pod: a pod that is refused is gone at once."""

    def __init__(self, folder: Path, sandbox: str) -> None:
        self._folder = folder
        self._sandbox = sandbox

    def explained(self, error: ApiError) -> ApiError:
        """The error as containerd's user shall see it; one that is no refusal of a policy stays as it is."""
        if error.code is not Code.PERMISSION_DENIED or _MARK not in error.message:
            return error
        head = error.message.partition(_MARK)[0].strip()
        decision = parse_decision(error.message) or {}
        path = self._write(head, decision)
        return DeniedError(three_lines(head, decision, str(path) if path is not None else None))

    def _write(self, head: str, decision: Mapping[str, object]) -> Path | None:
        """The record's file; None when it cannot be written: the refusal counts all the same."""
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        record = {
            "id": name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "sandbox": self._sandbox,
            "message": head,
            "decision": decision,
        }
        path = self._folder / f"{name}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(record, file, indent=1, sort_keys=True)
            self._forget_old()
        except OSError:
            return None
        return path

    def _forget_old(self) -> None:
        records = sorted(self._folder.glob("*.json"))
        for path in records[:-MAX_RECORDS]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def three_lines(head: str, decision: Mapping[str, object], record: str | None) -> str:
    """At most three lines and MAX_LINES characters; the first is complete by itself."""
    first = clean(_first_line(head, decision), 400)
    last = f"explain: parma policy explain {record}" if record is not None else ""
    room = MAX_LINES - len(first) - len(last) - 2
    second = _nearest(decision)
    middle = clean(second, room) if second and room > 40 else ""
    return "\n".join(line for line in (first, middle, last) if line)


def _first_line(head: str, decision: Mapping[str, object]) -> str:
    codes = _texts(decision.get("reason_codes"))[:MAX_CODES]
    document = decision.get("input")
    rule = document.get("rule") if isinstance(document, Mapping) else None
    if isinstance(rule, str) and codes:
        return f"{rule} denied by policy: {', '.join(codes)}"
    return head or "denied by policy"


def _nearest(decision: Mapping[str, object]) -> str:
    """The nearest container of the policy and what differs, or what the policy itself says."""
    reason = decision.get("reason")
    if isinstance(reason, str):
        return reason
    if not isinstance(reason, Mapping):
        error = decision.get("policyError")
        return error if isinstance(error, str) else ""
    found = reason.get("error_objects")
    if isinstance(found, Sequence) and found and isinstance(found[0], Mapping):
        return _describe(found[0])
    return "; ".join(_texts(reason.get("errors")))


def _describe(candidate: Mapping[str, object]) -> str:
    parts = []
    differs = candidate.get("differs")
    for item in differs if isinstance(differs, list) else ():
        if isinstance(item, Mapping):
            check = str(item.get("check", "?"))
            parts.append(
                f"{check}: expected {_short(item.get('expected'))}, got {_short(item.get('got'))}"
            )
    variables = _texts(candidate.get("variables"))
    if variables:
        parts.append(f"variables not allowed: {', '.join(sorted(variables)[:5])}")
    name = candidate.get("container")
    return f"nearest: {_short(name)}; " + "; ".join(parts[:3])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 120 else text[:117] + "..."


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
