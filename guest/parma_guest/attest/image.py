"""Which of the two images this is, and whether the kernel says that SNP is active.

Imports little: the agent asks both before its first answer.
"""

from __future__ import annotations

import enum
import os
import struct
from dataclasses import dataclass
from typing import Final

from parma_api.status import FailedPreconditionError

_MSR_AMD64_SEV: Final = 0xC0010131
_SEV_SNP_ENABLED: Final = 1 << 2


class Image(enum.StrEnum):
    """The two images, by the names that image.json and Health have for them (`parma_api.launch.Variant`)."""

    STUB = "stub"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where the kernel says that SNP is active. Each is enough by itself; none can be put there by the host's software.

    `platform`: the platform device that the kernel makes for SNP guests only. `sysfs`: the VMPL directory (6.11).
    `cpuinfo`: flag sev_snp. `msr`: MSR_AMD64_SEV, where the msr driver is loaded. `device`: the driver's node.
    """

    platform: str = "/sys/devices/platform/sev-guest"
    sysfs: str = "/sys/devices/system/cpu/sev"
    cpuinfo: str = "/proc/cpuinfo"
    msr: str = "/dev/cpu/0/msr"
    device: str = "/dev/sev-guest"
    tsm: str = "/sys/kernel/config/tsm/report"

    def snp_active(self) -> str | None:
        """What says so, or None."""
        for path in (self.platform, self.sysfs, self.device):
            if os.path.exists(path):  # noqa: PTH110 (pathlib costs an import)
                return path
        if _has_flag(self.cpuinfo, "sev_snp"):
            return f"{self.cpuinfo}: sev_snp"
        return f"{self.msr}: MSR_AMD64_SEV" if _msr_says_so(self.msr) else None


def _has_flag(path: str, flag: str) -> bool:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return any(line.startswith("flags") and flag in line.split() for line in file)
    except OSError:
        return False


def _msr_says_so(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        value = os.pread(fd, 8, _MSR_AMD64_SEV)
    except OSError:
        return False
    finally:
        os.close(fd)
    return len(value) == 8 and bool(struct.unpack("<Q", value)[0] & _SEV_SNP_ENABLED)


def this_image() -> Image:
    """Which image this is: what it holds, and nothing that anybody says at run time."""
    try:
        import parma_guest.stub  # noqa: F401
    except ImportError:
        return Image.RELEASE
    return Image.STUB


def require_startable(image: Image, kernel: Kernel) -> None:
    """Raises FailedPreconditionError if the stub image finds SNP active."""
    said_by = kernel.snp_active()
    if image is Image.STUB and said_by is not None:
        raise FailedPreconditionError(
            f"this is the stub image and SEV-SNP is active ({said_by}): start the release image"
        )
