"""/etc/parma/config.toml."""

from __future__ import annotations

from parma_shim.config import DEFAULT
from parma_shim.doctor.result import Check, Finding, Host, note, ok


def run(host: Host) -> Finding:
    """It was read already: what does it change, and is a default policy in it?"""
    changed = [name for name, _, source in host.config.explain() if source != DEFAULT]
    summary = f"set: {', '.join(changed)}" if changed else "all defaults"
    policy = host.config.default_policy
    if policy is None:
        return ok(summary)
    if not policy.is_file():
        return note(
            summary,
            f"default_policy {policy} is not there: pods without a policy of their own are refused",
        )
    return note(
        summary,
        "default_policy gives its policy to every pod that brings none: for development and suites",
    )


CHECK = Check("config", run)
