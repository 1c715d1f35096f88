"""What a verification answers: a list of named checks, each with what was expected, what was found and why."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Shown: TypeAlias = str | int | bool | list[str] | None
"""What `expected` and `got` may be: JSON values."""

_GROUPS: Final = {
    "report": "length version reserved algorithm key_info policy_bits",
    "chain": "complete signer root signature names validity key crl",
    "binding": "tcb chip_id product",
    "policy": "debug migration smt single_socket cxl aes_xts rapl ciphertext_hiding page_swap abi",
    "value": (
        "vmpl report_data host_data measurement family_id image_id guest_svn id_key author_key"
    ),
    "platform": "smt tsme ecc rapl alias_check",
    "tcb": "leaf provisional minimum launch_minimum firmware mitigations",
}
TRANSCRIPT_NAMES: Final = ("transcript.chain", "transcript.bound", "transcript.replay")


def _names() -> Iterator[str]:
    for group, members in _GROUPS.items():
        if group == "chain":
            yield "signature"
        yield from (f"{group}.{member}" for member in members.split())


NAMES: Final = tuple(_names())
"""Every check of a report, in the order in which they are shown."""
REQUIRED: Final = frozenset(
    name
    for name in NAMES
    if name.split(".")[0] in ("report", "signature", "chain", "binding") and name != "chain.crl"
) | {"policy.debug", "policy.migration", "value.vmpl", "tcb.leaf", "tcb.provisional"}
"""Checks without which nothing is accepted: one that could not be made refuses, as one that fails."""


class Result(enum.StrEnum):
    """Of one check; `skip` is "not demanded", or "could not be made" with the reason."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"


class Verdict(enum.StrEnum):
    """Of all checks together."""

    ACCEPT = "accept"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `reason` is one line, never empty when the check did not pass."""

    name: str
    result: Result
    expected: Shown = None
    got: Shown = None
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "name": self.name,
            "result": str(self.result),
            "expected": self.expected,
            "got": self.got,
            "reason": self.reason,
        }


def passed(name: str, *, expected: Shown = None, got: Shown = None, reason: str = "") -> Check:
    """A check that holds."""
    return Check(name, Result.PASS, expected, got, reason)


def failed(name: str, reason: str, *, expected: Shown = None, got: Shown = None) -> Check:
    """A check that does not hold."""
    return Check(name, Result.FAIL, expected, got, reason)


def skipped(name: str, reason: str, *, got: Shown = None) -> Check:
    """A check that nobody demanded, or that could not be made."""
    return Check(name, Result.SKIP, None, got, reason)


def judged(name: str, *, expected: Shown, got: Shown, holds: bool, reason: str) -> Check:
    """A check whose outcome is `holds`; `reason` is for its failure."""
    if holds:
        return passed(name, expected=expected, got=got)
    return failed(name, reason, expected=expected, got=got)


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks in their order, and what the report claims; claims mean something only with ACCEPT."""

    checks: tuple[Check, ...]
    claims: Mapping[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """ACCEPT if no check failed and every required one passed."""
        passing = {check.name for check in self.checks if check.result is Result.PASS}
        good = passing >= REQUIRED and not self.failures
        return Verdict.ACCEPT if good else Verdict.REFUSE

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result is Result.FAIL)

    def check(self, name: str) -> Check:
        """The check of that name. Raises KeyError."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def to_json(self) -> dict[str, object]:
        """As `parma attest verify --json` prints it."""
        return {
            "verdict": str(self.verdict),
            "claims": dict(self.claims),
            "checks": [check.to_json() for check in self.checks],
        }


def complete(checks: Mapping[str, Check], why_missing: str) -> tuple[Check, ...]:
    """All names in their order; one that was not made is skipped for `why_missing`."""
    return tuple(checks.get(name) or skipped(name, why_missing) for name in NAMES)
