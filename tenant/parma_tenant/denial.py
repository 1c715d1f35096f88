"""A denial in whatever form it reached the user: the shim's record, an event, a log line, the error's text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parma_api.policy.refusal import parse_decision
from parma_api.status import InvalidArgumentError

_MAX_INPUT: Final = 1 << 20
_FIRST: Final = re.compile(r"([a-z0-9_]{3,40}) denied by policy: ([a-z0-9_.]+(?:, ?[a-z0-9_.]+)*)")
_RECORD: Final = re.compile(r"parma policy explain ([^\s\"'\\]+)")
_NEAREST: Final = re.compile(r"nearest: [^\n]+")
_TYPES: Final[Mapping[str, type]] = {
    "rule": str, "argList": list, "envList": list, "mounts": list, "workingDir": str, "privileged": bool,
    "noNewPrivileges": bool, "seccompProfileSHA256": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Denial:
    """What is known of a refusal."""

    point: str
    codes: tuple[str, ...]
    request: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Mapping[str, Any], ...] = ()
    """As the framework described them, nearest first."""
    texts: tuple[str, ...] = ()


def read_denial(text: str, folder: Path | None = None) -> Denial:
    """A denial in whatever form; a record that the text names is read if it is there. Raises InvalidArgumentError."""
    if (decision := parse_decision(text)) is not None:
        return _of_decision(decision, text)
    if text.lstrip().startswith("{"):
        document = _json(text)
        inner = document.get("decision")
        if isinstance(inner, dict):
            return _of_decision(inner, str(document.get("message", "")))
        if "reason_codes" in document:
            return _of_decision(document, "")
        text = str(document.get("message") or document.get("Message") or text)
        return read_denial(text, folder) if not text.lstrip().startswith("{") else _of_text(text)
    named = _RECORD.search(text)
    if named is not None and folder is not None:
        try:
            return read_denial((folder / named[1]).read_text()[:_MAX_INPUT])
        except (OSError, UnicodeDecodeError, InvalidArgumentError):
            pass
    return _of_text(text)


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"this is no JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _of_decision(decision: Mapping[str, Any], text: str) -> Denial:
    request = _tidy(decision.get("input"))
    found = _FIRST.search(text)
    point = request.get("rule") or (found[1] if found else "request")
    reason = decision.get("reason")
    if not isinstance(reason, dict):
        reason = {"errors": [reason]}
    errors = [decision.get("policyError"), *listed(reason.get("errors"))]
    return Denial(
        point,
        tuple(code for code in listed(decision.get("reason_codes")) if isinstance(code, str)),
        request,
        tuple(item for item in listed(reason.get("error_objects")) if isinstance(item, dict)),
        tuple(error for error in errors if isinstance(error, str)),
    )


def listed(value: object) -> list[Any]:
    """A list, or an empty one for what is none."""
    return value if isinstance(value, list) else []


def _tidy(request: object) -> dict[str, Any]:
    """The members of a request that have the type that they must have: a record is a claim of the host's."""
    if not isinstance(request, dict):
        return {}
    found = {}
    for key, value in request.items():
        kind = _TYPES.get(key)
        if kind is None or (isinstance(value, kind) and kind is not list):
            found[key] = value
        elif kind is list and isinstance(value, list):
            inner = dict if key == "mounts" else str
            found[key] = [item for item in value if isinstance(item, inner)]
    return found


def _of_text(text: str) -> Denial:
    """The lines that the shim prints; in events their line ends are often escaped."""
    plain = text.replace("\\n", "\n").replace('\\"', '"')
    found = _FIRST.search(plain)
    if found is None:
        raise InvalidArgumentError(
            "there is no denial in this text: give the file that the error names, or the text with "
            "`... denied by policy: ...`"
        )
    codes = tuple(code.strip() for code in found[2].split(",") if "." in code)
    nearest = _NEAREST.search(plain)
    return Denial(found[1], codes, texts=(nearest[0],) if nearest is not None else ())
