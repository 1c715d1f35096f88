"""All checks, in the order in which a reader wants them."""

from __future__ import annotations

from dataclasses import dataclass

from parma_shim.doctor import (
    accelerator,
    channel,
    configuration,
    containerd,
    handler,
    isolation,
    network,
    opa,
    qemu,
    space,
    uvm,
)
from parma_shim.doctor.result import Check, Finding, Host, Verdict

CHECKS: tuple[Check, ...] = (
    configuration.CHECK,
    accelerator.CHECK,
    channel.CHECK,
    qemu.CHECK,
    uvm.CHECK,
    opa.CHECK,
    containerd.CHECK,
    handler.CHECK,
    network.CHECK,
    isolation.CHECK,
    space.CHECK,
)


@dataclass(frozen=True, slots=True)
class Report:
    """Findings by name."""

    findings: tuple[tuple[str, Finding], ...]

    @property
    def healthy(self) -> bool:
        """Whether groups can start here."""
        return all(finding.verdict is not Verdict.FAIL for _, finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "healthy": self.healthy,
            "checks": [
                {"name": name, "verdict": f.verdict.value, "summary": f.summary, "advice": f.advice}
                for name, f in self.findings
            ],
        }

    def lines(self) -> list[str]:
        """For a terminal: one line each, and an indented one where there is something to do."""
        marks = {Verdict.OK: "ok  ", Verdict.NOTE: "note", Verdict.FAIL: "FAIL"}
        shown = []
        for name, finding in self.findings:
            shown.append(f"{marks[finding.verdict]}  {name:<12} {finding.summary}")
            if finding.advice:
                shown.append(f"{'':<19}-> {finding.advice}")
        return shown


def examine(host: Host, checks: tuple[Check, ...] = CHECKS) -> Report:
    """Runs the checks."""
    return Report(tuple((check.name, check.run(host)) for check in checks))
