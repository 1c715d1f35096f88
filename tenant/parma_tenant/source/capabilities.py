"""What containerd makes of the capabilities that a container adds and drops, and which seccomp profile that means.

Sources: containerd pkg/cri/sbserver/container_create_linux.go, contrib/seccomp/seccomp_default.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from parma_api.policy.defaults import PRIVILEGED_CAPABILITIES
from parma_tenant.generate.model import DEFAULT_CAPABILITIES
from parma_tenant.source.model import CapabilityChange

_IN_PROFILE: Final = frozenset(
    "BPF DAC_READ_SEARCH PERFMON SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE "
    "SYS_RAWIO SYS_TIME SYS_TTY_CONFIG".split()
)
"""Those for which containerd's default profile has syscalls of their own."""


def capability_names(change: CapabilityChange) -> set[str]:
    """As containerd: ALL first, then single names, added before dropped; each with CAP_ in front."""
    add, drop = (
        {name.upper().removeprefix("CAP_") for name in names} for names in (change.add, change.drop)
    )
    names = set(DEFAULT_CAPABILITIES)
    if "ALL" in add:
        names = set(PRIVILEGED_CAPABILITIES)
    if "ALL" in drop:
        names = set()
    names |= {f"CAP_{name}" for name in add - {"ALL"}}
    return names - {f"CAP_{name}" for name in drop}


def seccomp_digest_of(
    name: str, change: CapabilityChange, digests: Mapping[str, str]
) -> str | None:
    """The digest of the profile `name`: for any capabilities, else, after a plus sign, for the container's own."""
    own = sorted(name for name in _IN_PROFILE if f"CAP_{name}" in capability_names(change))
    return digests.get(name) or digests.get(f"{name}+{'+'.join(own)}")
