"""What a policy allows that its author may not have meant."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from parma_api.policy.decision import PolicyInvalid
from parma_api.policy.engine import EngineLoader
from parma_api.policy.gate import Gate

_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "busybox"})
_WIDE: Final = frozenset({".*", ".+", "(.*)", "(.+)", "^.*$", "^.+$", "[\\s\\S]*", "[\\s\\S]+"})
_CONTAINERS: Final = re.compile(r"^containers\s*:?=\s*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: `level` is error or warning."""

    level: str
    where: str
    text: str

    def to_json(self) -> dict[str, str]:
        """As `parma policy lint --json` prints it."""
        return {"level": self.level, "where": self.where, "text": self.text}


async def lint_policy(loader: EngineLoader, text: bytes) -> list[Finding]:
    """Findings of a text; one that the agent would refuse has exactly one, the reason."""
    gate = Gate(loader)
    try:
        await gate.set_policy(text, hashlib.sha256(text).digest())
    except PolicyInvalid as error:
        return [Finding("error", "policy", error.message)]
    finally:
        await gate.close()
    return list(_findings(written_containers(text.decode())))


def written_containers(text: str) -> list[Mapping[str, Any]]:
    """The literal list `containers` of a generated policy; empty for one that computes it.

    Generated policies are JSON but for trailing commas.
    """
    found = _CONTAINERS.search(text)
    if found is None:
        return []
    literal = re.sub(r",(\s*[\]}])", r"\1", text[found.end() :])
    try:
        listed, _ = json.JSONDecoder().raw_decode(literal)
    except ValueError:
        return []
    return [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []


def _findings(containers: list[Mapping[str, Any]]) -> Iterator[Finding]:
    for index, container in enumerate(containers):
        where = str(container.get("name") or container.get("id") or f"containers[{index}]")
        if not container.get("layers"):
            yield Finding("warning", where, "it has no layers, so it can never be started")
        if container.get("allow_elevated") is True:
            yield Finding("warning", where, "it may be privileged, and may ask for reports")
        if container.get("allow_stdio_access") is True:
            yield Finding("warning", where, "the host reads its output and writes its input")
        yield from _commands(where, container)
        yield from _patterns(where, container)


def _commands(where: str, container: Mapping[str, Any]) -> Iterator[Finding]:
    for process in container.get("exec_processes") or ():
        command = process.get("command") or [""]
        if str(command[0]).rsplit("/", 1)[-1] in _SHELLS:
            yield Finding(
                "warning", where, f"a shell may be run in it: {' '.join(map(str, command))}"
            )


def _patterns(where: str, container: Mapping[str, Any]) -> Iterator[Finding]:
    for rule in container.get("env_rules") or ():
        if rule.get("strategy") == "re2" and rule.get("pattern") in _WIDE:
            yield Finding("warning", where, f"the pattern {rule['pattern']} admits every variable")
        if rule.get("name_strategy") == "re2" and rule.get("name") in _WIDE:
            yield Finding(
                "warning", where, f"the name pattern {rule['name']} admits every variable"
            )
