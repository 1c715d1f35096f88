"""What the stub's reports say as launch measurement, and which of two it is.

Where the AmdSev firmware is at hand it is the digest that SEV-SNP hardware would come to if it launched the stub image
as the shim launches the release: `parma measure` gives the same. Without firmware it is SHA-384 over the command line
and the digests of the image's files, which stands for nothing but the image.
"""

from __future__ import annotations

import enum
import hashlib
import logging
from pathlib import Path

from parma_api.launch import UvmImage, VmSize, snp_launch
from parma_api.snp.measure.digest import Vcpus, launch_digest
from parma_api.snp.measure.firmware import parse_firmware
from parma_api.snp.measure.kernel_hashes import KernelHashes
from parma_api.snp.measure.vmsa import signature_of
from parma_api.status import ApiError

log = logging.getLogger(__name__)


class Source(enum.Enum):
    """Where a measurement comes from."""

    LAUNCH_DIGEST = "launch digest"
    STAND_IN = "stand-in"


def measurement(image: UvmImage, firmware: Path, size: VmSize) -> tuple[bytes, Source]:
    """48 bytes, and what they are; the log says it too."""
    if firmware.is_file():
        try:
            return _digest(image, firmware, size), Source.LAUNCH_DIGEST
        except (ApiError, OSError) as error:
            reason = error.message if isinstance(error, ApiError) else str(error.strerror)
    else:
        reason = f"no firmware at {firmware}"
    log.warning("stub: the measurement stands for the image's files only: %s", reason)
    text = "\n".join([image.cmdline, *(file.sha256 for file in image.files)])
    return hashlib.sha384(text.encode()).digest(), Source.STAND_IN


def _digest(image: UvmImage, path: Path, size: VmSize) -> bytes:
    launch = snp_launch(image, path, size)
    kernel, initrd = (bytes.fromhex(file.sha256) for file in (launch.kernel, launch.initrd))
    vcpus = Vcpus(launch.vcpus, signature_of(launch.cpu_model), launch.guest_features)
    hashes = KernelHashes(kernel, initrd, launch.cmdline)
    return launch_digest(parse_firmware(path.read_bytes()), hashes, vcpus)
