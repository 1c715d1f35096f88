"""A container group as a user describes it, before its images are known."""

from __future__ import annotations

from dataclasses import dataclass

from parma_tenant.generate.model import ExecRule, MountRule
from parma_tenant.source.expansion import Text

TOKEN_FEATURE = "service-account-token"  # noqa: S105 (a feature's name)


@dataclass(frozen=True, slots=True)
class EnvVar:
    """A variable: its value, or a pattern for what only the cluster will know."""

    name: str
    value: Text


@dataclass(frozen=True, slots=True)
class RunAs:
    """Who runs, where the file says so; None where the image decides."""

    user: int | None = None
    group: int | None = None
    supplemental: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CapabilityChange:
    """Names without CAP_; ALL stands for all."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container. `command` and `args` as in Kubernetes; None where the image decides."""

    name: str
    image: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[EnvVar, ...] = ()
    working_dir: str | None = None
    execs: tuple[ExecRule, ...] = ()
    mounts: tuple[MountRule, ...] = ()
    run_as: RunAs = RunAs()
    capabilities: CapabilityChange = CapabilityChange()
    privileged: bool = False
    no_new_privileges: bool = False
    stdio: bool = True
    seccomp: str = ""
    signals: tuple[int, ...] = ()
    """Besides those that end it."""


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A whole group.

    `origin` names the file and, in Kubernetes, the object; `without` are features of profiles that it has not;
    `notes` are for the user's eyes.
    """

    origin: str
    containers: tuple[ContainerSpec, ...]
    port_forward: tuple[int, ...] = ()
    profiles: tuple[str, ...] = ("containerd",)
    without: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
