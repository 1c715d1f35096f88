"""Release policies, in the grammar of Azure Key Vault's secure key release (attestation reference section 16).

    policy     {"version": "1.0.0", "anyOf": [authority, ...]}
    authority  {"authority": URL, "allOf" | "anyOf": [condition, ...]}
    condition  {"claim": path, OPERATOR: value} | {"allOf" | "anyOf": [condition, ...]}
    OPERATOR   equals notEquals less lessOrEquals greater greaterOrEquals exists

A path is a claim's whole name, or names joined by dots. Ours where the grammar is silent: a value of another type
than the claim's refuses (`true` is not `"true"`, 1 is not true), so does a claim that is missing, for notEquals too;
order is for numbers only; an empty list is an error, not "always" or "never".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import read_object

MAX_SIZE: Final = 64 * 1024
VERSION: Final = "1.0.0"
_MAX_CONDITIONS: Final = 512
_MAX_DEPTH: Final = 8
_MAX_PATH: Final = 256

Scalar: TypeAlias = str | int | float | bool


class ReleasePolicyError(InvalidArgumentError):
    """The text is no release policy."""


class Operator(enum.StrEnum):
    """How a claim is compared."""

    EQUALS = "equals"
    NOT_EQUALS = "notEquals"
    LESS = "less"
    LESS_OR_EQUALS = "lessOrEquals"
    GREATER = "greater"
    GREATER_OR_EQUALS = "greaterOrEquals"
    EXISTS = "exists"


_ORDER: Final[dict[Operator, Callable[[float, float], bool]]] = {
    Operator.LESS: lambda a, b: a < b,
    Operator.LESS_OR_EQUALS: lambda a, b: a <= b,
    Operator.GREATER: lambda a, b: a > b,
    Operator.GREATER_OR_EQUALS: lambda a, b: a >= b,
}


class Quantifier(enum.StrEnum):
    """How conditions are joined."""

    ALL = "allOf"
    ANY = "anyOf"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One claim, one operator, one value."""

    claim: str
    operator: Operator
    value: Scalar

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claim is as it says."""
        found = _claim(claims, self.claim)
        if self.operator is Operator.EXISTS:
            return (found is not None) is self.value
        if found is None or not _same_type(found, self.value):
            return False
        if self.operator is Operator.EQUALS:
            return bool(found == self.value)
        if self.operator is Operator.NOT_EQUALS:
            return bool(found != self.value)
        return _ORDER[self.operator](found, self.value)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions joined."""

    quantifier: Quantifier
    conditions: tuple[Comparison | Group, ...]

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether all, or any, of them hold."""
        each = (condition.holds(claims) for condition in self.conditions)
        return all(each) if self.quantifier is Quantifier.ALL else any(each)


@dataclass(frozen=True, slots=True)
class Authority:
    """What tokens of one issuer must claim."""

    issuer: str
    group: Group


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """Any of the authorities."""

    authorities: tuple[Authority, ...]

    def allows(self, issuer: str, claims: Mapping[str, Any]) -> bool:
        """Whether claims of that issuer, whose token was verified, are enough."""
        return any(
            authority.group.holds(claims)
            for authority in self.authorities
            if authority.issuer == issuer.rstrip("/")
        )


def parse_policy(text: bytes) -> ReleasePolicy:
    """Reads a policy strictly. Raises ReleasePolicyError."""
    try:
        document = read_object(text, "a release policy", MAX_SIZE)
    except InvalidArgumentError as error:
        raise ReleasePolicyError(error.message) from None
    if set(document) != {"version", "anyOf"} or document["version"] != VERSION:
        raise ReleasePolicyError(f'a release policy is {{"version": "{VERSION}", "anyOf": [...]}}')
    reader = _Reader()
    listed = reader.listed(document["anyOf"], Quantifier.ANY)
    return ReleasePolicy(tuple(_authority(reader, one) for one in listed))


def _authority(reader: _Reader, document: object) -> Authority:
    if not isinstance(document, dict) or "authority" not in document:
        raise ReleasePolicyError("an authority has the members authority and allOf or anyOf")
    issuer = document["authority"]
    if not isinstance(issuer, str) or not issuer.startswith(("https://", "http://")):
        raise ReleasePolicyError("an authority is the URL of an attestation service")
    rest = {name: value for name, value in document.items() if name != "authority"}
    return Authority(issuer.rstrip("/"), reader.group(rest, 1))


class _Reader:
    """Counts what it reads, so that a policy is never expensive."""

    def __init__(self) -> None:
        self._count = 0

    def listed(self, value: object, quantifier: Quantifier) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise ReleasePolicyError(f"{quantifier} is a list that is not empty")
        self._count += len(value)
        if self._count > _MAX_CONDITIONS:
            raise ReleasePolicyError(f"a release policy has at most {_MAX_CONDITIONS} conditions")
        return value

    def group(self, document: Mapping[str, Any], depth: int) -> Group:
        names = [quantifier for quantifier in Quantifier if quantifier in document]
        if len(names) != 1 or len(document) != 1 or depth > _MAX_DEPTH:
            raise ReleasePolicyError(
                f"conditions are joined by one of allOf and anyOf, at most {_MAX_DEPTH} deep"
            )
        listed = self.listed(document[names[0]], names[0])
        return Group(names[0], tuple(self._condition(one, depth) for one in listed))

    def _condition(self, document: object, depth: int) -> Comparison | Group:
        if not isinstance(document, dict):
            raise ReleasePolicyError("a condition is an object")
        if "claim" not in document:
            return self.group(document, depth + 1)
        return _comparison(document)


def _comparison(document: Mapping[str, Any]) -> Comparison:
    names = [operator for operator in Operator if operator in document]
    claim = document["claim"]
    if len(names) != 1 or len(document) != 2:
        raise ReleasePolicyError(f"a condition has a claim and one of {', '.join(Operator)}")
    if not isinstance(claim, str) or not 0 < len(claim) <= _MAX_PATH:
        raise ReleasePolicyError("a claim is named by a text")
    operator, value = names[0], document[names[0]]
    if not isinstance(value, str | int | float):
        raise ReleasePolicyError("a claim is compared with a text, a number or a boolean")
    if operator is Operator.EXISTS and not isinstance(value, bool):
        raise ReleasePolicyError("exists is true or false")
    if operator in _ORDER and (isinstance(value, bool | str)):
        raise ReleasePolicyError(f"{operator} compares numbers")
    return Comparison(claim, operator, value)


def _same_type(found: object, value: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(found, bool):
        return isinstance(value, bool) and isinstance(found, bool)
    if isinstance(value, str):
        return isinstance(found, str)
    return isinstance(found, int | float)


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """A claim of that whole name, else the way down by the names between the dots; None when there is none."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found
