"""The launch digest from its inputs, in the order in which QEMU gives pages to the firmware of the processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from parma_api.snp.measure.firmware import Firmware, Section, SectionKind
from parma_api.snp.measure.kernel_hashes import KernelHashes
from parma_api.snp.measure.pages import (
    START,
    Page,
    PageKind,
    extend,
    normal_pages,
    plain_pages,
    vmsa_page,
)
from parma_api.snp.measure.vmsa import BOOT_ADDRESS, vmsa
from parma_api.status import InvalidArgumentError

MAX_VCPUS: Final = 512
_KINDS: Final = {
    SectionKind.SEC_MEM: PageKind.ZERO,
    SectionKind.SECRETS: PageKind.SECRETS,
    SectionKind.CPUID: PageKind.CPUID,
    SectionKind.SVSM_CAA: PageKind.ZERO,
}


@dataclass(frozen=True, slots=True)
class Vcpus:
    """How many, of which model (leaf 1 EAX) and with which SEV_FEATURES."""

    count: int
    signature: int
    features: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_VCPUS:
            raise InvalidArgumentError(f"a guest has 1 to {MAX_VCPUS} vCPUs, not {self.count}")
        if not 0 <= self.features < 1 << 64:
            raise InvalidArgumentError("SEV features are a 64-bit number")


def launch_digest(firmware: Firmware, hashes: KernelHashes | None, vcpus: Vcpus) -> bytes:
    """48 bytes, as MEASUREMENT of a report. Raises InvalidArgumentError for hashes that the firmware does not check."""
    return with_vcpus(memory_digest(firmware, hashes), firmware, vcpus)


def memory_digest(firmware: Firmware, hashes: KernelHashes | None) -> bytes:
    """The digest before the first vCPU: what does not depend on their number."""
    if hashes is not None and not firmware.checks_kernel:
        raise InvalidArgumentError(
            "this firmware does not check a kernel's hashes: use the AmdSev build of OVMF"
        )
    digest = extend(START, normal_pages(firmware.address, firmware.data))
    for section in firmware.sections:
        digest = extend(digest, _section_pages(section, firmware, hashes))
    return digest


def with_vcpus(memory: bytes, firmware: Firmware, vcpus: Vcpus) -> bytes:
    """The digest with the state of each vCPU: the first starts at the reset vector, the others in the firmware."""
    return list(by_count(memory, firmware, vcpus))[-1]


def by_count(memory: bytes, firmware: Firmware, vcpus: Vcpus) -> Iterator[bytes]:
    """The digests for 1, 2, ... `vcpus.count` vCPUs."""
    first = vmsa_page(vmsa(BOOT_ADDRESS, vcpus.signature, vcpus.features))
    other = vmsa_page(vmsa(firmware.reset_address, vcpus.signature, vcpus.features))
    digest = extend(memory, [first])
    yield digest
    for _ in range(1, vcpus.count):
        digest = extend(digest, [other])
        yield digest


def _section_pages(
    section: Section, firmware: Firmware, hashes: KernelHashes | None
) -> Iterator[Page]:
    if section.kind is not SectionKind.KERNEL_HASHES:
        return plain_pages(_KINDS[section.kind], section.address, section.size)
    if hashes is None or firmware.hash_table is None:
        return plain_pages(PageKind.ZERO, section.address, section.size)
    page = hashes.page(firmware.hash_table)
    if section.size != len(page) or firmware.hash_table - section.address not in range(len(page)):
        raise InvalidArgumentError("the firmware's place for kernel hashes is not in its section")
    return normal_pages(section.address, page)
