"""Fragments: the name of the module, the two questions, one reading for each set of values (policy.md, section 11)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from parma_api.policy.bundle import RESERVED_NAMES
from parma_api.policy.decision import PointRequest, PolicyInvalid
from parma_api.policy.engine import Engine, EngineLostError, EvaluationError, Module
from parma_api.policy.gate import FRAGMENTS, Gate
from parma_api.policy.metadata import canonical
from parma_api.policy.points import Point

_PACKAGE: Final = re.compile(rb"package +([A-Za-z_][A-Za-z0-9_]*)[ \t\r\f\v]*")
MAX_VALUES: Final = 64
"""Value objects of one fragment: each is read by a question of its own."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A ledger's receipt that was checked, and the lists that offered its key."""

    issuer: str
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """What an envelope proved about its payload."""

    issuer: str
    feed: str
    header_svn: int | None = None
    receipts: tuple[Receipt, ...] = ()


class NamespaceError(Exception):
    """The module's name cannot be used; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def module_namespace(text: bytes) -> str:
    """The name on the first line. Raises NamespaceError; nothing of the text is compiled for it."""
    found = _PACKAGE.fullmatch(text.split(b"\n", 1)[0])
    if found is None:
        raise NamespaceError("fragment.namespace_invalid", "the first line is not `package NAME`")
    name = found.group(1).decode("ascii")
    if name in RESERVED_NAMES:
        raise NamespaceError("fragment.namespace_reserved", f"the name {name} is reserved")
    return name


async def load_module(gate: Gate, claims: Claims, text: bytes, deadline: float) -> None:
    """Load a fragment whose envelope has been checked: all of it or nothing. Raises PolicyDenied."""
    try:
        namespace = module_namespace(text)
    except NamespaceError as error:
        gate.refuse(_question(claims, ""), error.code, str(error))
    first = gate.prepare(_question(claims, namespace))
    async with gate.turn(FRAGMENTS, deadline):
        if any(module.name == namespace for module in gate.modules):
            gate.refuse(first, "fragment.namespace_in_use", f"a module named {namespace} is loaded")
        await _load(gate, first, Module(namespace, text))


def _question(claims: Claims, namespace: str) -> PointRequest:
    receipts = [{"issuer": r.issuer, "ttl_subjects": list(r.subjects)} for r in claims.receipts]
    return PointRequest(
        Point.LOAD_FRAGMENT,
        {
            "issuer": claims.issuer,
            "feed": claims.feed,
            "namespace": namespace,
            "fragment_loaded": False,
            "has_header_svn": claims.header_svn is not None,
            "header_svn": claims.header_svn,
            "receipts": receipts,
        },
    )


async def _load(gate: Gate, first: PointRequest, module: Module) -> None:
    base = gate.metadata()
    verdict, ahead = await gate.decide(first, base)
    commands = list(verdict.commands)
    values = _distinct(verdict.decision.parameters)
    if len(values) > MAX_VALUES:
        gate.refuse(first, "fragment.invalid", f"more than {MAX_VALUES} sets of values")
    second = replace(first, input={**first.input, "fragment_loaded": True})
    modules = (*gate.modules, module)
    engine = await _compiled(gate, second, modules)
    keep = False
    try:
        for chosen in values:
            verdict, ahead = await gate.decide(second, ahead, engine, chosen)
            commands += verdict.commands
            keep = keep or verdict.decision.add_module
        if keep and len(values) > 1:
            gate.refuse(
                second,
                "fragment.parameters_namespace",
                "several sets of values cannot share a namespace",
            )
        gate.book(gate.metadata().rebase(base, commands))
        if keep:
            gate.adopt(engine, modules)
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            await engine.close()


async def _compiled(gate: Gate, request: PointRequest, modules: Sequence[Module]) -> Engine:
    try:
        engine = await gate.loader.load(modules)
    except PolicyInvalid as error:
        gate.refuse(request, "fragment.invalid", error.message)
    except (EvaluationError, EngineLostError) as error:
        gate.refuse(request, "policy.evaluation", str(error))
    return engine


def _distinct(parameters: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Equal value objects are read once; none at all stand for an empty one."""
    return list({canonical(dict(values)): values for values in parameters}.values()) or [{}]


__all__ = ["Claims", "NamespaceError", "Receipt", "load_module", "module_namespace"]
