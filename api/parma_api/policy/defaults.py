"""Lists that both the evaluator's data and the agent need; a test compares them with `policy_bundles/data.json`."""

from __future__ import annotations

from typing import Final

SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")


def _caps(names: str) -> tuple[str, ...]:
    return tuple(f"CAP_{name}" for name in names.split())


UNPRIVILEGED_CAPABILITIES: Final = _caps(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    " AUDIT_WRITE"
)
PRIVILEGED_CAPABILITIES: Final = _caps(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
    " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP"
    " MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)


def default_sets(*, privileged: bool) -> dict[str, list[str]]:
    """The five sets that `capabilities: null` stands for (policy.md, section 8.6)."""
    names = list(PRIVILEGED_CAPABILITIES if privileged else UNPRIVILEGED_CAPABILITIES)
    inheritable = names if privileged else []
    return dict(zip(SETS, (names, names, inheritable, names, []), strict=True))
