"""What a policy allows that its author may not have meant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parma_api.policy.decision import PolicyInvalid
from parma_api.policy.engine import EngineLoader
from parma_api.policy.gate import Gate
from parma_tenant.generate.rules import env_admitted, mount_admitted
from parma_tenant.generate.written import Written, read_policy
from parma_tenant.image.scan import LayerFacts
from parma_tenant.profiles.profile import Profile

_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "busybox"})
_WIDE: Final = frozenset({".*", ".+", "(.*)", "(.+)", "^.*$", "^.+$", "[\\s\\S]*", "[\\s\\S]+"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: `level` is error, warning, or note (what depends on the node)."""

    level: str
    where: str
    text: str

    def to_json(self) -> dict[str, str]:
        """As `parma policy lint --json` prints it."""
        return {"level": self.level, "where": self.where, "text": self.text}


async def lint_policy(
    loader: EngineLoader,
    text: bytes,
    profiles: Sequence[Profile] = (),
    facts: Mapping[str, LayerFacts] | None = None,
) -> list[Finding]:
    """Findings of a text; one that the agent would refuse has exactly one, the reason.

    `profiles` are compared with what the policy admits; `facts` are of layers, by root hash.
    """
    gate = Gate(loader)
    try:
        await gate.set_policy(text, hashlib.sha256(text).digest())
    except PolicyInvalid as error:
        return [Finding("error", "policy", error.message)]
    finally:
        await gate.close()
    written = read_policy(text.decode())
    return [
        *_findings(written_containers(text.decode())),
        *_flags(written),
        *_layer_findings(written, facts or {}),
        *_profile_findings(written, profiles),
    ]


def written_containers(text: str) -> list[Mapping[str, Any]]:
    """The literal list `containers` of a generated policy; empty for one that computes it."""
    return [container.value for container in read_policy(text).containers]


_COSTS: Final = {
    "allow_unencrypted_scratch": "what containers write may lie in plain text on the host",
    "allow_dump_stacks": "the host may read the agent's stacks",
    "allow_runtime_logging": "the agent's log goes to the host",
    "allow_host_network": "the host may run the pod without a network namespace",
    "allow_environment_variable_dropping": "the host may leave variables out, and send others that are dropped unseen",
    "allow_capability_dropping": "capabilities that fit no rule are dropped instead of refused",
}


def _flags(written: Written) -> Iterator[Finding]:
    for flag, cost in _COSTS.items():
        if written.bindings.get(flag) == "true":
            yield Finding("warning", "policy", f"{flag}: {cost}")
    for port in written.lists.get("allow_port_forward", ()):
        yield Finding(
            "warning", "policy", f"the host may connect to port {port} of the pod's loopback"
        )
    for rule in written.platform("env_rules"):
        if rule.get("strategy") == "re2" and rule.get("pattern") in _WIDE:
            yield Finding(
                "warning", "platform", f"the pattern {rule['pattern']} admits every variable"
            )


def _profile_findings(written: Written, profiles: Sequence[Profile]) -> Iterator[Finding]:
    """One for each profile of which something would be refused, in some container."""
    for profile in profiles:
        lacking: dict[str, None] = {}
        for container in written.containers:
            env = [*(container.value.get("env_rules") or ()), *written.platform("env_rules")]
            mounts = [*(container.value.get("mounts") or ()), *written.platform("mounts")]
            for variable in profile.env:
                if not env_admitted(env, variable.example):
                    lacking[variable.example.partition("=")[0]] = None
            for mount in profile.mounts:
                wanted = {**mount.rule.value(), "source": mount.example}
                if not mount_admitted(mounts, wanted):
                    lacking[f"the mount at {mount.rule.destination}"] = None
        if lacking:
            yield Finding(
                "note",
                "profile",
                f"on a node of profile {profile.title} this would be refused: {', '.join(lacking)}",
            )


_IMPLIED: Final = (
    "; a later layer changes something in it without listing it, so in the VM it has the owner and mode of its "
    "parent: list the folder in that layer (RUN chmod, chown)"
)


def _layer_findings(written: Written, facts: Mapping[str, LayerFacts]) -> Iterator[Finding]:
    """Folders that a layer needs and does not list lose the owner and mode that a lower layer gave them."""
    for container in written.containers:
        below: dict[str, tuple[int, int, int]] = {}
        for root in container.value.get("layers") or ():
            layer = facts.get(str(root))
            if layer is None:
                continue
            for folder in layer.implied:
                if folder in below and folder not in layer.folders:
                    mode, uid, gid = below[folder]
                    usual = f"/{folder} is {mode:04o} {uid}:{gid} under an ordinary runtime"
                    yield Finding("warning", container.title, usual + _IMPLIED)
            below.update(layer.folders)


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
        yield from _mounts(where, container)


def _mounts(where: str, container: Mapping[str, Any]) -> Iterator[Finding]:
    for mount in container.get("mounts") or ():
        source = str(mount.get("source") or "")
        if source.removeprefix("sandbox://").lstrip("/") in _WIDE:
            yield Finding(
                "warning",
                where,
                f"any volume of the pod may be mounted at {mount.get('destination')}",
            )


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
