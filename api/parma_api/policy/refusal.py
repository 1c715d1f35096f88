"""The decision object in a refusal's text, redacted and cut to size (policy.md, section 13.2)."""

from __future__ import annotations

from collections.abc import Mapping


def decision_text(
    point: str,
    reason_codes: tuple[str, ...],
    document: Mapping[str, object],
    reason: object,
    policy_error: str | None,
) -> str:
    """The error text of a refusal: at most 3072 characters unless the codes alone are longer."""
    raise NotImplementedError
