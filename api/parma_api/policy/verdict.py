"""Reading the evaluator's answer: pure, and strict about every type (policy.md, sections 1 and 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from parma_api.policy.decision import Capabilities, Decision, PointRequest, PolicyDenied
from parma_api.policy.defaults import SETS
from parma_api.policy.metadata import Command, MetadataError, parse_commands
from parma_api.policy.points import TABLE, Point

_CODE: Final = re.compile(r"[a-z0-9_]{1,32}\.[a-z0-9_]{1,48}")
_MAX_CODES: Final = 48
_WITH_ENV: Final = (Point.CREATE_CONTAINER, Point.EXEC_IN_CONTAINER, Point.EXEC_EXTERNAL)
_WITH_CAPS: Final = (Point.CREATE_CONTAINER, Point.EXEC_IN_CONTAINER)
_WITH_STDIO: Final = (Point.CREATE_CONTAINER, Point.EXEC_EXTERNAL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """An allowed answer and the changes that it asks for."""

    decision: Decision
    commands: tuple[Command, ...]


def read_answer(request: PointRequest, answer: Mapping[str, object]) -> Verdict:
    """The verdict in an answer of `data.gate.decide`. Raises PolicyDenied for everything but a clean yes."""
    result = _result(request, answer)
    try:
        commands = parse_commands(result.get("metadata"))
    except MetadataError as error:
        _fail(request, "policy.metadata_failed", str(error))
    return Verdict(_decision(request, result), commands)


def _result(request: PointRequest, answer: Mapping[str, object]) -> Mapping[str, object]:
    source, results = answer.get("source"), answer.get("results")
    if source == "unversioned":
        _fail(request, "policy.no_api_version", "the policy states no api_version")
    if source == "missing":
        optional = TABLE[request.point].optional
        _fail(request, "policy.default_deny" if optional else "policy.rule_missing", "not defined")
    if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
        _fail(request, "policy.bad_result", "the result is no object")
    result: dict[str, object] = results[0]
    allowed = result.get("allowed")
    if not isinstance(allowed, bool):
        _fail(request, "policy.bad_result", "allowed is no boolean")
    if not allowed:
        _refuse(request, answer, result)
    return result


def _refuse(
    request: PointRequest, answer: Mapping[str, object], result: Mapping[str, object]
) -> NoReturn:
    codes = _codes(result.get("reason_codes"))
    if not codes:
        default = answer.get("source") in ("default", "policy_default")
        codes = ("policy.default_deny",) if default else ("policy.denied",)
    reasons = answer.get("reason")
    reason = reasons[0] if isinstance(reasons, list) and len(reasons) == 1 else None
    raise PolicyDenied(request.point, codes, request.input, reason)


def _codes(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        return ()
    return tuple(c for c in raw[:_MAX_CODES] if isinstance(c, str) and _CODE.fullmatch(c))


def _fail(request: PointRequest, code: str, error: str) -> NoReturn:
    raise PolicyDenied(request.point, (code,), request.input, policy_error=error)


def _decision(request: PointRequest, result: Mapping[str, object]) -> Decision:
    point = request.point
    stdio = result.get("allow_stdio_access") if point in _WITH_STDIO else None
    if point in _WITH_STDIO and not isinstance(stdio, bool):
        _fail(request, "policy.bad_result", "allow_stdio_access is no boolean")
    return Decision(
        point=point,
        input=request.input,
        env_list=_environment(request, result) if point in _WITH_ENV else None,
        caps=_capabilities(request, result) if point in _WITH_CAPS else None,
        allow_stdio_access=bool(stdio) if point in _WITH_STDIO else None,
        allowed_ledgers=_ledgers(request, result),
        parameters=_parameters(request, result),
        add_module=_add_module(request, result),
    )


def _environment(request: PointRequest, result: Mapping[str, object]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(_texts(request.input["envList"]) or ()))
    listed = result.get("env_list")
    if listed is None:
        return asked
    kept = _texts(listed)
    if kept is None:
        _fail(request, "policy.bad_result", "env_list is no list of texts")
    return _common(asked, kept)


def _capabilities(request: PointRequest, result: Mapping[str, object]) -> Capabilities:
    asked = request.input["capabilities"]
    assert isinstance(asked, Mapping)
    listed = result.get("caps_list")
    kept: Mapping[str, object] = listed if isinstance(listed, dict) else {}
    if listed is not None and not isinstance(listed, dict):
        _fail(request, "policy.bad_result", "caps_list is no object")
    sets: dict[str, tuple[str, ...]] = {}
    for name in SETS:
        wanted = tuple(dict.fromkeys(_texts(asked[name]) or ()))
        texts = wanted if listed is None else _texts(kept.get(name))
        if texts is None:
            _fail(request, "policy.bad_result", f"caps_list.{name} is no list of texts")
        sets[name] = _common(wanted, texts)
    return Capabilities(**sets)


def _common(asked: tuple[str, ...], kept: tuple[str, ...]) -> tuple[str, ...]:
    """The policy can only take away: what it did not name, and what nobody asked for, is not there."""
    allowed = frozenset(kept)
    return tuple(text for text in asked if text in allowed)


def _ledgers(request: PointRequest, result: Mapping[str, object]) -> tuple[str, ...] | None:
    if request.point is not Point.LOAD_TRANSPARENCY_TRUST_LIST:
        return None
    listed = _texts(result.get("allowed_ledgers"))
    if not listed:
        _fail(request, "policy.bad_result", "allowed_ledgers is no list of texts, or empty")
    return _common(tuple(dict.fromkeys(_texts(request.input["ledgers"]) or ())), listed)


def _parameters(
    request: PointRequest, result: Mapping[str, object]
) -> tuple[Mapping[str, object], ...]:
    listed = result.get("parameters") if request.point is Point.LOAD_FRAGMENT else None
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        _fail(request, "policy.bad_result", "parameters is no list of objects")
    return tuple(listed)


def _add_module(request: PointRequest, result: Mapping[str, object]) -> bool:
    if request.point is not Point.LOAD_FRAGMENT:
        return False
    add = result.get("add_module", False)
    if not isinstance(add, bool):
        _fail(request, "policy.bad_result", "add_module is no boolean")
    return add


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)
