"""A policy before it is text: frozen values, one for each thing that policy.md section 8 and 15 name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

API_VERSION = "0.12.0"
FRAMEWORK_VERSION = "0.5.0"

DEFAULT_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
"""What an ordinary container has (containerd's default, and policy.md section 7)."""

END_SIGNALS = (9, 15)
"""Without these a container could not be stopped but with its whole group."""


class Strategy(enum.StrEnum):
    """How a pattern is compared (policy.md 8.3)."""

    STRING = "string"
    RE2 = "re2"


@dataclass(frozen=True, slots=True)
class EnvRule:
    """A rule for whole `NAME=value` texts."""

    pattern: str
    strategy: Strategy = Strategy.STRING
    required: bool = False

    def value(self) -> dict[str, object]:
        return {
            "pattern": self.pattern,
            "strategy": self.strategy.value,
            "required": self.required,
        }


@dataclass(frozen=True, slots=True)
class MountRule:
    """An allowed mount; `source` may begin with `sandbox://` (then it is a pattern)."""

    destination: str
    source: str
    options: tuple[str, ...]
    type: str = "bind"
    example: str = ""
    """A source that matches, where the pattern is more than an escaped text."""

    def value(self) -> dict[str, object]:
        return {
            "destination": self.destination,
            "source": self.source,
            "type": self.type,
            "options": list(self.options),
        }


@dataclass(frozen=True, slots=True)
class ExecRule:
    """A further process that the host may start, and signals it may send to it."""

    command: tuple[str, ...]
    signals: tuple[int, ...] = END_SIGNALS

    def value(self) -> dict[str, object]:
        return {"command": list(self.command), "signals": list(self.signals)}


@dataclass(frozen=True, slots=True)
class IdName:
    """Who may run: by number, by name, by pattern or anybody (policy.md 8.5)."""

    pattern: str = ""
    strategy: str = "any"

    def value(self) -> dict[str, object]:
        return {"pattern": self.pattern, "strategy": self.strategy}


@dataclass(frozen=True, slots=True)
class UserRule:
    """User, groups and umask of a container's processes."""

    user: IdName = IdName()
    groups: tuple[IdName, ...] = (IdName(),)
    umask: str = "0022"

    def value(self) -> dict[str, object]:
        return {
            "user_idname": self.user.value(),
            "group_idnames": [group.value() for group in self.groups],
            "umask": self.umask,
        }


@dataclass(frozen=True, slots=True)
class CapabilityRule:
    """The five sets; `default()` is an ordinary container's."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    permitted: tuple[str, ...]
    ambient: tuple[str, ...]

    @classmethod
    def default(cls) -> CapabilityRule:
        names = tuple(sorted(DEFAULT_CAPABILITIES))
        return cls(names, names, (), names, ())

    def value(self) -> dict[str, object]:
        return {
            "bounding": list(self.bounding),
            "effective": list(self.effective),
            "inheritable": list(self.inheritable),
            "permitted": list(self.permitted),
            "ambient": list(self.ambient),
        }


@dataclass(frozen=True, slots=True)
class Container:
    """One container description (policy.md 8.1); `layers` are dm-verity roots, base first."""

    name: str
    layers: tuple[str, ...]
    command: tuple[str, ...]
    env_rules: tuple[EnvRule, ...] = ()
    working_dir: str = "/"
    mounts: tuple[MountRule, ...] = ()
    exec_processes: tuple[ExecRule, ...] = ()
    signals: tuple[int, ...] = END_SIGNALS
    user: UserRule = UserRule()
    capabilities: CapabilityRule | None = field(default_factory=CapabilityRule.default)
    seccomp_profile_sha256: str = ""
    allow_elevated: bool = False
    allow_stdio_access: bool = True
    no_new_privileges: bool = False

    def value(self) -> dict[str, object]:
        return {
            "name": self.name,
            "layers": list(self.layers),
            "command": list(self.command),
            "env_rules": [rule.value() for rule in self.env_rules],
            "working_dir": self.working_dir,
            "mounts": [rule.value() for rule in self.mounts],
            "exec_processes": [rule.value() for rule in self.exec_processes],
            "signals": list(self.signals),
            "user": self.user.value(),
            "capabilities": None if self.capabilities is None else self.capabilities.value(),
            "seccomp_profile_sha256": self.seccomp_profile_sha256,
            "allow_elevated": self.allow_elevated,
            "allow_stdio_access": self.allow_stdio_access,
            "no_new_privileges": self.no_new_privileges,
        }


@dataclass(frozen=True, slots=True)
class PlatformRule:
    """What the platform adds to every container (policy.md 11.6)."""

    env_rules: tuple[EnvRule, ...] = ()
    mounts: tuple[MountRule, ...] = ()

    def value(self) -> dict[str, object]:
        return {
            "env_rules": [rule.value() for rule in self.env_rules],
            "mounts": [rule.value() for rule in self.mounts],
        }


FLAGS = (
    "allow_properties_access",
    "allow_dump_stacks",
    "allow_runtime_logging",
    "allow_host_network",
    "allow_environment_variable_dropping",
    "allow_unencrypted_scratch",
    "allow_capability_dropping",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy; flags that are not named are false."""

    containers: tuple[Container, ...]
    fragments: tuple[Mapping[str, object], ...] = ()
    external_processes: tuple[Mapping[str, object], ...] = ()
    flags: frozenset[str] = frozenset({"allow_properties_access"})
    allow_port_forward: tuple[int, ...] = ()
    platform_rules: tuple[PlatformRule, ...] = ()
    header: tuple[str, ...] = ()
